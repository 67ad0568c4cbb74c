"""Commands of one arm: each passes the gate, the watchdogs and the limits of motion. Nothing else makes commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dp_ros.actions import POSITION, gripper_of, opening_to_command
from dp_ros.control.chunk import Chunk
from dp_ros.control.episode import Inherited, Taken
from dp_ros.control.followed import LAG_S
from dp_ros.control.interpolation import Interpolator, commands_per_tick
from dp_ros.control.motion import Motion
from dp_ros.control.ood import OodWatch
from dp_ros.control.reasons import of_gate
from dp_ros.control.retreat import Retreats
from dp_ros.control.safety import Array, Command, Gate, Verdict
from dp_ros.control.watch import Hold, Watch
from dp_ros.poses import is_unit
from dp_ros.schema import GateConfig, PolicyConfig, RuntimeConfig
from dp_ros.streams import Frame

Explain = Callable[[Verdict], str]  # the cause of a hold, where the commander does not know it


class Commander:
    """The last command of an episode, and the next one.

    A hold keeps the gripper and stops the arm as fast as the limits of acceleration allow. An episode has one
    orientation. In real time nothing is published while the tool is measured too far from it.

    In real time an episode that begins while commands are published goes on from the last one, within the limits.
    Else it begins where the arm is measured, once it has had LAG_S without a command to come to rest.
    """

    def __init__(self, policy: PolicyConfig, runtime: RuntimeConfig) -> None:
        """ConfigError where `command_rate_hz` does not fit the policy."""
        # A simulated robot is put back with a leap of simulated time: its next episode has nothing to do with the last.
        self.is_reset_by_time = False
        self._dt_ns = round(1e9 / policy.rate_hz)
        per_tick = commands_per_tick(policy, runtime)
        self._curve = Interpolator(self._dt_ns) if per_tick > 1 else None
        self.period_ns = self._dt_ns // per_tick  # between two commands
        self.motion = Motion(runtime.gate, self.period_ns / 1e9)
        # In lockstep the simulated arm waits for each command, and in shadow mode no arm gets any.
        self._may_be_silent = runtime.mode == "realtime" and not runtime.shadow
        self._watch = Watch(runtime.gate, policy.encoder.cameras, must_follow=self._may_be_silent)
        self._retreats = Retreats(self._watch, self._dt_ns)
        self.ood = OodWatch(policy.encoder.cameras, runtime.ood_warning)
        self.gate, self.config = Gate(runtime.gate), runtime.gate
        self.begun = 0  # episodes so far
        self.moved_ns: int | None = None  # time of the last command that moved the arm
        self.went_on = False  # whether the episode goes on from the last command
        self.inherited: Inherited | None = None  # of the episode, where it is not the first and did not go on
        self.clear()

    def limit(self, config: GateConfig) -> None:
        """Take other limits, from the next command on."""
        self.config, self._watch.gate, self.gate = config, config, Gate(config)
        self._look_at_tool()
        self.motion.configure(config)

    # ---- the episode -----------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget the episode and its reasons to hold. There are no commands until `begin`."""
        self.stopped = ""  # why the arm is stopped until it is cleared; empty while it is not
        self.rival = ""  # message about another node that may command the arm; empty while there is none
        self.last: Command | None = None
        self.orientation: Array = np.full(4, np.nan)  # kept in every command of the episode
        self._is_turned = False  # whether the tool is measured too far from `orientation`
        self._retreats.clear()
        self._silent_s = 0.0  # time without a published command
        self._asked_ns: int | None = None  # time of the last tick
        self._forget()
        self._watch.clear()
        self.ood.clear()

    def _forget(self) -> None:
        self.lost = ""  # reason why the last command is void, until `begin`; empty while it is valid
        self.measured: Array = np.full(4, np.nan)  # orientation of the newest frame
        self._opening: float | None = None
        self._holds = False  # whether the last tick held
        if self._curve:
            self._curve.clear()

    def lose(self, why: str) -> None:
        """Count the last command as void: in real time nothing is published until an episode begins."""
        if self._may_be_silent and self.last is not None and not self.is_reset_by_time:
            self.lost, self._watch.is_void = self.lost or why, True

    def may_begin(self, frame: Frame) -> bool:
        """Whether an episode may begin with a frame. The arm must not be far from its commands, nor still move."""
        if not self._may_be_silent or self.is_reset_by_time:
            return True
        if self.last is None:  # the arm may still follow a command of before `clear`
            return self.moved_ns is None or not 0 <= frame.stamp_ns - self.moved_ns < LAG_S * 1e9
        if self._retreats.current or self._watch.stays_far(self.last, frame.ee_position_m):
            return False
        return self._goes_on or self._silent_s >= LAG_S

    @property
    def _goes_on(self) -> bool:
        """Whether an episode that begins now goes on from the last command, which the arm still follows."""
        if self.is_reset_by_time:
            return False
        return self._may_be_silent and self.last is not None and not self.lost and not self._silent_s

    def begin(self, frame: Frame, gripper: float | None) -> Command:
        """Begin an episode where the arm is measured, at rest unless commands are being published.

        A tool that was turned too far stays so until it is turned back.
        """
        self.went_on = goes_on = self._goes_on
        self.inherited = None if goes_on or self.last is None else self._state(self.last)
        self._forget()
        self.begun += 1
        if not (goes_on or self._is_turned) or self.is_reset_by_time:
            self.orientation = np.array(frame.ee_orientation)
        start = Command(frame.stamp_ns, np.array(frame.ee_position_m), gripper, self.orientation)
        if not goes_on:
            self.last = start
            self._watch.begin()
            self.ood.clear()
            self._retreats.clear()
            self.motion.begin(start.position_m)
        return start

    def _state(self, last: Command) -> Inherited:
        orientation, held = self.orientation if self._is_turned else None, self._watch.held
        return Inherited(last.gripper, orientation, self._silent_s, self._asked_ns, held, bool(self.lost))

    def inherit(self, state: Inherited) -> None:
        """Before the first episode: make it the one that begins after `state`, in a replay."""
        if state.orientation is not None:
            self._is_turned, self.orientation = True, state.orientation
        self._silent_s, self._asked_ns, self._watch.held = state.silent_s, state.asked_ns, state.held
        self.last = Command(0, np.zeros(POSITION.size), state.gripper, self.orientation)
        if state.is_lost:
            self.lose("its episode is over")

    def see(self, frame: Frame) -> None:
        """Take a frame that is newer than those before it."""
        self.measured, self._opening = np.array(frame.ee_orientation), frame.gripper
        self._watch.see(frame)
        self._look_at_tool()

    def measure(self, stamp_ns: int, pose: Array) -> None:
        """Take the newest measured pose (7,), valid or not, also where no frame is complete."""
        if np.isfinite(pose).all():
            self._watch.measure(stamp_ns, pose)
            self._look_at_tool()

    def _look_at_tool(self) -> None:
        newest = self._watch.orientation
        if not (self.lost or self.rival):  # who may leave the tool otherwise
            self.measured = newest if is_unit(newest) else self.measured
            self._is_turned = self.gate.is_turned(self.orientation, self.measured, self._is_turned)

    def stand(self, frame: Frame) -> None:
        """Count the arm's measured pose as the last command: in shadow mode nobody follows the commands."""
        assert self.last is not None
        self.orientation = np.array(frame.ee_orientation)
        self.last = replace(self.last, position_m=np.array(frame.ee_position_m), orientation=self.orientation)
        self.motion.place(self.last.position_m)

    # ---- commands --------------------------------------------------------------------------------------

    def tick(self, chunk: Chunk | None, obs_age_s: float, now_ns: int, explain: Explain) -> Taken:
        """The command of a tick."""
        if self.rival:
            self.lose("another node commanded")
        elif self._watch.is_unknown(now_ns):
            self.lose("the pose was lost")
        self._look(now_ns, is_idle=bool(self.rival or self.lost or self.stopped))
        action = chunk.at(now_ns) if chunk else None
        hold = self._why_hold(chunk, action, obs_age_s, now_ns, explain)
        passed_s = 0.0 if self._asked_ns is None else (now_ns - self._asked_ns) / 1e9
        self._asked_ns = now_ns
        if self.is_silent(now_ns):
            # A leap of the clock does not count as time, nor does what the arm still follows of another commander.
            passed_s = min(max(passed_s, 0.0), 2.0 * self._dt_ns / 1e9)
            self._silent_s = 0.0 if self.rival else self._silent_s + passed_s
            verdict, detail = hold or (Verdict.HOLD_STALE, explain(Verdict.HOLD_STALE))
            return Taken(self._stay(now_ns), verdict, detail, chunk, is_silent=True)
        self._retreats.go_on(self.last, now_ns, self._silent_s)
        self._silent_s = 0.0
        dt_s = self._since_s(now_ns) if self._curve else self._dt_ns / 1e9
        if hold and hold[0] is Verdict.HOLD_FAR and (back := self._go_back(now_ns, dt_s)) is not None:
            return Taken(back, *hold, None)
        if hold is None and chunk is not None and action is not None:
            self._holds = False
            return self._move(chunk, action, now_ns, dt_s)
        self._holds = True
        verdict, detail = hold or (Verdict.HOLD_NO_PLAN, explain(Verdict.HOLD_NO_PLAN))
        self.motion.keep(chunk, now_ns)
        return Taken(self._hold(now_ns, dt_s), verdict, detail, chunk)

    def is_between(self, ticked_ns: int, now_ns: int) -> bool:
        """Whether this is a time for `between`: by more than half a period, the next tick is not due yet."""
        return self._curve is not None and 0 <= now_ns - ticked_ns < self._dt_ns - self.period_ns // 2

    def between(
        self, chunk: Chunk | None, obs_age_s: float, now_ns: int
    ) -> tuple[Command | None, Chunk | None]:
        """The command for a time between two ticks, and the chunk after it. None where nothing may be published.

        Where the last tick held, it holds.
        """
        if self._curve is None or self.last is None:
            return None, chunk
        if self.is_silent(now_ns):
            self._stay(now_ns)
            return None, chunk
        dt_s = self._since_s(now_ns)
        is_fresh = 0.0 <= obs_age_s <= self.config.max_obs_age_s
        retreat = self._retreats.current
        if self.stopped or self._holds or self._curve.is_at_rest or not (retreat or is_fresh):
            return self._hold(now_ns, dt_s), chunk
        path = retreat.chunk if retreat else chunk
        step, after = self.motion.follow_curve(self._curve, path, now_ns, dt_s)
        if retreat:
            retreat.chunk, after = after or retreat.chunk, chunk
        gripper = self.motion.keep_grip(self.last.gripper, dt_s)
        moved = replace(self.last, stamp_ns=now_ns, position_m=step.position_m, gripper=gripper)
        return self._take(moved), after

    def hold(self, now_ns: int) -> Command | None:
        """The next command that stops the arm; None before the first frame, and where nothing may be published."""
        self._look(now_ns, is_idle=True)
        is_silent = self.last is None or self.is_silent(now_ns)
        return None if is_silent else self._hold(now_ns, self.period_ns / 1e9)

    @property
    def is_moving(self) -> bool:
        """Whether the commands have not come to rest, so that `hold` has more of them. They end in any case."""
        return self.last is not None and self.motion.is_moving

    def is_barred(self, now_ns: int) -> bool:
        """Whether the arm will hold whatever is planned: a plan would be computed for nothing."""
        return any((self.stopped, self.rival, self.is_silent(now_ns), self._retreats.bars(self.last, now_ns)))

    def is_silent(self, now_ns: int) -> bool:
        """Whether even a hold must not be published: it might be a leap, or contradict another node's command."""
        if not self._may_be_silent or self.last is None:
            return False
        is_void = bool(self.rival or self.lost) or self._watch.is_unknown(now_ns)
        return is_void or self._is_turned or self._retreats.is_silent

    def predict(self, action: Array | None, last: Command, time_ns: int) -> tuple[Command, Verdict]:
        """The command that an action of a later tick will probably become; nothing changes."""
        return self.gate.check(action, self.orientation, last, self.measured, 0.0, time_ns, self._dt_ns / 1e9)

    def _since_s(self, now_ns: int) -> float:
        """Time since the last command that the next one may use: at most a tick, so that a gap is no leap."""
        assert self.last is not None
        return min(max((now_ns - self.last.stamp_ns) / 1e9, 0.0), self._dt_ns / 1e9)

    def _move(self, chunk: Chunk, action: Array, now_ns: int, dt_s: float) -> Taken:
        last = self.last
        assert last is not None
        due_m, is_exact = self.gate.inside(POSITION.of(action)), self._retreats.current is not None
        if self._curve is None:
            step, after = self.motion.follow_chunk(chunk, now_ns, dt_s, is_exact)
        else:
            if self._curve.is_at_rest:  # after a hold, the commands may still be slowing down
                step, moved = self.motion.stand(dt_s), None
            else:
                step, moved = self.motion.follow_curve(self._curve, chunk, now_ns, dt_s)
            after = self.motion.near(moved or chunk, (moved or chunk).progress(now_ns), is_exact)
            self._curve.lead(now_ns, after, step.position_m, due_m, self.config, self.motion.speed_m_s)
        gripper = last.gripper
        if gripper is None and self._opening is not None:
            gripper = opening_to_command(self._opening)
        gripper, is_gripped = self.motion.grip(gripper, float(gripper_of(action)), dt_s)
        command = self._take(Command(now_ns, step.position_m, gripper, self.orientation))
        is_beside = self.motion.is_beside(after, now_ns)
        verdict = step.limit or self.gate.limited(POSITION.of(action), is_gripped, is_beside)
        return Taken(command, verdict, "", after)

    def _look(self, now_ns: int, is_idle: bool) -> None:
        """Look whether the arm is far from its commands. is_idle: they do not go back to it."""
        if self._may_be_silent and not self._is_turned and self._retreats.look(self.last, now_ns, is_idle):
            self.lose("the arm was far from its commands")

    def _go_back(self, now_ns: int, dt_s: float) -> Command | None:
        """The next command of a retreat; None where there is none, or it must not be executed."""
        retreat, last = self._retreats.current, self.last
        action = retreat.chunk.at(now_ns) if retreat else None
        if retreat is None or action is None or last is None:
            return None
        if self.gate.why_hold(action, self.orientation, last.position_m, self.measured, 0.0):
            return None
        self._holds, gripper = False, self.motion.keep_grip(last.gripper, dt_s)
        taken = self._move(retreat.chunk, action, now_ns, dt_s)
        retreat.chunk = taken.chunk or retreat.chunk
        self.last = replace(taken.command, gripper=gripper)
        return self.last

    def _stay(self, now_ns: int) -> Command:
        """Keep the last published command without publishing it; motion starts from there, at rest."""
        assert self.last is not None
        if self._curve:
            self._curve.clear()
        self.motion.begin(self.last.position_m)
        self._watch.drop_followed(now_ns)
        self._holds, self.last = True, replace(self.last, stamp_ns=now_ns)
        return self.last

    def _hold(self, now_ns: int, dt_s: float) -> Command:
        assert self.last is not None
        if self._curve:
            self._curve.clear()
        gripper = self.motion.keep_grip(self.last.gripper, dt_s)
        return self._take(Command(now_ns, self.motion.hold(dt_s), gripper, self.orientation))

    def _take(self, command: Command) -> Command:
        if self.last is None or not np.array_equal(command.position_m, self.last.position_m):
            self.moved_ns = command.stamp_ns
        self.last = command
        self._watch.command(command)
        return command

    def _why_hold(
        self, chunk: Chunk | None, action: Array | None, obs_age_s: float, now_ns: int, explain: Explain
    ) -> Hold | None:
        """The hold that is due and its cause; None where the arm may move."""
        last = self.last
        assert last is not None
        hold: Hold | None = self._retreats.why_hold(last, now_ns)
        if self.rival:
            hold = Verdict.HOLD_OTHER_COMMANDER, self.rival
        if self.stopped:
            hold = Verdict.HOLD_STOPPED, self.stopped
        args = action, self.orientation, last.position_m, self.measured, obs_age_s, self._is_turned
        if hold is None and (why := self.gate.why_hold(*args)):
            hold = why, of_gate(why, action, self.orientation, self.measured, self.config) or explain(why)
        hold = hold or self._watch.why_hold(chunk, now_ns)
        is_free = hold is None or hold[0] is Verdict.HOLD_NO_PLAN  # which comes in the hold of `ood`, too
        if is_free and (unlike := self.ood.why_hold(self.config.max_ood_score)):
            hold = Verdict.HOLD_OOD, unlike
        if hold is None and action is not None:
            is_outside = not self.gate.is_inside(POSITION.of(action))
            if lean := self._watch.why_lean(is_outside, now_ns):
                hold = Verdict.HOLD_WALL, lean
        if recovering := self._watch.recovering(hold[0] if hold else None, now_ns):
            hold = Verdict.HOLD_RECOVERING, recovering
        return hold
