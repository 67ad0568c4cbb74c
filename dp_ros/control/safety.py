"""Safety gate: limits that every command passes before it is published. Comparisons are written so that NaN fails."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import POSITION, gripper_of, join
from dp_ros.poses import angle_rad, is_unit
from dp_ros.schema import CommandLimits, as_vector

Array = NDArray[np.float64]

NEAR_AGAIN = 0.8  # share of a limit below which what was beyond it counts as back: no flapping


class Verdict(StrEnum):
    """Result of the gate for one command; published with it. The order is that of the codes in saved traces."""

    PASS = "pass"
    LIMITED_WORKSPACE = "limited_workspace"  # moved to the nearest point of the box
    LIMITED_SPEED = "limited_speed"  # slowed to the highest allowed speed
    HOLD_STALE = "hold_stale"  # the observation is missing, too old, or from the future
    HOLD_NO_PLAN = "hold_no_plan"  # no action is planned for now
    HOLD_NOT_FINITE = "hold_not_finite"  # a number or quaternion of the plan or the last command is invalid
    HOLD_TURNED = (
        "hold_turned"  # the tool is measured too far from the commanded orientation: nothing is commanded
    )
    LIMITED_ACCELERATION = "limited_acceleration"  # slowed by the limits of acceleration or jerk
    LIMITED_GRIPPER = "limited_gripper"  # the gripper command is outside its range, or too fast
    HOLD_WALL = "hold_wall"  # the plan leads out of the workspace for too long
    HOLD_SKEWED = "hold_skewed"  # a picture and the pose of the newest frame are too far apart in time
    HOLD_OLD_PLAN = "hold_old_plan"  # the chunk was planned from a frame that is too old
    HOLD_FAR = "hold_far"  # the arm is not where it was told to be: the command goes back, or there is none
    HOLD_FROZEN = "hold_frozen"  # a camera or the pose does not change while the command moves
    HOLD_STOPPED = "hold_stopped"  # emergency stop, until the next activation
    HOLD_OTHER_COMMANDER = "hold_other_commander"  # another node may command the arm: nothing is commanded
    HOLD_RECOVERING = "hold_recovering"  # the cause of a hold is gone, but not for long enough
    HOLD_OOD = "hold_ood"  # the pictures are unlike those of the training (out of distribution)

    @property
    def holds(self) -> bool:
        return self.value.startswith("hold")

    @property
    def is_break(self) -> bool:
        """Whether the chunk in use is given up; after other holds it goes on where the arm left it."""
        return self in (
            Verdict.HOLD_STALE,
            Verdict.HOLD_TURNED,
            Verdict.HOLD_FAR,
            Verdict.HOLD_STOPPED,
            Verdict.HOLD_OTHER_COMMANDER,
        )


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
    """Checks of one command alone. The limiter compares it with the commands before."""

    def __init__(self, config: CommandLimits) -> None:
        self.config = config
        self._low, self._high = as_vector(config.workspace_low_m), as_vector(config.workspace_high_m)

    def may_begin(self, position_m: Array) -> bool:
        """Whether an episode may begin with the arm measured here: at most `max_outside_m` outside the box.

        The first command repeats that position. An arm further outside must be driven in by hand. Such a measurement
        may also be in other units or in another frame, and must not become a command.
        """
        outside_m = math.dist(position_m, self.inside(position_m))  # numbers of any size, without overflow
        return outside_m <= self.config.max_outside_m * (1.0 + 1e-9)

    def inside(self, position_m: Array) -> Array:
        """The nearest point of the workspace."""
        return np.asarray(np.clip(position_m, self._low, self._high))

    def is_inside(self, position_m: Array) -> bool:
        return bool(np.array_equal(position_m, self.inside(position_m)))

    def limited(self, wanted_m: Array, is_gripped: bool, is_beside: bool = False) -> Verdict:
        """The verdict on a move that only the box, the gripper's limits and `path_tolerance_m` may have changed."""
        if not self.is_inside(wanted_m):
            return Verdict.LIMITED_WORKSPACE
        if is_beside:
            return Verdict.LIMITED_ACCELERATION
        return Verdict.LIMITED_GRIPPER if is_gripped else Verdict.PASS

    def is_turned(self, orientation: Array, measured_orientation: Array, was_turned: bool = False) -> bool:
        """Whether the tool is further than `max_turn_rad` from `orientation`, or than 80 % of that if it `was_turned`.

        Where a quaternion is invalid: `was_turned`.
        """
        if not (is_unit(orientation) and is_unit(measured_orientation)):
            return was_turned
        most_rad = self.config.max_turn_rad * (NEAR_AGAIN if was_turned else 1.0)
        return not angle_rad(orientation, measured_orientation) <= most_rad

    def why_hold(
        self,
        action: Array | None,
        orientation: Array,
        last_m: Array,
        measured_orientation: Array,
        obs_age_s: float,
        was_turned: bool = False,
    ) -> Verdict | None:
        """The hold that these inputs demand; None where the arm may move. For the arguments see `check`."""
        if not 0.0 <= obs_age_s <= self.config.max_obs_age_s:  # also catches NaN
            return Verdict.HOLD_STALE
        if self.is_turned(orientation, measured_orientation, was_turned):
            return Verdict.HOLD_TURNED
        if action is None:
            return Verdict.HOLD_NO_PLAN
        is_finite = np.isfinite(action).all() and np.isfinite(last_m).all()
        is_valid = is_finite and is_unit(orientation) and is_unit(measured_orientation)
        return None if is_valid else Verdict.HOLD_NOT_FINITE

    def check(
        self,
        action: Array | None,
        orientation: Array,
        last: Command,
        measured_orientation: Array,
        obs_age_s: float,
        now_ns: int,
        dt_s: float,
    ) -> tuple[Command, Verdict]:
        """The command for now and the verdict on it, where only the speed is limited.

        action (4,): absolute, or None where nothing is planned. orientation (4,): the tool's, of a move and of a hold.
        last: the command before it, or the measured position. measured_orientation (4,): of the newest observation.
        dt_s: time since `last`, in which the arm may move by `max_speed_m_s` times that.

        A hold repeats the last position and gripper. A limited command is the nearest allowed one: first inside the
        box, then at most that far from `last`. The box never moves the last position, so that an arm which starts
        outside comes in at the speed limit. No command may be published where `is_turned`: neither orientation is
        surely the right one.
        """
        hold = Command(now_ns, last.position_m, last.gripper, orientation)
        why = self.why_hold(action, orientation, last.position_m, measured_orientation, obs_age_s)
        if why is not None or action is None:
            return hold, why or Verdict.HOLD_NO_PLAN
        verdict = Verdict.PASS
        wanted_m = POSITION.of(action)
        position = self.inside(wanted_m)
        if not np.array_equal(position, wanted_m):
            verdict = Verdict.LIMITED_WORKSPACE
        step = position - last.position_m
        length = float(np.linalg.norm(step))
        longest = self.config.max_speed_m_s * dt_s
        if not length <= longest * (1.0 + 1e-9):
            position = last.position_m + step * (longest / length)
            verdict = Verdict.LIMITED_SPEED
        gripper = float(np.clip(gripper_of(action), -1.0, 1.0))
        return Command(now_ns, position, gripper, orientation), verdict
