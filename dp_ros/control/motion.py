"""Motion of the commands: along the chunk's own path, at its own pace, and slower where a limit bites.

Every position that is commanded comes from here, and here from the limiter: those of ticks, of the times between them,
of holds and of the stop at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dp_ros.actions import POSITION
from dp_ros.control.chunk import Chunk
from dp_ros.control.chunk_path import ChunkPath
from dp_ros.control.interpolation import Interpolator
from dp_ros.control.limiter import Limiter, Limits, Point, between, point
from dp_ros.control.safety import Array, Verdict
from dp_ros.control.smoothing import smoothed
from dp_ros.control.tracking import Tracker
from dp_ros.schema import GateConfig

Path = Callable[[float], Point]  # share of the way that is due, 0 to 1 -> position
# Parts of the way from the hardest braking to the softest.
_SOFTER = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
_ALONG = 1.5  # times the shortest stop, in a straight line, that a stop along the chunk may take
_BISECTIONS, _COARSE_BISECTIONS = 44, 12
_BESIDE_M = 1e-5  # a command that is nearer to an action is there


@dataclass(frozen=True)
class Step:
    """One command's position."""

    position_m: Array  # (3,)
    share: float  # of the way that was due; below 1 the chunk falls behind the clock
    limit: Verdict | None  # the limit that bit


class Motion:
    """The commanded positions of an episode, one after another.

    A hold slows down along the chunk that was in use, as fast as the limits allow; without limits of acceleration it
    stops at once. Motion that begins may be as fast as `ramp_s` allows.
    """

    def __init__(self, gate: GateConfig, period_s: float) -> None:
        """period_s: the usual time between two commands."""
        self._period_s = period_s
        self._limiter = Limiter(Limits.of(gate), period_s)
        self._tracker = Tracker(self._limiter)
        self.configure(gate)
        self.begin(np.zeros(POSITION.size))

    def configure(self, gate: GateConfig) -> None:
        """Take other limits, at once."""
        self._gate, self._limiter.limits = gate, Limits.of(gate)

    def begin(self, position_m: Array) -> None:
        """At rest at a finite position (3,)."""
        self._limiter.begin(position_m)
        self._ramped_s = 0.0
        self._last: tuple[Chunk, float] | None = None  # chunk in use, and the index reached in it
        self._near: tuple[Chunk, Chunk] | None = None  # a chunk, and as it is followed
        self._stop_left: float | None = None  # holds that may go along the chunk; None before the first
        self._kept: tuple[Chunk, float] | None = None  # the chunk that holds keep, and its index then

    @property
    def speed_m_s(self) -> float:
        """Speed of the last command."""
        return self._limiter.speed_m_s

    def place(self, position_m: Array) -> None:
        """At another finite position (3,), with the same velocity."""
        self._limiter.place(position_m)

    @property
    def is_moving(self) -> bool:
        return self._limiter.is_moving

    def near(self, chunk: Chunk, begin: float, is_exact: bool = False) -> Chunk:
        """The chunk as it is to be followed: within `path_tolerance_m` of its actions. The arm is at the index `begin`.

        is_exact: through its actions. It is decided once for a chunk: a way that changed at each command could not be
        looked along.
        """
        gate, limiter = self._gate, self._limiter
        if is_exact or not gate.path_tolerance_m or gate.slowing == "axes":
            return chunk
        if self._near is None or not self._near[1].is_same(chunk):
            at, velocity, limits = limiter.position, limiter.velocity, limiter.limits
            self._near = chunk, smoothed(chunk, begin, at, velocity, gate.path_tolerance_m, limits)
            return self._near[1]
        return chunk

    def is_beside(self, chunk: Chunk, now_ns: int) -> bool:
        """Whether a chunk that `near` gave is beside its action for now, because a limit of acceleration bites."""
        if self._near is None or self._near[0] is self._near[1] or not self._near[1].is_same(chunk):
            return False
        at, action = chunk.at(now_ns), replace(chunk, actions=self._near[0].actions).at(now_ns)
        if at is None or action is None or not np.isfinite(POSITION.of(action)).all():
            return False
        limits = self._limiter.limits
        inside_m = np.clip(POSITION.of(action), limits.low_m, limits.high_m)
        return bool(np.abs(POSITION.of(at) - inside_m).max() > _BESIDE_M)

    def keep(self, chunk: Chunk | None, now_ns: int) -> None:
        """Note the chunk that may go on after this hold."""
        if chunk is None:
            self._kept = None
        elif self._kept is None or not self._kept[0].is_same(chunk):
            self._kept = (chunk, chunk.progress(now_ns))
        else:
            self._kept = (chunk, self._due(*self._kept))

    def _due(self, chunk: Chunk, due: float) -> float:
        """Index of the action that follows where the arm is on its way of braking; it was `due` a command ago."""
        if self._last is not None and self._last[0].is_same(chunk):
            return self._last[1] + 1.0
        # The arm brakes in a straight line beside the chunk, by less than a tick's way in a tick.
        first, i = chunk.horizons.executed.start, math.floor(due + 1e-9)
        if not first < i < len(chunk.actions):
            return due
        a, b = (point(POSITION.of(chunk.actions[k])) for k in (i - 1, i))
        way_m2 = sum(
            (y - x) * (y - x) for x, y in zip(a, b, strict=True)
        )  # floats: no warning where it overflows
        if not 0.0 < way_m2 < math.inf:
            return due
        along_m2 = sum((at - x) * (y - x) for at, x, y in zip(self._limiter.position, a, b, strict=True))
        return max(due, i + min(max(along_m2 / way_m2, 0.0), 1.0))

    @property
    def keeps(self) -> bool:
        """Whether the last tick was a hold that kept a chunk."""
        return self._kept is not None

    def resumed(self, chunk: Chunk | None, now_ns: int) -> Chunk | None:
        """The chunk as it goes on: where holds kept it, its next action follows the last executed one.

        By the clock, the actions of the held ticks are past, and skipping them would be a leap. A chunk that is over by
        the clock stays over.
        """
        if chunk is None or self._kept is None or not self._kept[0].is_same(chunk):
            return chunk
        if chunk.at(now_ns) is None:
            return chunk
        due = self._due(*self._kept)
        if chunk.dt_ns > 1.5e9 * self._period_s:  # the commands between this tick and the next lead to it
            due = max(due - 1.0, chunk.horizons.executed.start)
        return replace(chunk, held=chunk.held + max(0.0, chunk.progress(now_ns) - due))

    def stand(self, dt_s: float) -> Step:
        """The step of a tick after which commands between ticks begin to move."""
        self._kept = None
        return Step(self.hold(dt_s), 1.0, None)

    def follow_chunk(
        self, chunk: Chunk, now_ns: int, dt_s: float, is_exact: bool = False
    ) -> tuple[Step, Chunk]:
        """The next command along a chunk, and the chunk as it is followed, later by what it fell behind the clock.

        is_exact: through its actions, whatever `path_tolerance_m` is.
        """
        self._stop_left = self._kept = None
        due = chunk.progress(now_ns)
        begin = due - 1.0  # of a new chunk: from its first action on
        if self._last is not None and self._last[0].is_same(chunk):
            begin = min(self._last[1], due)
        chunk = self.near(chunk, begin, is_exact)
        path = ChunkPath(chunk, begin, due, self._limiter.position, self._limiter.limits)
        step = self.follow(path, dt_s)
        behind = (1.0 - step.share) * (path._due - path._begin)
        if behind:
            chunk = chunk.behind(behind)
        self._last = (chunk, chunk.progress(now_ns))
        return step, chunk

    def follow_curve(
        self, curve: Interpolator, chunk: Chunk | None, now_ns: int, dt_s: float
    ) -> tuple[Step, Chunk | None]:
        """The next command along the curve between two ticks, and the chunk, later by what that fell behind."""
        self._stop_left = self._kept = None
        step = self._track(curve, now_ns, dt_s)
        ticks = curve.follow(step.share, now_ns)
        return step, chunk.behind(ticks) if chunk and ticks else chunk

    def _track(self, curve: Interpolator, now_ns: int, dt_s: float) -> Step:
        limiter, path = self._limiter, curve.path(now_ns)
        if limiter.limits.acceleration_m_s2 == math.inf or self._gate.slowing == "axes":
            return self.follow(path, dt_s)
        if not dt_s > 0.0:
            return Step(np.array(limiter.position), 0.0, Verdict.LIMITED_SPEED)
        self._ramped_s += dt_s
        top = limiter.limits.speed_m_s * self._ramp()
        too_fast = math.dist(path(1.0), limiter.position) > top * dt_s
        tracked = self._tracker.follow(curve, now_ns, dt_s, top)
        limit = Verdict.LIMITED_SPEED if too_fast else Verdict.LIMITED_ACCELERATION
        return Step(np.array(limiter.position), tracked.share, None if tracked.is_exact else limit)

    def follow(self, path: Path | ChunkPath, dt_s: float) -> Step:
        """The next command along a path, all of which is due after `dt_s`."""
        limiter, limits = self._limiter, self._limiter.limits
        self._ramped_s += dt_s
        cap = top = limits.speed_m_s * self._ramp()
        due = path(1.0)
        if limits.acceleration_m_s2 < math.inf and isinstance(path, ChunkPath):
            # By so much the speed still rises until the acceleration is zero.
            rises_m_s = max(0.0, -self._braking_m_s2()) ** 2 / (2.0 * limits.jerk_m_s3)
            cap = min(cap, max(path.speed_ahead_m_s(limits, self._period_s) - rises_m_s, 0.0))
        if self._gate.slowing == "axes":
            return self._clipped(due, dt_s, cap)
        if limiter.allows(due, dt_s, cap):
            limiter.move(due, dt_s)
            return Step(np.array(due), 1.0, None)
        too_fast = math.dist(due, limiter.position) > top * dt_s
        limit = Verdict.LIMITED_SPEED if too_fast else Verdict.LIMITED_ACCELERATION
        share = self._largest_share(path, due, dt_s, cap)
        if share is not None:
            limiter.move(path(share), dt_s)
        else:  # nothing on the path is allowed: leave it no further than necessary
            share = self._share_of(self._going_on_m(dt_s), path, due)
            limiter.go(path(share), dt_s, cap)
        return Step(np.array(limiter.position), share, limit)

    def hold(self, dt_s: float) -> Array:
        """The position of a command that stops: (3,)."""
        limiter = self._limiter
        if self._stop_left is None:
            self._stop_left = _ALONG * limiter.stop_periods
        self._stop_left -= 1.0
        if self._stop_left < 0.0 or not self._brake_along(dt_s):
            self._last = None
            limiter.brake(dt_s)
        self._ramped_s = self._gate.ramp_s * min(1.0, limiter.speed_m_s / limiter.limits.speed_m_s)
        return np.array(limiter.position)

    def _brake_along(self, dt_s: float) -> bool:
        """Slow down along the chunk that was in use; False where that cannot be."""
        limiter = self._limiter
        if self._last is None or not limiter.is_moving or not dt_s > 0.0:
            return False
        chunk, begin = self._last
        path = ChunkPath(chunk, begin, begin + dt_s / (chunk.dt_ns / 1e9), limiter.position, limiter.limits)
        due = path(1.0)
        for way_m in self._braking_ways_m(dt_s):
            share = self._share_of(way_m, path, due)
            if limiter.allows(path(share), dt_s):
                limiter.move(path(share), dt_s)
                self._last = (chunk, begin + share * dt_s / (chunk.dt_ns / 1e9))
                return True
        return False

    def keep_grip(self, last: float | None, dt_s: float) -> float | None:
        """The gripper command that repeats the last one, within limits that may have been tightened."""
        return None if last is None else self.grip(last, last, dt_s)[0]

    def grip(self, last: float | None, wanted: float, dt_s: float) -> tuple[float, bool]:
        """The gripper command on the way to `wanted`, and whether a limit bit. last: the one before it, if any."""
        gate, wanted = self._gate, min(max(wanted, -1.0), 1.0)
        command = min(max(wanted, gate.gripper_low), gate.gripper_high)
        if gate.max_gripper_rate_per_s and last is not None:
            most = gate.max_gripper_rate_per_s * dt_s
            command = min(max(command, last - most), last + most)
            command = min(max(command, gate.gripper_low), gate.gripper_high)  # the range comes first
        return command, command != wanted

    def _ramp(self, more_s: float = 0.0) -> float:
        return min(1.0, (self._ramped_s + more_s) / self._gate.ramp_s) if self._gate.ramp_s else 1.0

    def _clipped(self, due: Point, dt_s: float, top_m_s: float) -> Step:
        """The step to `due`, clipped along each axis, then shortened: it leaves the path."""
        limiter, most = self._limiter, max(top_m_s * dt_s, 0.0)
        way = [min(max(q - p, -most), most) for p, q in zip(limiter.position, due, strict=True)]
        shrink = min(1.0, most / max(math.hypot(*way), 1e-300))
        wanted = point([p + shrink * w for p, w in zip(limiter.position, way, strict=True)])
        got = limiter.go(due if math.dist(limiter.position, due) <= most else wanted, dt_s)
        limit = None
        if got != due:
            limit = Verdict.LIMITED_SPEED if got == wanted else Verdict.LIMITED_ACCELERATION
        return Step(np.array(got), 1.0, limit)

    def _going_on_m(self, dt_s: float) -> float:
        """The way of a command that keeps the acceleration."""
        limiter = self._limiter
        v = [v + a * dt_s for v, a in zip(limiter.velocity, limiter.acceleration, strict=True)]
        return math.hypot(*v) * dt_s

    def _share_of(self, way_m: float, path: Path | ChunkPath, due: Point) -> float:
        """Share of the path at that length of it. A curve between ticks is so short that it counts as a line."""
        if isinstance(path, ChunkPath):
            return path.share_at(way_m)
        whole_m = math.dist(due, self._limiter.position)
        return min(1.0, way_m / whole_m) if whole_m > 0.0 else 1.0

    def _is_straight(self, path: Path | ChunkPath, share: float, due: Point) -> bool:
        """Whether the way to `due` is a line, on which a share of the way is that share of its length."""
        return math.dist(path(share), between(self._limiter.position, due, share)) <= 1e-12

    def _largest_share(self, path: Path | ChunkPath, due: Point, dt_s: float, cap_m_s: float) -> float | None:
        """The largest allowed share of the path, to rounding; None where none is."""
        limiter = self._limiter
        bisections = _BISECTIONS
        if limiter.limits.acceleration_m_s2 == math.inf:
            share = self._share_of(cap_m_s * dt_s, path, due)
            if limiter.allows(path(share), dt_s, cap_m_s) and self._is_straight(path, share, due):
                return share
        else:
            bisections = _COARSE_BISECTIONS
        ways_m = [self._going_on_m(dt_s), limiter.speed_m_s * dt_s, *self._braking_ways_m(dt_s), 0.0]
        capped = self._share_of(cap_m_s * dt_s, path, due) * (1.0 - 1e-12)
        shares = sorted({capped, *(self._share_of(way_m, path, due) for way_m in ways_m)})
        allowed = [share for share in shares if limiter.allows(path(share), dt_s)]
        if not allowed:
            return None
        if allowed[0] > capped:  # it cannot be that slow yet
            return allowed[0]
        low = max(share for share in allowed if share <= capped)
        high = min(low + self._share_of(limiter.reach_m(dt_s), path, due), capped)
        for _ in range(bisections):
            if high - low <= 1e-12:
                break
            middle = 0.5 * (low + high)
            if limiter.allows(path(middle), dt_s):
                low = middle
            else:
                high = middle
        return low

    def _braking_m_s2(self) -> float:
        """Deceleration along the direction of motion [m/s^2]."""
        limiter, speed = self._limiter, self._limiter.speed_m_s
        along = sum(a * v for a, v in zip(limiter.acceleration, limiter.velocity, strict=True))
        return -along / speed if speed else 0.0

    def _braking_ways_m(self, dt_s: float) -> list[float]:
        """Ways of commands that slow down, from as hard as the limits allow to soft; empty where any change is allowed.

        On a curve the direction needs a part of the acceleration, so the hardest may not be allowed.
        """
        limiter, speed = self._limiter, self._limiter.speed_m_s
        most, jerk = limiter.limits.acceleration_m_s2, limiter.limits.jerk_m_s3
        if most == math.inf or not speed:
            return []
        now = self._braking_m_s2()
        hard = min(most, now + jerk * dt_s, math.sqrt(2.0 * jerk * speed))
        soft = min(max(0.02 * most, now - jerk * dt_s), hard)
        return [max(0.0, speed - (hard + part * (soft - hard)) * dt_s) * dt_s for part in _SOFTER]
