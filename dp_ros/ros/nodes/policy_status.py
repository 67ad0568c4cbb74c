"""Status of a policy node for `/diagnostics`: what it serves, what it decides, and how its inputs and plans are."""

from __future__ import annotations

from dp_ros.control.controller import Controller
from dp_ros.control.health import late_plans
from dp_ros.inference.session import PolicySession
from dp_ros.ros.node.diagnostics import ERROR, OK, WARN, Status
from dp_ros.ros.nodes.policy_inputs import PolicyInputs
from dp_ros.ros.nodes.policy_instruction import InstructionInput
from dp_ros.ros.nodes.policy_report import PolicyReport


class PolicyStatus:
    """Level, message and values. What stops the arm comes first, then what will soon stop it."""

    def __init__(
        self,
        session: PolicySession,
        controller: Controller,
        inputs: PolicyInputs,
        report: PolicyReport,
        instruction: InstructionInput | None,
    ) -> None:
        self._session, self._controller, self._inputs = session, controller, inputs
        self._report, self._instruction = report, instruction
        self.opening: float | None = None  # of the newest frame

    def __call__(self, is_active: bool, now_ns: int, without_time: str) -> Status:
        """without_time: why no time passes for the node, which only matters in real time."""
        values = self._values()
        if self._inputs.bad:
            return ERROR, "; ".join(self._inputs.bad.values()), values
        if not is_active:
            return OK, "inactive", values
        is_lockstep = self._session.runtime.mode == "lockstep"
        if not is_lockstep and without_time:
            return WARN, without_time, values
        if self._instruction and self._instruction.problem:
            return WARN, self._instruction.problem, values
        verdict = self._report.verdict
        if verdict is None:
            waiting = [] if is_lockstep else self._inputs.streams.missing(now_ns)
            why = self._controller.refused or "waiting for the first observation: " + "; ".join(waiting)
            return WARN, why, values
        if verdict.holds:
            return WARN, self._report.text, values
        if warnings := self._warnings(is_lockstep):
            return WARN, "; ".join([self._report.text, *warnings]), values
        return OK, self._report.text, values

    def _warnings(self, is_lockstep: bool) -> list[str]:
        unlike = list(filter(None, [self._report.warning]))
        if is_lockstep:  # the robot waits
            return [*unlike, *self._inputs.health.warnings(0.0)]
        horizons = self._controller.policy.horizons
        reach_s = (horizons.T_p - horizons.T_o) * self._controller.dt_ns / 1e9
        late = late_plans(self._report.plan_p99_s, reach_s)
        max_age_s = self._controller.commander.config.max_obs_age_s
        return [*unlike, *self._inputs.health.warnings(max_age_s), *([late] if late else [])]

    def _values(self) -> dict[str, str]:
        session = self._session
        told = {}
        if self._instruction:
            told["instruction"] = self._instruction.text or "none"
            told["instruction_means"] = self._instruction.means or "none"
        return {
            "checkpoint": session.checkpoint,
            "checkpoint_sha256": session.weights_sha256,
            "schema_version": str(session.schema_version),
            "version": session.version,
            "mode": session.runtime.mode,
            **({"shadow": "true"} if session.runtime.shadow else {}),
            "engine": f"{session.runtime.engine} {session.runtime.precision}",
            "policy_seed": str(session.runtime.policy_seed),
            **told,
            **self._report.values(),
            **self._inputs.health.values(),
            "gripper_opening": "none" if self.opening is None else f"{self.opening:.3f}",
        }
