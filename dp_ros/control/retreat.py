"""Way back of the commands to where the arm was found, after it was measured far from them."""

from __future__ import annotations

import math

import numpy as np

from dp_ros.actions import join
from dp_ros.control.chunk import Chunk
from dp_ros.control.safety import NEAR_AGAIN, Array, Command, Verdict
from dp_ros.control.watch import Hold, Watch
from dp_ros.schema import GateConfig, Horizons

SPEED_M_S = 0.1  # at most; a slow way, because nobody knows why the arm is where it is
_NOW = Horizons(T_o=1, T_p=1, T_a=1)  # the first action is for now


class Retreat:
    """A straight path from the last command to the measured position, which does not change any more.

    An arm that presses against something presses less then, and one that was moved is not pulled back. The commands
    keep all limits on the way, as everywhere. They rest at its end until a person activates the node again, or brings
    the arm back to where it was told to be.
    """

    def __init__(self, last: Command, measured_m: Array, now_ns: int, dt_ns: int, gate: GateConfig) -> None:
        self._left_m, self._gate = last.position_m, gate
        self._end_m = np.clip(measured_m, gate.workspace_low_m, gate.workspace_high_m)
        self.begin(last, now_ns, dt_ns)
        self.is_near = False  # whether the arm was near the commands since
        self.is_void = False  # whether the pose can no longer be trusted

    def begin(self, last: Command, now_ns: int, dt_ns: int) -> None:
        """The rest of the path begins now, at rest; nothing was commanded for a while."""
        end_m = self._end_m
        step_m = SPEED_M_S * dt_ns / 1e9  # the gate slows the commands where its limit is lower
        count = max(1, math.ceil(math.dist(end_m, last.position_m) / step_m))
        shares = np.minimum(np.arange(1, count + 3) / count, 1.0)  # the last ones rest
        actions = np.array(
            [
                join(last.position_m + share * (end_m - last.position_m), last.gripper or 0.0)
                for share in shares
            ]
        )
        self.chunk = Chunk.after(now_ns, dt_ns, actions, _NOW)

    def is_back(self, measured_m: Array) -> bool:
        """Whether the arm was brought back to where it was told to be."""
        return math.dist(measured_m, self._left_m) <= NEAR_AGAIN * self._gate.max_distance_m

    @property
    def why(self) -> str:
        return (
            f"the arm was more than gate.max_distance_m {self._gate.max_distance_m:g} from its commands: it is stuck, "
            "was moved, or does not obey; the command has gone back to where it is; deactivate and activate"
        )


class Retreats:
    """The retreat in progress, if there is one."""

    def __init__(self, watch: Watch, dt_ns: int) -> None:
        self._watch, self._dt_ns = watch, dt_ns
        self.clear()

    def clear(self) -> None:
        self.current: Retreat | None = None
        self._was_far = False

    def go_on(self, last: Command | None, now_ns: int, silent_s: float) -> None:
        """Commands are published, after a silence of so long."""
        if self.current is not None and last is not None and silent_s:
            self.current.begin(last, now_ns, self._dt_ns)

    def why_hold(self, last: Command, now_ns: int) -> Hold | None:
        """The hold of an arm that is far from its commands, or to which they go back."""
        if self.current is not None:
            return Verdict.HOLD_FAR, self.current.why
        return self._watch.why_far(last, now_ns)

    @property
    def is_silent(self) -> bool:
        """Whether the arm was far at the last look, and no command may be given: it might be a leap.

        It changes at a look only: a silence between two ticks would end the motion before a retreat can begin.
        """
        return self.current.is_void if self.current is not None else self._was_far

    def bars(self, last: Command | None, now_ns: int) -> bool:
        """Whether the arm is far now, or the commands go back to it."""
        return self.current is not None or (last is not None and self._watch.is_far(last, now_ns))

    def look(self, last: Command | None, now_ns: int, is_idle: bool) -> bool:
        """Begin a retreat where the arm has just been found far, and its pose is sure; whether one has ended.

        is_idle: no command may be given, or the arm is stopped: none begins.
        """
        if last is None:
            return False
        before, retreat, watch = self._was_far, self.current, self._watch
        is_far = self._was_far = watch.is_far(last, now_ns)
        if retreat is None:
            is_new = is_far and not before and not is_idle
            if is_new and watch.trusts(now_ns) and watch.is_little_far(last):
                self.current = Retreat(last, watch.position_m, now_ns, self._dt_ns, watch.gate)
            return False
        retreat.is_near = retreat.is_near or not is_far
        is_lost = retreat.is_near or not watch.trusts(now_ns)
        retreat.is_void = retreat.is_void or (is_far and is_lost)
        if not (watch.trusts(now_ns) and retreat.is_back(watch.position_m)):
            return False
        self.clear()
        watch.forgive()
        return True
