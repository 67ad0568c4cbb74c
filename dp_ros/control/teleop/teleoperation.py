"""A person drives the arm: joystick and measured pose in, command and verdict out, through the policy's gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp_ros.control.safety import Command, Gate, Verdict
from dp_ros.control.teleop.joystick import EpisodeEvent, Joystick, TeleopCommand, TeleopHold
from dp_ros.schema import TeleopConfig, as_vector
from dp_ros.streams import Stream

Array = NDArray[np.float64]
_LAST_BITS = 1.0 + 1e-9  # rounding must not make a step at full speed too long


@dataclass(frozen=True)
class TeleopDecision:
    """What one tick came to."""

    command: Command | None  # None before the first press: nobody has said where the arm should be
    verdict: Verdict | TeleopHold
    detail: str  # why, for people; empty when all is well; constant while the cause is

    @property
    def moves(self) -> bool:
        return isinstance(self.verdict, Verdict) and not self.verdict.holds

    @property
    def is_trouble(self) -> bool:
        """Whether the arm does not do what the person wants."""
        return self.verdict.is_trouble if isinstance(self.verdict, TeleopHold) else self.verdict.holds


class Teleoperation:
    """`joy` and `observe` whatever arrives, `tick(now)` every 1 / rate_hz.

    While the dead-man button is held the command moves from where it last was (at the first press: from where
    the arm is measured) by no more than speed and acceleration allow. In the tick after the button is let go, or
    after Joy or the pose have become too old, it stands still, at the last command. A tick that comes late is not
    made up for. Poses far apart, and time that goes back, begin everything anew.
    """

    def __init__(self, config: TeleopConfig) -> None:
        self.config = config
        self._joystick = Joystick(config)
        step_m = config.max_speed_m_s * config.dt_s * _LAST_BITS
        self._gate = Gate(config.gate.model_copy(update={"max_step_m": step_m}))
        self._may_begin = Gate(config.gate).may_begin
        self._axis_speed_m_s = as_vector(config.axis_speed_m_s)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._gripper = self.config.gripper_at_start
        self._clear()

    def forget(self) -> None:
        """Forget the last command: no more commands until a press, which starts from where the arm then is."""
        self._last: Command | None = None
        self._velocity_m_s: Array = np.zeros(3)
        self._joystick.disarm()

    def _clear(self) -> None:
        self._joystick.clear()
        self._poses: Stream[Array] = Stream()
        self._observed_ns: int | None = None
        self._ticked_ns: int | None = None
        self.forget()

    def joy(
        self, stamp_ns: int, axes: Sequence[float], buttons: Sequence[int], now_ns: int
    ) -> list[EpisodeEvent]:
        """Take a Joy message that arrives `now_ns`; what it says of the episode."""
        return self._joystick.read(stamp_ns, axes, buttons, now_ns)

    def observe(self, stamp_ns: int, position_m: Array, now_ns: int) -> None:
        """Take a pose (3,) that arrives `now_ns`; one that is not finite, or of a clock far ahead, is no pose."""
        if np.isfinite(position_m).all() and stamp_ns - now_ns <= self.config.gate.max_obs_age_s * 1e9:
            self._poses.put(stamp_ns, position_m)

    def tick(self, now_ns: int) -> TeleopDecision:
        """The command for now."""
        if self._ticked_ns is not None and now_ns < self._ticked_ns:
            self._clear()  # time went back: what was seen before must not be taken for new
        # A tick after a gap must not be a leap.
        dt_s = 0.0 if self._ticked_ns is None else min((now_ns - self._ticked_ns) / 1e9, self.config.dt_s)
        self._ticked_ns = now_ns
        pose = self._poses.at(now_ns)
        if pose is not None:
            self._follow(pose[0])
        wanted = self._joystick.command(now_ns)
        if isinstance(wanted, TeleopHold):
            return self._pause(wanted, self._joystick.why(wanted), now_ns)
        obs_age_s = np.inf if pose is None else (now_ns - pose[0]) / 1e9
        if self._last is None:
            if pose is None or not obs_age_s <= self.config.gate.max_obs_age_s:
                return self._pause(Verdict.HOLD_STALE, self._no_pose(), now_ns)
            if not self._may_begin(pose[1]):
                return self._pause(TeleopHold.OUTSIDE, self._outside(pose[1]), now_ns)
            self._last = Command(now_ns, np.array(pose[1]), self._gripper)
        return self._move(self._last, wanted, dt_s, obs_age_s, now_ns)

    def hold(self, now_ns: int) -> Command | None:
        """The command that stops the arm where it was last told to be; None before the first press."""
        return None if self._last is None else Command(now_ns, self._last.position_m, self._last.gripper)

    def _follow(self, observed_ns: int) -> None:
        """A pose far from the one before: the arm was away, or somebody has put it elsewhere."""
        before_ns, self._observed_ns = self._observed_ns, observed_ns
        if before_ns is None or abs(observed_ns - before_ns) > self.config.episode_gap_s * 1e9:
            self.forget()

    def _pause(self, verdict: Verdict | TeleopHold, detail: str, now_ns: int) -> TeleopDecision:
        self._velocity_m_s = np.zeros(3)
        self._last = self.hold(now_ns)
        return TeleopDecision(self._last, verdict, detail)

    def _move(
        self, last: Command, wanted: TeleopCommand, dt_s: float, obs_age_s: float, now_ns: int
    ) -> TeleopDecision:
        velocity = self._accelerate(wanted.direction * self._axis_speed_m_s, dt_s)
        gripper = np.clip(last.gripper + wanted.gripper * self.config.gripper_speed_per_s * dt_s, -1.0, 1.0)
        action = np.append(last.position_m + velocity * dt_s, gripper)
        command, verdict = self._gate.check(action, last, obs_age_s, now_ns)
        if verdict.holds:
            return self._pause(verdict, self._no_pose(), now_ns)
        # What runs into the wall of the workspace has no speed left to get rid of on the way back.
        self._velocity_m_s = np.where(command.position_m == action[:3], velocity, 0.0)
        self._last, self._gripper = command, command.gripper
        return TeleopDecision(command, verdict, "")

    def _accelerate(self, wanted_m_s: Array, dt_s: float) -> Array:
        """The velocity (3,) after `dt_s` on the way to `wanted_m_s`."""
        speed = float(np.linalg.norm(wanted_m_s))
        if speed > self.config.max_speed_m_s:
            wanted_m_s = wanted_m_s * (self.config.max_speed_m_s / speed)
        change = wanted_m_s - self._velocity_m_s
        size, allowed = float(np.linalg.norm(change)), self.config.max_acceleration_m_s2 * dt_s
        return wanted_m_s if size <= allowed else self._velocity_m_s + change * (allowed / size)

    def _no_pose(self) -> str:
        return f"ee_pose: nothing finite within {self.config.gate.max_obs_age_s:g} s, by its stamp"

    def _outside(self, position_m: Array) -> str:
        gate = self.config.gate
        x, y, z = position_m
        return (
            f"the arm is measured at ({x:.3g}, {y:.3g}, {z:.3g}) m, outside the workspace {gate.workspace_low_m} to "
            f"{gate.workspace_high_m}: drive it inside by hand, or measure gate.workspace_low_m and _high_m anew"
        )
