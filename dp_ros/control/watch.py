"""Watchdogs of the arm and its sensors: distance from the command, frozen streams, skew, age of the plan, pictures
unlike those of the training, and walls."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp_ros.control.chunk import Chunk
from dp_ros.control.followed import LAG_S, Followed
from dp_ros.control.safety import NEAR_AGAIN, Array, Command, Verdict
from dp_ros.poses import POSE_DIM, orientation_of, position_of
from dp_ros.schema import GateConfig
from dp_ros.streams import Frame

_MOVES_M = 0.005  # way of the command after which a picture or a pose must have changed
_OUTAGE_S = 1.0  # an arm that did not lean for so long begins to lean again
_FASTEST_M_S, _NOISE_M = 1.0, 0.005  # of a measured arm; a pose that is further from the one before it leapt
_NOT_FAR = 1.5  # times `max_distance_m`: an arm further away did not just fail to follow
_AFTER = (
    Verdict.HOLD_STALE,
    Verdict.HOLD_TURNED,
    Verdict.HOLD_SKEWED,
    Verdict.HOLD_FAR,
    Verdict.HOLD_FROZEN,
    Verdict.HOLD_OOD,
)  # these recover slowly
Hold = tuple[Verdict, str]  # with the cause, in words


@dataclass
class _Seen:
    """The newest value of a stream that should change while the arm moves."""

    value: Any
    changed_ns: int  # stamp of its first message with this value
    way_m: float  # way of the commands until then
    stamp_ns: int


class Watch:
    """Causes to hold that single commands do not show. Times are stamps of the sensors or times of ticks."""

    def __init__(self, gate: GateConfig, cameras: tuple[str, ...], must_follow: bool) -> None:
        """must_follow: the arm should follow the commands. Else it is a simulated one that waits for each command, may
        be slower than a policy asks and stand still to the bit, or it gets no command in shadow mode. Neither its
        distance nor equal pictures and poses are faults then."""
        self.gate, self._cameras, self._must_follow = gate, cameras, must_follow
        self.clear()

    def clear(self) -> None:
        """Forget all: nothing was commanded, and nothing is to recover from."""
        self.held: tuple[Verdict, int] | None = None  # the last hold that recovers slowly, and when
        self.begin()

    def begin(self) -> None:
        """Forget the episode: commands, and what was seen while they were given. A recovery goes on: a robot that has
        just restarted may not hear the first commands, and would leap to a later one."""
        self._streams: dict[str, _Seen] = {}
        self._pose: Array = np.full(POSE_DIM, np.nan)
        self._pose_ns: int | None = None
        self._leapt_ns: int | None = None  # stamp of the last pose that does not continue those before it
        self._way_m = 0.0  # of the commands
        self._last_m: Array | None = None
        self._followed = Followed()
        self._skew_ns = 0
        self._is_far = False
        self.is_void = False  # whether the last command is void: then no distance of the arm from it counts
        self._leans_ns: int | None = None  # since when the plan leads out of the workspace
        self._leant_ns = 0  # the last time at which it did

    def measure(self, stamp_ns: int, pose: Array) -> None:
        """The newest measured pose (7,), also where no frame is complete."""
        if self._pose_ns is not None and stamp_ns <= self._pose_ns:
            return
        if self._pose_ns is None or not self._continues(pose, (stamp_ns - self._pose_ns) / 1e9):
            self._leapt_ns = stamp_ns
        self._pose, self._pose_ns = pose, stamp_ns
        self._see("ee_pose", stamp_ns, pose)

    def see(self, frame: Frame) -> None:
        self._skew_ns = frame.skew_ns
        for camera, picture in zip(self._cameras, frame.images, strict=True):
            self._see(f"camera {camera}", frame.stamp_ns, picture)
        self.measure(frame.stamp_ns, frame.ee_pose)

    def command(self, command: Command) -> None:
        """Note a command that was given."""
        if self._last_m is not None:
            self._way_m += float(np.linalg.norm(command.position_m - self._last_m))
        self._last_m = command.position_m
        self._followed.add(command)

    def drop_followed(self, now_ns: int) -> None:
        """Forget the commands that the arm has had the time to follow."""
        self._followed.drop(now_ns)

    def is_unknown(self, now_ns: int) -> bool:
        """Whether the pose is so old, or stamped in the future, that a command might be a leap."""
        most = self.gate.max_pose_age_s
        return bool(most) and self._pose_ns is not None and not 0 <= now_ns - self._pose_ns <= most * 1e9

    def is_far(self, last: Command, now_ns: int) -> bool:
        """Whether the arm is measured further than allowed from the last commands; it is near again a little later.

        A pose that is older than an observation may be changes nothing: the commands have gone on since.
        """
        is_fresh = self._pose_ns is not None and 0 <= now_ns - self._pose_ns <= self.gate.max_obs_age_s * 1e9
        if is_fresh and not self.is_void:
            self._is_far = self._must_follow and not self._is_near(last, position_of(self._pose))
        return self._is_far

    def trusts(self, now_ns: int) -> bool:
        """Whether the pose surely tells where an arm is that is far: it is fresh, changes, and did not leap there."""
        seen = self._streams.get("ee_pose")
        if seen is None or self._pose_ns is None or self._leapt_ns is None:
            return False
        is_fresh = 0 <= now_ns - self._pose_ns <= self.gate.max_obs_age_s * 1e9
        is_live = seen.stamp_ns - seen.changed_ns <= LAG_S * 1e9
        is_continuous = not 0 <= now_ns - self._leapt_ns <= LAG_S * 1e9
        return is_fresh and is_live and is_continuous

    def is_little_far(self, last: Command) -> bool:
        """Whether an arm that is far has just failed to follow."""
        return self._followed.distance_m(last, self.position_m) <= _NOT_FAR * self.gate.max_distance_m

    def forgive(self) -> None:
        """Count an arm that was too far as near: it was brought to where it should be."""
        self._is_far = False

    def stays_far(self, last: Command, measured_m: Array) -> bool:
        """Whether an arm that was too far from its commands is so where it is measured now, too."""
        self._is_far = self._is_far and not self._is_near(last, measured_m)
        return self._is_far

    def why_far(self, last: Command, now_ns: int) -> Hold | None:
        if not self.is_far(last, now_ns):
            return None
        far_m = self._followed.distance_m(last, self.position_m)
        return Verdict.HOLD_FAR, (
            f"the arm is measured {far_m:.3f} m from the last commands, more than gate.max_distance_m "
            f"{self.gate.max_distance_m:g}: it is stuck, was moved, or does not obey; "
            "deactivate and activate to begin where it is"
        )

    def why_hold(self, chunk: Chunk | None, now_ns: int) -> Hold | None:
        """The hold that the other watchdogs demand now."""
        if frozen := self._frozen():
            return Verdict.HOLD_FROZEN, frozen
        gate, skew_s = self.gate, self._skew_ns / 1e9
        if gate.max_skew_s and not skew_s <= gate.max_skew_s:
            return Verdict.HOLD_SKEWED, (
                f"a picture and the pose are {skew_s * 1e3:.0f} ms apart, more than gate.max_skew_s {gate.max_skew_s:g}"
            )
        if chunk is not None and chunk.frame_ns is not None and gate.max_chunk_age_s:
            age_s = (now_ns - chunk.frame_ns) / 1e9
            if not age_s <= gate.max_chunk_age_s:
                return Verdict.HOLD_OLD_PLAN, (
                    f"the plan is of a frame {age_s:.2f} s ago, more than gate.max_chunk_age_s {gate.max_chunk_age_s:g}"
                )
        return None

    def why_lean(self, is_outside: bool, now_ns: int) -> str:
        """Why the arm may not lean on the workspace's wall any longer. is_outside: the plan leads out of it."""
        if not is_outside:
            self._leans_ns = None
            return ""
        if self._leans_ns is None or not 0 <= now_ns - self._leant_ns <= _OUTAGE_S * 1e9:
            self._leans_ns = now_ns  # after an outage it begins to lean again
        self._leant_ns = now_ns
        most = self.gate.max_wall_s
        if not most or (now_ns - self._leans_ns) / 1e9 <= most:
            return ""
        return f"the plan leads out of the workspace for more than gate.max_wall_s {most:g}"

    def recovering(self, hold: Verdict | None, now_ns: int) -> str:
        """Why the arm must wait although no cause to hold is left; empty where it need not."""
        if hold in _AFTER:
            self.held = (hold, now_ns)
        if hold is not None or self.held is None:
            return ""
        before, since_ns = self.held
        if 0 <= (now_ns - since_ns) / 1e9 <= self.gate.recover_s and self.gate.recover_s:
            return f"after {before.value}, for gate.recover_s {self.gate.recover_s:g}"
        self.held = None
        return ""

    def _see(self, name: str, stamp_ns: int, value: Any) -> None:
        seen = self._streams.get(name)
        if seen is None or stamp_ns < seen.stamp_ns or not np.array_equal(value, seen.value):
            self._streams[name] = _Seen(value, stamp_ns, self._way_m, stamp_ns)
        else:
            seen.stamp_ns = stamp_ns

    def _frozen(self) -> str:
        most = self.gate.max_frozen_s if self._must_follow else 0.0
        for name, seen in self._streams.items() if most else ():
            same_s = (seen.stamp_ns - seen.changed_ns) / 1e9
            if same_s > most and self._way_m - seen.way_m > _MOVES_M:
                return (
                    f"{name}: the same for {same_s:.2f} s while the command moved {self._way_m - seen.way_m:.3f} m: "
                    "is it frozen, or does the arm not move?"
                )
        return ""

    def _continues(self, pose: Array, passed_s: float) -> bool:
        """Whether an arm may have moved from the last pose to this one in that time."""
        if not passed_s <= self.gate.max_obs_age_s:
            return False
        return math.dist(position_of(pose), position_of(self._pose)) <= _FASTEST_M_S * passed_s + _NOISE_M

    @property
    def position_m(self) -> Array:
        """The newest measured position (3,)."""
        return position_of(self._pose)

    @property
    def orientation(self) -> Array:
        """The newest measured orientation (4,)."""
        return np.array(orientation_of(self._pose))

    def _is_near(self, last: Command, measured_m: Array) -> bool:
        most = self.gate.max_distance_m
        near_m = most * (NEAR_AGAIN if self._is_far else 1.0)
        return not most or self._followed.distance_m(last, measured_m) <= near_m
