"""The gate: no command leaves without passing it. Comparisons are written so that NaN fails them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from dp_ros.schema import GateConfig, as_vector

Array = NDArray[np.float64]


class Verdict(StrEnum):
    """What became of a command; published with it."""

    PASS = "pass"
    LIMITED_WORKSPACE = "limited_workspace"  # moved to the nearest point of the box
    LIMITED_STEP = "limited_step"  # shortened to the longest allowed step
    HOLD_STALE = "hold_stale"  # the observation is missing, too old, or from the future
    HOLD_NO_PLAN = "hold_no_plan"  # no action is planned for now
    HOLD_NOT_FINITE = "hold_not_finite"  # NaN or infinity, of the policy or in the last command

    @property
    def holds(self) -> bool:
        return self.value.startswith("hold")


@dataclass(frozen=True)
class Command:
    """What the robot is told: absolute, in the base frame. `stamp_ns` is the time it is for."""

    stamp_ns: int
    position_m: Array  # (3,)
    gripper: float  # [-1, 1]

    def as_array(self) -> Array:
        """(4,): x, y, z [m], gripper."""
        return np.append(self.position_m, self.gripper)


class Gate:
    """Checks one command after another against the limits; knows only the limits."""

    def __init__(self, config: GateConfig) -> None:
        self.config = config
        self._low, self._high = as_vector(config.workspace_low_m), as_vector(config.workspace_high_m)

    def may_begin(self, position_m: Array) -> bool:
        """Whether an episode may begin with the arm measured here: at most one step outside the box.

        The first command repeats that position. Further out is an arm to be driven in by hand, or a
        measurement in other units or another frame, which must not become a command.
        """
        outside_m = position_m - np.clip(position_m, self._low, self._high)
        return bool(np.linalg.norm(outside_m) <= self.config.max_step_m)

    def check(
        self, action: Array | None, last: Command, obs_age_s: float, now_ns: int
    ) -> tuple[Command, Verdict]:
        """`action` (4,) absolute or None; `last` the command before it (or where the arm was measured).

        A hold repeats the last position and gripper. A limited command is the nearest allowed one: first
        inside the box, then no further from `last` than one step. The last position is never moved by the
        box, so an arm that starts outside it is not dragged in faster than the step limit allows.
        """
        hold = Command(now_ns, last.position_m, last.gripper)
        if not 0.0 <= obs_age_s <= self.config.max_obs_age_s:  # also catches NaN
            return hold, Verdict.HOLD_STALE
        if action is None:
            return hold, Verdict.HOLD_NO_PLAN
        if not (np.isfinite(action).all() and np.isfinite(last.position_m).all()):
            return hold, Verdict.HOLD_NOT_FINITE
        verdict = Verdict.PASS
        position = np.clip(action[:3], self._low, self._high)
        if not np.array_equal(position, action[:3]):
            verdict = Verdict.LIMITED_WORKSPACE
        step = position - last.position_m
        length = float(np.linalg.norm(step))
        if not length <= self.config.max_step_m:
            position = last.position_m + step * (self.config.max_step_m / length)
            verdict = Verdict.LIMITED_STEP
        return Command(now_ns, position, float(np.clip(action[3], -1.0, 1.0))), verdict
