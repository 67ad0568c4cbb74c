"""Commands between the ticks of a policy, at the robot's own rate: a velocity-continuous curve through its actions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dp_ros.actions import POSITION, join
from dp_ros.control.chunk import Chunk
from dp_ros.control.safety import Array, Command, Gate
from dp_ros.schema import ConfigError, PolicyConfig, RuntimeConfig


def commands_per_tick(policy: PolicyConfig, runtime: RuntimeConfig) -> int:
    """Number of commands in one tick of the policy; 1: none in between. ConfigError where the rate is below its own.

    `command_rate_hz` is rounded to a multiple of the policy's rate, so that commands are evenly spaced.
    """
    rate_hz = runtime.command_rate_hz
    if not rate_hz or runtime.mode == "lockstep":
        return 1
    if not rate_hz >= policy.rate_hz:
        raise ConfigError(
            f"command_rate_hz {rate_hz:g} is below the policy's rate {policy.rate_hz:g}: give at least that, or 0"
        )
    return round(rate_hz / policy.rate_hz)


@dataclass(frozen=True)
class Segment:
    """Cubic Hermite curve over one tick. Slopes are in metres a tick."""

    begin_ns: int
    dt_ns: int
    start_m: Array  # (3,)
    start_slope_m: Array
    end_m: Array
    end_slope_m: Array

    def at(self, now_ns: int) -> tuple[Array, Array]:
        """Position and slope; after the end those of the end."""
        u = min(max((now_ns - self.begin_ns) / self.dt_ns, 0.0), 1.0)
        way_m = self.end_m - self.start_m
        a = self.start_slope_m - way_m
        b = way_m - self.end_slope_m
        position = self.start_m + u * way_m + u * (1 - u) * ((1 - u) * a + u * b)
        slope = way_m + (1 - u) * (1 - 3 * u) * a + u * (2 - 3 * u) * b
        return position, slope


def pchip_slope(before: Array, after: Array) -> Array:
    """Slope at a knot between two steps: their harmonic mean, 0 where they differ in sign (Fritsch & Butland 1984).

    With it, a curve is monotone between its knots: it never leaves the box that they span.
    """
    product = before * after
    same = product > 0
    total = np.where(same, before + after, 1.0)
    return np.where(same, 2.0 * product / total, 0.0)


class Interpolator:
    """The curve of one episode, and its commands: each passes the gate with its part of `max_step_m`, by its time.

    From tick to tick the curve goes from where it is, with its velocity, to the next action of the chunk in use; so it
    passes through each action at its time. A new chunk changes only the end of the next piece, so neither position nor
    velocity jumps. It begins at rest. Where no action follows, it ends at rest.
    """

    def __init__(self, gate: Gate, dt_ns: int) -> None:
        self._gate, self._dt_ns, self._max_step_m = gate, dt_ns, gate.config.max_step_m
        self._low_m = np.array(gate.config.workspace_low_m)
        self._high_m = np.array(gate.config.workspace_high_m)
        self.clear()

    def clear(self) -> None:
        """Stop: the next curve begins at rest."""
        self._segment: Segment | None = None
        self._gripper: float | None = None

    def tick(
        self, command: Command, chunk: Chunk | None, last: Command, measured_orientation: Array
    ) -> Command:
        """The command of a tick, on the curve.

        command: the chunk's action for now as the gate passed it, or a hold, with `chunk` None. last: the command
        before it, of any rate.
        """
        if chunk is None:
            self.clear()
            return command
        now_ns = command.stamp_ns
        start_m, slope_m = last.position_m, np.zeros(POSITION.size)
        if self._segment is not None:
            start_m, slope_m = self._segment.at(now_ns)
        self._gripper = command.gripper
        sent = self._limited(start_m, command.orientation, last, measured_orientation, 0.0, now_ns)
        start_m = sent.position_m
        end_m = self._reached(start_m, chunk.at(now_ns + self._dt_ns), command.position_m)
        after_m = self._reached(end_m, chunk.at(now_ns + 2 * self._dt_ns), end_m)
        end_slope_m = pchip_slope(end_m - start_m, after_m - end_m)
        self._segment = Segment(now_ns, self._dt_ns, start_m, slope_m, end_m, end_slope_m)
        return sent

    def between(
        self, orientation: Array, last: Command, measured_orientation: Array, obs_age_s: float, now_ns: int
    ) -> Command:
        """The command for a time between two ticks. Where the arm holds, it repeats `last`."""
        position_m = None if self._segment is None else self._segment.at(now_ns)[0]
        return self._limited(position_m, orientation, last, measured_orientation, obs_age_s, now_ns)

    def _limited(
        self,
        position_m: Array | None,
        orientation: Array,
        last: Command,
        measured_orientation: Array,
        obs_age_s: float,
        now_ns: int,
    ) -> Command:
        """The nearest command that the gate allows so long after `last`; a hold ends the curve."""
        action = None
        if position_m is not None and self._gripper is not None:
            action = join(position_m, self._gripper)
        share = min(max((now_ns - last.stamp_ns) / self._dt_ns, 0.0), 1.0)
        command, verdict = self._gate.check(
            action, orientation, last, measured_orientation, obs_age_s, now_ns, share
        )
        if verdict.holds:
            self.clear()
        return command

    def _reached(self, from_m: Array, action: Array | None, otherwise_m: Array) -> Array:
        """Position that an action reaches in one tick within the limits; `otherwise_m` where there is none."""
        if action is None or not np.isfinite(action).all():
            return otherwise_m
        way_m = np.clip(POSITION.of(action), self._low_m, self._high_m) - from_m
        length_m = float(np.linalg.norm(way_m))
        return np.asarray(from_m + way_m * min(1.0, self._max_step_m / max(length_m, 1e-12)))
