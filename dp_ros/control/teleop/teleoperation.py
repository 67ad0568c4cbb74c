"""Teleoperation of the arm: joystick and measured pose in, command and verdict out, through the policy's gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import POSITION, join, opening_to_command
from dp_ros.control.followed import Followed
from dp_ros.control.safety import Command, Gate, Verdict
from dp_ros.control.teleop.joystick import EpisodeEvent, Joystick, TeleopCommand, TeleopHold
from dp_ros.poses import angle_rad, is_unit, orientation_of, position_of
from dp_ros.schema import TeleopConfig, as_vector
from dp_ros.streams import Sample, Stream

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TeleopDecision:
    """Result of one tick."""

    command: Command | None  # None before a press
    verdict: Verdict | TeleopHold
    detail: str  # the reason, for people; empty when all is well; constant while the cause is

    @property
    def moves(self) -> bool:
        return isinstance(self.verdict, Verdict) and not self.verdict.holds

    @property
    def is_trouble(self) -> bool:
        """Whether the arm does not do what the person asks for."""
        return self.verdict.is_trouble if isinstance(self.verdict, TeleopHold) else self.verdict.holds


class Teleoperation:
    """Input of a person and of the robot by `joy`, `observe`, ...; a command by `tick(now)` every 1 / rate_hz.

    While the deadman button is held, the command moves from the last command (at the first press: from the measured
    position) within the limits of speed and acceleration. In the tick after the button is released, or after Joy or
    the pose became too old, the command stands still; so it does while `stopped` says why. A late tick is not made up
    for. These forget the last command, so that there is none until the next press: a gap between poses, no pose for
    `max_pose_age_s`, time that goes back, an arm measured further than `max_distance_m` from the commands of the last
    0.25 s, and a tool further than `max_turn_rad` from the commanded orientation.

    The tool keeps the orientation measured at that press. The first gripper command repeats the last one on
    `command/gripper`, else the measured opening. Where neither is known, the gripper is not commanded until the person
    moves it.
    """

    def __init__(self, config: TeleopConfig) -> None:
        self.config = config
        self._joystick = Joystick(config)
        self._gate = Gate(config.gate.model_copy(update={"max_speed_m_s": config.max_speed_m_s}))
        self._may_begin = self._gate.may_begin
        self._axis_speed_m_s = as_vector(config.axis_speed_m_s)
        self._gripper: float | None = None  # the last gripper command, of any publisher
        self._opening: float | None = None
        self.stopped = ""  # why the arm is stopped; empty while it is not
        self.reset()

    def reset(self) -> None:
        """Forget everything but the gripper: its last command is still in force."""
        self._joystick.clear()
        self._poses: Stream[Array] = Stream()
        self._observed_ns: int | None = None
        self._ticked_ns: int | None = None
        self._problem = ""  # why the last command was forgotten, until the next press
        self.forget()

    def forget(self) -> None:
        """Forget the last command. There are no commands until a press, which starts from the measured pose."""
        self._last: Command | None = None
        self._followed = Followed()
        self._velocity_m_s: Array = np.zeros(3)
        self._joystick.disarm()

    def joy(
        self, stamp_ns: int, axes: Sequence[float], buttons: Sequence[int], now_ns: int
    ) -> list[EpisodeEvent]:
        """Take a Joy message that arrives `now_ns`; its events of the episode."""
        return self._joystick.read(stamp_ns, axes, buttons, now_ns)

    def observe(self, stamp_ns: int, pose: Array, now_ns: int) -> None:
        """Take a pose (7,) that arrives `now_ns`. Invalid ones, and those of a clock far ahead, are ignored."""
        is_valid = np.isfinite(position_of(pose)).all() and is_unit(orientation_of(pose))
        if is_valid and stamp_ns - now_ns <= self.config.gate.max_obs_age_s * 1e9:
            self._poses.put(stamp_ns, pose)

    def observe_opening(self, opening: float) -> None:
        """Take the measured opening of the gripper, 0 closed to 1 open."""
        if np.isfinite(opening):
            self._opening = opening

    def hear_gripper(self, command: float) -> None:
        """Take a gripper command of any publisher, [-1, 1]: it is in force until the next one."""
        if -1.0 <= command <= 1.0:
            self._gripper = command

    def tick(self, now_ns: int) -> TeleopDecision:
        """The command for now."""
        if self._ticked_ns is not None and now_ns < self._ticked_ns:
            back_s = (self._ticked_ns - now_ns) / 1e9
            self.reset()  # old messages must not count as new
            self._problem = f"time went back by {back_s:.3g} s: release the deadman button and press it again"
        # A tick after a gap must not be a leap.
        dt_s = 0.0 if self._ticked_ns is None else min((now_ns - self._ticked_ns) / 1e9, self.config.dt_s)
        self._ticked_ns = now_ns
        pose = self._poses.at(now_ns)
        if pose is not None:
            self._check_gap(pose.stamp_ns)
        if lost := self._why_lost(now_ns):
            self._problem = lost[1]
            self.forget()
            return TeleopDecision(None, *lost)
        if self.stopped:
            self._joystick.disarm()
            return self._hold(Verdict.HOLD_STOPPED, self.stopped, now_ns)
        asked = self._joystick.command(now_ns)
        if isinstance(asked, TeleopHold):
            return self._hold(asked, self._joystick.why(asked), now_ns)
        obs_age_s = np.inf if pose is None else (now_ns - pose.stamp_ns) / 1e9
        if self._last is None:
            if pose is None or not obs_age_s <= self.config.gate.max_obs_age_s:
                return self._hold(Verdict.HOLD_STALE, self._no_pose(), now_ns)
            if not self._may_begin(position_of(pose.value)):
                return self._hold(TeleopHold.OUTSIDE, self._outside(position_of(pose.value)), now_ns)
            self._begin(pose, now_ns)
        return self._move(asked, dt_s, obs_age_s, now_ns)

    def hold(self, now_ns: int) -> Command | None:
        """The command that stops the arm at its last command; None before a press, and where it might be a leap."""
        if self._last is None or self._why_lost(now_ns) is not None:
            return None
        return replace(self._last, stamp_ns=now_ns)

    def _begin(self, pose: Sample[Array], now_ns: int) -> None:
        """Start from the measured pose."""
        self._problem = ""
        gripper = self._gripper
        if gripper is None and self._opening is not None:
            gripper = opening_to_command(self._opening)
        self._orientation = np.array(orientation_of(pose.value))
        self._last = Command(now_ns, np.array(position_of(pose.value)), gripper, self._orientation)

    def _measured(self) -> Array:
        """(4,): the newest measured orientation."""
        newest_ns = self._poses.newest_ns
        newest = None if newest_ns is None else self._poses.at(newest_ns)
        return self._orientation if newest is None else orientation_of(newest.value)

    def _check_gap(self, observed_ns: int) -> None:
        """Forget the last command after a gap between two poses: the arm may be elsewhere by now."""
        before_ns, self._observed_ns = self._observed_ns, observed_ns
        if before_ns is None or abs(observed_ns - before_ns) > self.config.episode_gap_s * 1e9:
            self.forget()

    def _hold(self, verdict: Verdict | TeleopHold, detail: str, now_ns: int) -> TeleopDecision:
        self._velocity_m_s = np.zeros(3)
        if self._last is not None:
            self._last = replace(self._last, stamp_ns=now_ns)
            self._followed.add(self._last)
        return TeleopDecision(self._last, verdict, "; ".join(filter(None, (self._problem, detail))))

    def _move(self, asked: TeleopCommand, dt_s: float, obs_age_s: float, now_ns: int) -> TeleopDecision:
        last = self._last
        assert last is not None
        velocity = self._accelerate(asked.direction * self._axis_speed_m_s, dt_s)
        gripper = last.gripper
        if asked.gripper != 0.0:
            change = asked.gripper * self.config.gripper_speed_per_s * dt_s
            gripper = float(np.clip((gripper or 0.0) + change, -1.0, 1.0))
        action = join(last.position_m + velocity * dt_s, gripper or 0.0)
        command, verdict = self._gate.check(
            action, self._orientation, last, self._measured(), obs_age_s, now_ns, dt_s
        )
        if verdict.holds:
            return self._hold(verdict, self._no_pose(), now_ns)
        if gripper is None:
            command = Command(now_ns, command.position_m, None, command.orientation)
        # Motion into the wall of the workspace leaves no speed that the way back would have to brake.
        self._velocity_m_s = np.where(command.position_m == POSITION.of(action), velocity, 0.0)
        self._last, self._gripper = command, command.gripper
        self._followed.add(command)
        return TeleopDecision(command, verdict, "")

    def _accelerate(self, wanted_m_s: Array, dt_s: float) -> Array:
        """The velocity (3,) after `dt_s` on the way to `wanted_m_s`."""
        speed = float(np.linalg.norm(wanted_m_s))
        if speed > self.config.max_speed_m_s:
            wanted_m_s = wanted_m_s * (self.config.max_speed_m_s / speed)
        change = wanted_m_s - self._velocity_m_s
        size, allowed = float(np.linalg.norm(change)), self.config.max_acceleration_m_s2 * dt_s
        return wanted_m_s if size <= allowed else self._velocity_m_s + change * (allowed / size)

    def _why_lost(self, now_ns: int) -> tuple[Verdict, str] | None:
        """Why the last command, or its repetition, might be a leap; None where it is none."""
        newest_ns, gate = self._poses.newest_ns, self.config.gate
        pose = None if newest_ns is None else self._poses.at(newest_ns)
        if self._last is None or pose is None:
            return None
        if self._gate.is_turned(self._orientation, self._measured()):
            return Verdict.HOLD_TURNED, self._turned()
        again = "release the deadman button and press it again to begin where the arm is"
        age_s = (now_ns - pose.stamp_ns) / 1e9
        if gate.max_pose_age_s and age_s > gate.max_pose_age_s:
            return (
                Verdict.HOLD_STALE,
                f"ee_pose: nothing for gate.max_pose_age_s {gate.max_pose_age_s:g}: {again}",
            )
        far_m = self._followed.distance_m(self._last, position_of(pose.value))
        if age_s <= gate.max_obs_age_s and gate.max_distance_m and far_m > gate.max_distance_m:
            return Verdict.HOLD_FAR, (
                f"the arm is measured {far_m:.3f} m from the last commands, more than gate.max_distance_m "
                f"{gate.max_distance_m:g}: it is stuck, was moved, or does not obey: {again}"
            )
        return None

    def _turned(self) -> str:
        return (
            f"the tool is {angle_rad(self._orientation, self._measured()):.2f} rad from its orientation at the press, "
            f"more than gate.max_turn_rad {self.config.gate.max_turn_rad:g}: release the deadman button and press it "
            "again to begin with the tool as it is"
        )

    def _no_pose(self) -> str:
        return f"ee_pose: nothing valid within {self.config.gate.max_obs_age_s:g} s, by its stamp"

    def _outside(self, position_m: Array) -> str:
        gate = self.config.gate
        x, y, z = position_m
        return (
            f"the arm is measured at ({x:.3g}, {y:.3g}, {z:.3g}) m, outside the workspace {gate.workspace_low_m} to "
            f"{gate.workspace_high_m}: drive it inside by hand, or correct gate.workspace_low_m and _high_m"
        )
