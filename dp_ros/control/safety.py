"""Safety gate: limits that every command passes before it is published. Comparisons are written so that NaN fails."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import POSITION, gripper_of, join
from dp_ros.poses import angle_rad, is_unit
from dp_ros.schema import GateConfig, as_vector

Array = NDArray[np.float64]


class Verdict(StrEnum):
    """Result of the gate for one command; published with it."""

    PASS = "pass"
    LIMITED_WORKSPACE = "limited_workspace"  # moved to the nearest point of the box
    LIMITED_STEP = "limited_step"  # shortened to the longest allowed step
    HOLD_STALE = "hold_stale"  # the observation is missing, too old, or from the future
    HOLD_NO_PLAN = "hold_no_plan"  # no action is planned for now
    HOLD_NOT_FINITE = "hold_not_finite"  # a number or quaternion of the plan or the last command is invalid
    HOLD_TURNED = "hold_turned"  # the commanded orientation is too far from the measured one

    @property
    def holds(self) -> bool:
        return self.value.startswith("hold")


@dataclass(frozen=True)
class Command:
    """Absolute command for the arm, in the base frame; `stamp_ns` is the time it is for."""

    stamp_ns: int
    position_m: Array  # (3,)
    gripper: float | None  # [-1 open, 1 closed]; None: not commanded, the gripper keeps what it does
    orientation: Array  # (4,) of the tool: unit quaternion x, y, z, w

    def as_array(self) -> Array:
        """Action vector (4,); its gripper is NaN where none is commanded."""
        return join(self.position_m, np.nan if self.gripper is None else self.gripper)


class Gate:
    """Check of one command after another against the limits. It keeps no state."""

    def __init__(self, config: GateConfig) -> None:
        self.config = config
        self._low, self._high = as_vector(config.workspace_low_m), as_vector(config.workspace_high_m)

    def may_begin(self, position_m: Array) -> bool:
        """Whether an episode may begin with the arm measured here: at most one step outside the box.

        The first command repeats that position. An arm further outside must be driven in by hand. Such a measurement
        may also be in other units or in another frame, and must not become a command.
        """
        outside_m = position_m - np.clip(position_m, self._low, self._high)
        return bool(np.linalg.norm(outside_m) <= self.config.max_step_m)

    def outside(self, position_m: Array) -> str:
        """Message about an arm that is measured where no episode may begin."""
        low_m, high_m = self.config.workspace_low_m, self.config.workspace_high_m
        x, y, z = position_m
        return (
            f"the arm is measured at ({x:g}, {y:g}, {z:g}) m, outside the workspace {low_m} to {high_m}: drive it "
            "inside, or correct gate.workspace_low_m and _high_m"
        )

    def check(
        self,
        action: Array | None,
        orientation: Array,
        last: Command,
        measured_orientation: Array,
        obs_age_s: float,
        now_ns: int,
        share: float = 1.0,
    ) -> tuple[Command, Verdict]:
        """The command for now and the verdict on it.

        action (4,): absolute, or None where nothing is planned. orientation (4,): the tool's, of a move and of a hold.
        last: the command before it, or the measured position. measured_orientation (4,): of the newest observation.
        share: part of a tick since `last`; the longest step is that part of `max_step_m`.

        A hold repeats the last position and gripper. A limited command is the nearest allowed one: first inside the
        box, then at most one step from `last`. The box never moves the last position, so that an arm which starts
        outside comes in at the step limit. Where `orientation` is further than `max_turn_rad` from the measured one,
        the arm holds, and the command repeats the measured orientation: no wrist is ever told to turn further.
        """
        is_valid = is_unit(orientation) and is_unit(measured_orientation)
        turned = is_valid and not angle_rad(orientation, measured_orientation) <= self.config.max_turn_rad
        hold = Command(now_ns, last.position_m, last.gripper, measured_orientation if turned else orientation)
        if not 0.0 <= obs_age_s <= self.config.max_obs_age_s:  # also catches NaN
            return hold, Verdict.HOLD_STALE
        if action is None:
            return hold, Verdict.HOLD_NO_PLAN
        if not (np.isfinite(action).all() and np.isfinite(last.position_m).all() and is_valid):
            return hold, Verdict.HOLD_NOT_FINITE
        if turned:
            return hold, Verdict.HOLD_TURNED
        verdict = Verdict.PASS
        wanted_m = POSITION.of(action)
        position = np.clip(wanted_m, self._low, self._high)
        if not np.array_equal(position, wanted_m):
            verdict = Verdict.LIMITED_WORKSPACE
        step = position - last.position_m
        length = float(np.linalg.norm(step))
        longest = self.config.max_step_m * share
        if not length <= longest:
            position = last.position_m + step * (longest / length)
            verdict = Verdict.LIMITED_STEP
        gripper = float(np.clip(gripper_of(action), -1.0, 1.0))
        return Command(now_ns, position, gripper, orientation), verdict
