"""One tick of the control loop: frames in, command and verdict out.

The policy node and the in-process rollout both call it, so an evaluation measures the code that runs on a robot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import POSITION, decode_positions
from dp_ros.control.checks import check_continuity, check_delay
from dp_ros.control.chunk import Chunk
from dp_ros.control.commander import Commander
from dp_ros.control.episode import Inherited
from dp_ros.control.history import FrameHistory
from dp_ros.control.motion_log import MotionLog
from dp_ros.control.planner import Planner, PlanRequest, PlanResult
from dp_ros.control.reasons import covered_camera, outside, skewed, stale
from dp_ros.control.safety import Array, Command, Verdict
from dp_ros.poses import is_unit
from dp_ros.schema import PolicyConfig, RuntimeConfig
from dp_ros.streams import Frame


@dataclass(frozen=True)
class PolicyDecision:
    """Result of one tick."""

    command: Command
    verdict: Verdict
    detail: str  # the reason, for people; empty when all is well
    plan: PlanResult | None  # the plan that arrived in this tick
    chunk: Chunk | None  # the chunk in use
    obs_age_s: float
    is_silent: bool = False  # the command must not be published: it might be a leap

    @property
    def plan_s(self) -> float | None:
        """Duration of the plan that arrived in this tick."""
        return self.plan.duration_s if self.plan else None


class Controller:
    """History, planner, chunk, watchdogs and gate of one arm. Nothing else makes commands.

    lockstep: `observe(frame)`, then `tick(frame.stamp_ns)`. None means that the plan for this frame is still being
    computed: tick again when it is there.
    realtime: `observe` every frame, and `tick(now)` every control period. While no chunk has an action for now, the arm
    holds. Between two ticks, `between(now)` gives the commands that `command_rate_hz` asks for.

    The tool keeps the orientation measured in the frame that began the episode. The gripper is not commanded until a
    plan commands it.

    `command_delay_s` is the extra latency of the robot, compared with the demonstrations: a frame shows the commands
    sent that much earlier. A plan then starts at what its frame shows, and the actions in flight are not sent again.
    Of the T_p - T_o + 1 actions from the newest frame's own on, delay and inference time use up the first ones.
    """

    def __init__(self, policy: PolicyConfig, runtime: RuntimeConfig, planner: Planner) -> None:
        """ConfigError where a setting does not fit the policy: see `checks` and `commands_per_tick`."""
        check_delay(policy, runtime)
        check_continuity(policy, runtime)
        self.policy, self.runtime, self.planner = policy, runtime, planner
        self.dt_ns = round(1e9 / policy.rate_hz)
        self._delay_ns = round(runtime.command_delay_s * policy.rate_hz) * self.dt_ns
        self._history = FrameHistory(policy.horizons, self.dt_ns, round(runtime.episode_gap_s * 1e9))
        self.commander = Commander(policy, runtime)
        self._resumed = self.commander.motion.resumed
        self.period_ns = self.commander.period_ns  # between two commands
        self._ticked_ns: int | None = None
        self.refused = ""  # why no episode may begin with the newest frame; empty when it may
        self._covered = ""  # message about the covered camera; empty when none is
        self.instruction: NDArray[np.float32] | None = None
        self._may_begin_ns: int | None = None  # stamp of the first frame that might begin the next episode
        self._begin_episode()

    def reset(self) -> None:
        """Forget the episode: frames, chunk, commands and stops. A plan that is being computed will be ignored."""
        self._history.clear()
        self.refused = self._covered = ""
        self._may_begin_ns = self._ticked_ns = None
        self.commander.clear()
        self._begin_episode()

    def _begin_episode(self) -> None:
        self._chunk: Chunk | None = None
        self._log = MotionLog(self.policy.horizons, self.dt_ns)
        self._begun_ns = 0
        self.requested_ns: int | None = None  # stamp of the frame of the newest request
        self._pending: PlanRequest | None = None
        self.taken: PlanResult | None = None  # the newest plan that arrived
        self._plans, self._plan_s, self._problem = 0, 0.0, "no plan yet"

    def inherit(self, state: Inherited) -> None:
        """Before the first frame: begin with it the episode that was begun in `state`, in a replay."""
        self.commander.inherit(state)
        self._may_begin_ns = -(2**63)  # commands in flight were waited for

    def instruct(self, embedding: NDArray[np.float32] | None) -> None:
        """The sentence from now on, as its embedding (D,); None: no instruction, which holds a policy that needs one.

        A change ends the chunk in use in a hold and drops a plan that is being computed. The frames are kept, so that
        the next plan can be made from the newest window.
        """
        known = self.instruction
        if known is embedding or not (known is None or embedding is None or (known != embedding).any()):
            return
        self.instruction = embedding
        self._chunk, self._pending, self.requested_ns = None, None, None
        self._problem = "no plan yet for the new instruction"

    def observe(self, frame: Frame) -> bool:
        """Take the newest frame. A frame that begins an episode forgets the last one: see `Commander`.

        False when the frame is not taken:
        - It is not newer than the newest one.
        - Its pose is not finite, or has no valid quaternion: the arm could not even be told to stay there.
        - It would begin an episode that may not begin there (`refused` says why).
        - It would begin an episode while commands of the last one are in flight, or the arm is far from them.

        A frame with a covered camera is a lost frame, because a policy acts on black pictures with as much confidence
        as on any others. No plan is made from it. Once the newest other frame is older than `max_obs_age_s`, the arm
        holds. The first episode does not begin with such a frame.
        """
        if not (np.isfinite(frame.state).all() and is_unit(frame.ee_orientation)):
            return False
        begins, newest = self._history.would_begin(frame), self._history.newest
        if not begins and frame.stamp_ns <= (newest.stamp_ns if newest else self._begun_ns):
            return False
        self._covered = covered_camera(frame, self.policy.encoder, self.runtime.min_contrast)
        self.refused = self._why_not(frame) if begins else ""
        if self.refused:
            return False
        if not begins:
            self._may_begin_ns = None
        elif self._may_begin_ns is None or frame.stamp_ns < self._may_begin_ns:
            self._may_begin_ns = frame.stamp_ns
        if self._is_settling(frame.stamp_ns) or (begins and not self.commander.may_begin(frame)):
            return False
        is_newer = self._history.lose(frame) if self._covered else True
        if not self._covered:
            self._history.push(frame)
        if begins:
            # A pause of the cameras must not change the gripper. Who made the command void may have moved it.
            keeps = self.runtime.mode == "realtime" and not self.commander.lost
            last = self.commander.last if keeps else None
            self._begin_episode()
            self._begun_ns, self._may_begin_ns = frame.stamp_ns, None
            self._log.add(self.commander.begin(frame, last.gripper if last else None))
        if is_newer:
            self.commander.see(frame)
        return is_newer

    def _is_in_next_window(self, frame: Frame) -> bool:
        """Whether the next plan will be requested while this frame is one of the T_o newest, but not the newest."""
        horizons = self.policy.horizons
        time_ns = frame.stamp_ns + (horizons.T_o - 1) * self.dt_ns
        if self._pending is None:
            return self._is_plan_due(time_ns)
        return time_ns + self._lead_ns >= self._pending.stamp_ns + (2 * horizons.T_a - 1) * self.dt_ns // 2

    def is_between(self, now_ns: int) -> bool:
        """Whether this is a time for `between`, not for the next tick."""
        return self._ticked_ns is not None and self.commander.is_between(self._ticked_ns, now_ns)

    def between(self, now_ns: int) -> Command | None:
        """The command for a time between two ticks; None as in `tick`, and where nothing may be published."""
        if self._is_settling(now_ns):
            return None
        command, self._chunk = self.commander.between(self._chunk, self._obs_age_s(now_ns), now_ns)
        return command

    def _obs_age_s(self, now_ns: int) -> float:
        newest = self._history.newest
        return math.inf if newest is None else (now_ns - newest.sampled_ns) / 1e9

    def tick(self, now_ns: int) -> PolicyDecision | None:
        """The command for now.

        None before the first frame, while the arm settles before the next episode, and in lockstep while the plan is
        being computed.
        """
        went_back = self._ticked_ns is not None and now_ns < self._ticked_ns
        last, newest_ns, self._ticked_ns = self.commander.last, self._history.newest_ns, now_ns
        if self.runtime.mode == "realtime" and (went_back or (newest_ns or now_ns) > now_ns):
            # Old frames must not count as new when the clock reaches their stamps again.
            self._history.clear()
            self._chunk = self._pending = None
            self.commander.lose("time went back")
        if last is None or self._is_settling(now_ns):
            return None
        newest = self._history.newest
        busy = self.planner.busy  # before polling, so that a plan which finishes in between is not overlooked
        plan = self._take_plan(now_ns)
        is_new = newest is not None and newest.stamp_ns != self.requested_ns
        if self._is_plan_due(now_ns) and is_new and not busy and not self.commander.is_barred(now_ns):
            self._request_plan(now_ns)
            plan = self._take_plan(now_ns) or plan  # an inline planner has answered already
        elif self.runtime.mode == "realtime" and is_new and newest and self._is_in_next_window(newest):
            self.planner.offer(newest.images)  # a request of the same frame would wait for it
        if self.runtime.mode == "lockstep" and self._is_plan_due(now_ns) and (busy or self._pending):
            return None
        age_s, chunk = self._obs_age_s(now_ns), self._resumed(self._chunk, now_ns)
        taken = self.commander.tick(chunk, age_s, now_ns, lambda verdict: self._why(verdict, age_s))
        verdict, kept = taken.verdict, self._chunk if taken.verdict.holds else taken.chunk
        self._chunk = None if verdict.is_break else kept
        self._log.add(taken.command, None if verdict.holds else chunk)
        if verdict is Verdict.HOLD_OTHER_COMMANDER or self.commander.lost:  # begin where the arm is left
            self._history.clear()
        return PolicyDecision(taken.command, verdict, taken.detail, plan, taken.chunk, age_s, taken.is_silent)

    def hold(self, now_ns: int) -> Command | None:
        """The next command that stops the arm; None before the first frame, and where nothing may be published."""
        return self.commander.hold(now_ns)

    def _why(self, verdict: Verdict, obs_age_s: float) -> str:
        """The cause of a hold without a plan, or without a fresh observation."""
        if verdict is Verdict.HOLD_NO_PLAN:
            return self._covered or self._problem or "the chunk is used up, and the next plan has not arrived"
        return self.refused or self._covered or stale(obs_age_s, self.commander.lost)

    def why_not_begin(self, frame: Frame) -> str:
        """Why the first episode may not begin with this frame; empty when it may."""
        if not (np.isfinite(frame.state).all() and is_unit(frame.ee_orientation)):
            return "ee_pose: not finite, or without a valid quaternion"
        if not self.commander.gate.may_begin(frame.ee_position_m):
            return outside(frame.ee_position_m, self.commander.config)
        covered = covered_camera(frame, self.policy.encoder, self.runtime.min_contrast)
        return skewed(frame, self.commander.config) or covered

    def _why_not(self, frame: Frame) -> str:
        """Why no episode may begin with this frame; empty when it may."""
        if not self.commander.gate.may_begin(frame.ee_position_m):
            return outside(frame.ee_position_m, self.commander.config)
        return self._covered if self.commander.last is None else ""

    def _is_settling(self, now_ns: int) -> bool:
        """Whether commands of the last episode may still move the arm.

        An episode that began then would pull the arm back to where it is measured now.
        """
        if self.runtime.mode == "lockstep" or self._may_begin_ns is None:
            return False
        return 0 <= now_ns - self._may_begin_ns < self._delay_ns

    def _is_plan_due(self, now_ns: int) -> bool:
        """Whether the executed part is used up. In realtime it is due earlier, by the time the last plan took."""
        if self._chunk is None:
            return True
        return self._chunk.is_due(now_ns + self._lead_ns)

    @property
    def _lead_ns(self) -> int:
        return 0 if self.runtime.mode == "lockstep" else round(self._plan_s * 1e9)

    def _request_plan(self, now_ns: int) -> None:
        if self.policy.instruction and self.instruction is None:
            self._problem = "no instruction: this policy is told by a sentence what to do"
            return
        window = self._history.window()
        if window is None:
            self._problem = f"fewer than {self.policy.horizons.T_o} frames, a control period apart, are there"
            return
        self.requested_ns = window[-1].stamp_ns
        shown_ns = self._shown_ns(self.requested_ns)
        committed = guess = None
        kind = self.policy.action.position
        if self.runtime.warm_start and self._chunk is not None:
            guess = self._chunk.continued(shown_ns + self.dt_ns // 2, kind)
        if self.runtime.transition == "inpaint":
            committed = self._log.committed(shown_ns, self._coming(now_ns), kind)
        self._pending = PlanRequest(
            images=tuple(frame.images for frame in window),
            state=np.stack([frame.state for frame in window]),
            reference_m=window[-1].ee_position_m if self.runtime.shadow else self._log.reference_m(shown_ns),
            stamp_ns=self.requested_ns,
            seed=(self.runtime.policy_seed, self._plans),
            committed=committed,
            guess=guess,
            instruction=self.instruction,
        )
        self.planner.request(self._pending)
        self._plans += 1

    def _coming(self, now_ns: int) -> list[Array]:
        """The actions (D,) of the chunk in use that will be executed until a plan requested now arrives.

        The plan is expected to take as long as the last one, and each action to pass the gate as it would now.
        """
        last = self.commander.last
        chunk = self._resumed(self._chunk, now_ns)
        if chunk is None or last is None or self.runtime.mode == "lockstep":
            return []
        actions: list[Array] = []
        ticks = math.ceil(self._plan_s * 1e9 / self.dt_ns - 1e-6)
        for time_ns in (now_ns + i * self.dt_ns for i in range(ticks)):
            action = chunk.at(time_ns)
            last, verdict = self.commander.predict(action, last, time_ns)
            if verdict.holds:
                break
            actions.append(last.as_array())
        return actions

    def _shown_ns(self, frame_ns: int) -> int:
        """A frame shows the commands before this time; half a tick early, because stamps of ticks jitter."""
        return frame_ns - self._delay_ns - self.dt_ns // 2

    def _take_plan(self, now_ns: int) -> PlanResult | None:
        """Turn a finished plan into the chunk in use; the plan, None when none finished."""
        plan = self.planner.poll()
        if plan is None or plan.request is not self._pending:  # requested in an episode that is over
            return None
        self._pending, self._plan_s, self.taken = None, plan.waited_s + plan.duration_s, plan
        horizons, kind = self.policy.horizons, self.policy.action.position
        shape = (horizons.T_p, self.policy.action.dim)
        if plan.chunk is None or plan.chunk.shape != shape:
            why = plan.error if plan.chunk is None else f"its shape is {plan.chunk.shape}, not {shape}"
            self._chunk, self._problem = None, f"the plan failed: {why}"
            return plan
        self.commander.ood.see(plan.ood_scores, self.commander.config.max_ood_score)
        actions = np.array(plan.chunk)
        actions[:, POSITION.slice] = decode_positions(
            POSITION.of(plan.chunk), plan.request.reference_m, horizons, kind
        )
        chunk = Chunk.after(plan.request.stamp_ns, self.dt_ns, actions, horizons)
        transition, is_shadow = self.runtime.transition, self.runtime.shadow
        if is_shadow and self._history.newest:
            self.commander.stand(self._history.newest)
        else:
            done = self._log.moves_since(self._shown_ns(plan.request.stamp_ns))
            before = sum(move.time_ns < plan.request.stamp_ns - self.dt_ns // 2 for move in done)
            chunk = chunk.realigned(now_ns, len(done), before)
        if self.commander.last is not None and (transition == "shift" or (is_shadow and kind != "absolute")):
            chunk = chunk.shifted(now_ns, self.commander.last.position_m, plan.request.reference_m)
        if transition == "ensemble" and self._chunk is not None and not self.commander.motion.keeps:
            chunk = chunk.blended(self._chunk, now_ns)
        self._chunk, self._problem = chunk, ""
        self._log.begin_chunk()
        if self._chunk.at(now_ns) is None:
            late_ms, delay_ms = (now_ns - plan.request.stamp_ns) / 1e6, self._delay_ns / 1e6
            reach_ms = (horizons.T_p - horizons.T_o) * self.dt_ns / 1e6
            spent = f", of which command_delay_s takes {delay_ms:.0f} ms" if delay_ms else ""
            self._problem = (
                f"the plan came {late_ms:.0f} ms after its frame and reaches {reach_ms:.0f} ms{spent}"
            )
        return plan
