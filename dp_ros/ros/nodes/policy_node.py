"""Policy node: callbacks store, the controller decides, one worker infers. Wiring only."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from dp_ros.control.controller import Controller
from dp_ros.control.planner import PlanWorker
from dp_ros.control.safety import Command
from dp_ros.control.timing import CommandTimer
from dp_ros.errors import UserError
from dp_ros.inference.engine import Engine, choose_engine, load_engine
from dp_ros.inference.session import PolicySession
from dp_ros.policy.checkpoint_config import OOD, check_weights, policy_config
from dp_ros.policy.checkpoint_folder import find_checkpoint
from dp_ros.ros.messages import conversions
from dp_ros.ros.node import qos
from dp_ros.ros.node.emergency_stop import EmergencyStop
from dp_ros.ros.node.managed_node import ManagedNode, reported
from dp_ros.ros.node.node_main import run_process
from dp_ros.ros.node.parameters import changed_config, read_config
from dp_ros.ros.nodes.braking import brake
from dp_ros.ros.nodes.plan_drawing import PlanDrawing
from dp_ros.ros.nodes.policy_commands import PolicyCommands
from dp_ros.ros.nodes.policy_inputs import PolicyInputs
from dp_ros.ros.nodes.policy_instruction import InstructionInput, say, sentence_in
from dp_ros.ros.nodes.policy_report import PolicyReport
from dp_ros.ros.nodes.policy_status import PolicyStatus
from dp_ros.ros.nodes.policy_ticks import PolicyTicks
from dp_ros.schema import ConfigError, RuntimeConfig, TopicsFile
from dp_ros.schema.gripper import GripperCommands
from dp_ros.schema.nodes import ServedConfig
from dp_ros.streams import Sample, Selection, to_frame


class PolicyNode(ManagedNode):
    """Cameras, `ee_pose` and `gripper/state` in; `command/ee_pose` and `command/gripper` out."""

    def __init__(self) -> None:
        super().__init__("policy_node")
        self._served = read_config(self, ServedConfig)
        topics = read_config(self, TopicsFile).read()
        self._topics, self.names = topics, topics.names()
        self._runtime = topics.gripper_of(read_config(self, RuntimeConfig), self.get_name())
        self._gripper = topics.gripper_of(read_config(self, GripperCommands), self.get_name())
        self._worker: PlanWorker | None = None
        self._active = False
        self._emergency_stop = EmergencyStop(self, self._on_emergency_stop)
        self.add_on_set_parameters_callback(self._on_set_parameters)

    # ---- lifecycle -------------------------------------------------------------------------------------

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._checkpoint = str(find_checkpoint(self._served.checkpoint))
        self._policy = policy_config(self._checkpoint)
        self._plan_arrived = self.add_guard_condition(self._on_plan)
        if self._runtime.engine == "auto":
            self.get_logger().info("choosing an engine: some seconds the first time, then kept in the cache")
        engine_runtime, why = choose_engine(self._checkpoint, self._runtime)
        is_simulated = bool(self.get_parameter("use_sim_time").value)
        session = PolicySession.of(self._checkpoint, engine_runtime, is_simulated)
        self._worker = PlanWorker(
            lambda: self.load(self._checkpoint, engine_runtime), self._plan_arrived.trigger
        )
        check_weights(self._checkpoint, session.weights_sha256)  # a training may have replaced them meanwhile
        engine = f"{engine_runtime.engine} {engine_runtime.precision}"
        if "was not taken" in why:  # two lines: the logger refuses another severity from the same line
            self.get_logger().warning(f"engine {engine}: {why}")
        else:
            self.get_logger().info(f"engine {engine}: {why}")
        self._controller = Controller(self._policy, self._runtime, self._worker)
        self._controller.commander.is_reset_by_time = is_simulated
        self._lockstep = self._runtime.mode == "lockstep"
        self._steady_time = self.control_time(is_lockstep=self._lockstep)
        self._create_interface()
        to_stamp = self._steady_time.to_stamp
        self._ticks = PolicyTicks(self.add_publisher, self._controller, self._streams, session, to_stamp)
        self._drawing = PlanDrawing(self, self._streams, self._policy, self._runtime, self._worker, to_stamp)
        self._instruction = InstructionInput.of(
            self, self._checkpoint, self._served.instruction, self._instruct, self._lockstep
        )
        ood, has_scores = self._controller.commander.ood, OOD in session.sha256
        self._report = PolicyReport(self, self._streams, ood, has_scores, to_stamp)
        self._status = PolicyStatus(session, self._controller, self._inputs, self._report, self._instruction)
        self._decided_ns = -1
        self._answer: Command | None = None
        self.get_logger().info(
            f"{self._checkpoint}: {self._policy.network}, cameras {', '.join(self._policy.encoder.cameras)}, "
            f"{self._runtime.mode}{self._commands.summary}"
        )
        return TransitionCallbackReturn.SUCCESS

    def load(self, checkpoint: str, runtime: RuntimeConfig) -> Engine:
        """The engine of the plans, loaded on the thread that calls it."""
        return load_engine(checkpoint, runtime)

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        if stopped := self._emergency_stop.message:
            raise ConfigError(f"{stopped}: release it first")
        if not self._lockstep and not self.is_starting and (missing := self._not_ready()):
            raise ConfigError(f"not ready: {'; '.join(missing)}")
        self._controller.reset()
        self._ticks.add("begin")
        self._inputs.clear()
        self._inputs.is_heard = True
        self._status.opening = None
        self._report.begin()
        self._drawing.begin()
        self._decided_ns, self._answer, self._active = -1, None, True
        self._commands.begin(self._controller.dt_ns / 1e9)
        if not self._lockstep:
            gc.collect()
            gc.freeze()  # a later full collection takes 50 ms, four ticks, with all that is loaded
            self.add_priority(self._runtime.realtime_priority)
            self._command_timer, period_s = CommandTimer(), self._controller.period_ns / 1e9
            self._timer = self.add_timer(period_s, self._on_period, self.control_clock())
            if self._runtime.heartbeat_hz:
                self.add_timer(1.0 / self._runtime.heartbeat_hz, self._commands.beat)
        return super().on_activate(state)

    def _not_ready(self) -> list[str]:
        """Reasons why the robot may not be commanded now; empty if its input is fresh, in time and within the limits.

        A node that starts itself waits for its input instead.
        """
        if without_time := self.without_time():
            return [without_time]
        now_ns = self._steady_time.now_ns()
        self._streams.refuse_future(now_ns)
        selection = self._streams.select(now_ns)
        if self._inputs.bad or selection is None:
            return self._inputs.missing(now_ns)
        return list(filter(None, [self._controller.why_not_begin(to_frame(selection))]))

    def stop(self) -> None:
        """End the commands with a hold, which takes as long as the limits of acceleration demand."""
        if not self._active:
            return
        self._active = False
        self._inputs.is_heard = not self._lockstep
        if not self._lockstep:  # else nothing moves without an answer
            brake(self, self._steady_time, self._controller.period_ns, self._hold, self._commands.beat)
            self._commands.end()
        self._report.end()

    def release(self) -> None:
        if self._worker is not None:  # `ros2 launch` kills a process that takes longer than 5 s to end
            self._worker.close(timeout_s=2.0)
            self._worker = None

    def _create_interface(self) -> None:
        subscribe, publish = self.add_subscription, self.add_publisher
        self._inputs = PolicyInputs(
            self._policy.encoder,
            self._runtime,
            subscribe,
            self._on_sample,
            self._on_refused,
            self._topics,
            self._steady_time.from_stamp,
        )
        self._inputs.is_heard, self._streams = not self._lockstep, self._inputs.streams
        self._commands = PolicyCommands(self, self._runtime, self._gripper)
        self._ages_publisher = publish(JointState, "policy/ages", qos.RELIABLE)
        self._emergency_stop.listen()
        self.add_service(Trigger, "policy/stop", self._on_stop)
        self.single = tuple(map(self.resolved, self._inputs.single))
        self.add_diagnostics(
            lambda: self._status(self._active, self._steady_time.now_ns(), self.without_time())
        )

    # ---- what arrives ----------------------------------------------------------------------------------

    def _on_sample(self, stamp_ns: int, source: str) -> None:
        if not self._active:
            return
        answer = self._answer
        if answer is not None and answer.stamp_ns == stamp_ns and source == self._policy.encoder.cameras[-1]:
            self._publish_command(answer)  # the bridge asks again: it did not get the answer
        else:
            self._tick_lockstep(stamp_ns)

    def _on_refused(self, why: str, is_damaged: bool) -> None:
        if self._active and self._report.verdict is None and not is_damaged:
            self.fatal = why  # a wrong set-up must not start at all
        if self._active:
            self.get_logger().error(why)

    def _on_emergency_stop(self) -> None:
        then = "release it, then deactivate and activate"
        if self._active:
            self._controller.commander.stopped = f"{self._emergency_stop.message}; {then}"

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._controller.commander.stopped = "stopped by the service policy/stop: deactivate and activate"
        response.success, response.message = self._active, "" if self._active else "not active"
        return response

    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        """Take new limits and an instruction, all or none; while the arm may move, tighter limits only."""
        try:
            gate = changed_config(self._runtime.gate, "gate", parameters)
            if loose := self._runtime.gate.loosened(gate) if self._active else []:
                names = ", ".join(f"gate.{name}" for name in loose)
                raise ConfigError(f"{names}: loosened only while inactive: deactivate first")
            sentence = sentence_in(parameters)
            if self._worker is not None and sentence is not None:
                say(self._instruction, sentence, self._checkpoint)
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if sentence is not None:
            self._served = self._served.model_copy(update={"instruction": sentence})
        self._runtime = self._runtime.model_copy(update={"gate": gate})
        if self._worker is not None:
            self._controller.commander.limit(gate)
            self._inputs.limit(gate)
            self._drawing.gate = gate
            self._ticks.add("gate")
        return SetParametersResult(successful=True)

    def _instruct(self, embedding: NDArray[np.float32] | None) -> None:
        self._controller.instruct(embedding)
        self._ticks.add("instruct")

    def control_rate_hz(self) -> float | None:
        try:
            return policy_config(find_checkpoint(self._served.checkpoint)).rate_hz
        except UserError:
            return None

    # ---- what is decided -------------------------------------------------------------------------------

    def _tick_lockstep(self, stamp_ns: int) -> None:
        """Answer the observation stamped `stamp_ns` once all of it is there."""
        if not self._lockstep or stamp_ns == self._decided_ns:
            return
        selection = self._streams.select(stamp_ns)
        if selection is None:
            return
        is_taken = self._observe(selection)
        self._inputs.health.tick(selection)
        self._ticks.see(None, selection)
        if not is_taken:
            self._ticks.frame(stamp_ns)
            return
        self._decided_ns = stamp_ns
        self._publish_ages(selection)
        self._decide(stamp_ns)

    def _on_period(self) -> None:
        """One command: of a tick, or of a time between two ticks."""
        if not self._active:
            return
        now_ns = self._steady_time.now_ns()
        if not self._controller.is_between(now_ns):
            self._tick_realtime(now_ns)
            return
        command = self._controller.between(now_ns)
        self._ticks.add("between", now_ns)
        if command is not None:
            self._publish_command(command)

    def _tick_realtime(self, now_ns: int) -> None:
        passed_ns = self._controller.period_ns - self._timer.time_until_next_call()
        self._command_timer.begin(now_ns, max(0, passed_ns) / 1e9)
        pose = self._measure(now_ns)
        selection = self._streams.select(now_ns)
        is_taken = selection is not None and self._observe(selection)
        self._inputs.health.tick(selection)
        self._ticks.see(pose, selection)
        self._decide(now_ns)
        if is_taken and selection is not None:
            self._publish_ages(selection)

    def _measure(self, now_ns: int) -> Sample[NDArray[np.float64]] | None:
        """Give the newest pose to the watchdogs, also where no frame is complete; that pose."""
        self._streams.refuse_future(now_ns)
        pose = self._streams.ee_pose.at(now_ns)
        if pose is not None:
            self._controller.commander.measure(pose.stamp_ns, pose.value)
        return pose

    def _hold(self, now_ns: int) -> bool:
        """Publish the next command of a stop; whether more of them are needed."""
        commander = self._controller.commander
        commander.rival = self._commands.rival()
        self._ticks.see(self._measure(now_ns), None)
        if (hold := self._controller.hold(now_ns)) is None:
            return False
        self._ticks.hold(now_ns)
        self._publish_command(hold)
        return commander.is_moving

    def _observe(self, selection: Selection) -> bool:
        refused_before = self._controller.refused
        frame = to_frame(selection)
        is_taken = self._controller.observe(frame)
        if is_taken:
            self._status.opening = frame.gripper
        if self._controller.refused and not refused_before:
            self.get_logger().error(self._controller.refused)
        return is_taken

    def _publish_ages(self, selection: Selection) -> None:
        names = tuple(self._streams.streams())
        message = conversions.selection_to_ages(selection, names)
        message.header.stamp = conversions.ns_to_stamp(self._steady_time.to_stamp(selection.stamp_ns))
        self._ages_publisher.publish(message)

    def _on_plan(self) -> None:
        if self._active and self._lockstep:
            self._decide(self._decided_ns)

    def _decide(self, now_ns: int) -> None:
        self._controller.commander.rival = self._commands.rival()
        decision = self._controller.tick(now_ns)
        self._ticks.tick(now_ns, decision)
        if decision is None:
            return
        if not decision.is_silent:
            self._publish_command(decision.command)
        self._report.add(decision, None if self._lockstep else self._command_timer.end(decision))
        self._drawing.add(decision, self._report.text, self._inputs.poses.frame_id)

    def _publish_command(self, command: Command) -> None:
        """Publish it, unless this process hung since it was decided."""
        self._answer = command if self._lockstep else None
        if self._commands.is_too_old():
            return
        stamped = replace(command, stamp_ns=self._steady_time.to_stamp(command.stamp_ns))
        self._commands.publish(stamped, self._inputs.poses.frame_id)


def main() -> None:
    run_process(PolicyNode)


if __name__ == "__main__":
    main()
