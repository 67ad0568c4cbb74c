"""Policy node: callbacks store, the controller decides, one worker infers. Wiring only."""

from __future__ import annotations

import gc
import time

from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from dp_ros.control.controller import Controller
from dp_ros.control.planner import PlanWorker
from dp_ros.control.safety import Command
from dp_ros.control.timing import CommandTimer
from dp_ros.errors import UserError
from dp_ros.inference.engine import Engine, choose_engine, load_engine
from dp_ros.policy.checkpoint_config import policy_config
from dp_ros.policy.checkpoint_folder import find_checkpoint
from dp_ros.ros.messages import conversions
from dp_ros.ros.messages.commands import command_to_messages
from dp_ros.ros.node import qos
from dp_ros.ros.node.diagnostics import ERROR, OK, WARN
from dp_ros.ros.node.managed_node import ManagedNode, reported
from dp_ros.ros.node.node_main import run_process
from dp_ros.ros.node.parameters import changed_config, read_config
from dp_ros.ros.node.rivals import other_publishers
from dp_ros.ros.nodes.plan_drawing import PlanDrawing
from dp_ros.ros.nodes.policy_inputs import PolicyInputs
from dp_ros.ros.nodes.policy_instruction import InstructionInput, say, sentence_in
from dp_ros.ros.nodes.policy_report import PolicyReport
from dp_ros.schema import ConfigError, RuntimeConfig
from dp_ros.schema.nodes import ServedConfig
from dp_ros.streams import Selection, to_frame

_LONGEST_STOP_S = 2.0


class PolicyNode(ManagedNode):
    """Cameras, `ee_pose` and `gripper/state` in; `command/ee_pose` and `command/gripper` out."""

    def __init__(self) -> None:
        super().__init__("policy_node")
        self._served = read_config(self, ServedConfig)
        self._runtime = read_config(self, RuntimeConfig)
        self._worker: PlanWorker | None = None
        self._active = False
        self._stop_asked = ""  # message of the emergency stop; empty while it is released
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
        self._worker = PlanWorker(
            lambda: self.load(self._checkpoint, engine_runtime), self._plan_arrived.trigger
        )
        self._engine = f"{engine_runtime.engine} {engine_runtime.precision}"
        if "was not taken" in why:  # two lines: the logger refuses another severity from the same line
            self.get_logger().warning(f"engine {self._engine}: {why}")
        else:
            self.get_logger().info(f"engine {self._engine}: {why}")
        self._controller = Controller(self._policy, self._runtime, self._worker)
        self._controller.commander.is_reset_by_time = bool(self.get_parameter("use_sim_time").value)
        self._lockstep = self._runtime.mode == "lockstep"
        self._create_interface()
        self._drawing = PlanDrawing(self, self._streams, self._policy.encoder, self._runtime)
        self._instruction = InstructionInput.of(
            self, self._checkpoint, self._served.instruction, self._controller.instruct, self._lockstep
        )
        self._report = PolicyReport(self.add_publisher, self._streams, self.get_logger())
        self._opening: float | None = None  # of the newest frame
        self._decided_ns = -1
        self._answer: Command | None = None
        self.get_logger().info(
            f"{self._checkpoint}: {self._policy.network}, cameras {', '.join(self._policy.encoder.cameras)}, "
            f"{self._runtime.mode}"
        )
        return TransitionCallbackReturn.SUCCESS

    def load(self, checkpoint: str, runtime: RuntimeConfig) -> Engine:
        """The engine of the plans, loaded on the thread that calls it."""
        return load_engine(checkpoint, runtime)

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self._stop_asked:
            raise ConfigError(f"{self._stop_asked}: release it first")
        if not self._lockstep and not self.is_starting and (missing := self._not_ready()):
            raise ConfigError(f"not ready: {'; '.join(missing)}")
        self._controller.reset()
        self._inputs.clear()
        self._inputs.is_heard = True
        self._opening = None
        self._report.begin()
        self._drawing.begin()
        self._decided_ns, self._answer, self._active = -1, None, True
        if not self._lockstep:
            gc.collect()
            gc.freeze()  # a later full collection takes 50 ms, four ticks, with all that is loaded
            self.add_priority(self._runtime.realtime_priority)
            period_s = self._controller.period_ns / 1e9
            self._command_timer = CommandTimer()
            self._timer = self.add_timer(period_s, self._on_period, self.control_clock())
            if self._runtime.heartbeat_hz:
                self.add_timer(1.0 / self._runtime.heartbeat_hz, self._beat)
        return super().on_activate(state)

    def _not_ready(self) -> list[str]:
        """Reasons why the robot may not be commanded now; empty if its input is fresh, in time and within the limits.

        A node that starts itself waits for its input instead.
        """
        if without_time := self.without_time():
            return [without_time]
        now_ns = self.get_clock().now().nanoseconds
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
        self._report.end()
        if self._lockstep:  # nothing moves without an answer
            return
        deadline_s = time.monotonic() + _LONGEST_STOP_S
        while (hold := self._controller.hold(self.get_clock().now().nanoseconds)) is not None:
            self._publish_command(hold)
            self._beat()
            if not self._controller.commander.is_moving or time.monotonic() > deadline_s:
                break
            time.sleep(self._controller.period_ns / 1e9)
        if self._runtime.heartbeat_hz:
            self._heart.publish(Bool(data=False))
        self.wait_until_acked(self._pose_publisher, self._gripper_publisher, self._heart)

    def release(self) -> None:
        if self._worker is not None:
            self._worker.close(
                timeout_s=2.0
            )  # `ros2 launch` kills a process that takes longer than 5 s to end
            self._worker = None

    def _create_interface(self) -> None:
        subscribe, publish = self.add_subscription, self.add_publisher
        self._inputs = PolicyInputs(
            self._policy.encoder, self._runtime, subscribe, self._on_sample, self._on_refused
        )
        self._inputs.is_heard, self._streams = not self._lockstep, self._inputs.streams
        self._pose_publisher = publish(PoseStamped, "command/ee_pose", qos.RELIABLE)
        self._gripper_publisher = publish(JointState, "command/gripper", qos.RELIABLE)
        self._ages_publisher = publish(JointState, "policy/ages", qos.RELIABLE)
        self._heart = publish(Bool, "policy/heartbeat", qos.RELIABLE)
        subscribe(Bool, "emergency_stop", self._on_emergency_stop, qos.LATCHED)
        subscribe(Bool, "emergency_stop", self._on_emergency_stop, qos.RELIABLE)  # if it is not latched
        self.add_service(Trigger, "policy/stop", self._on_stop)
        self.single = tuple(map(self.resolve_topic_name, self._inputs.single))
        self.add_diagnostics(self._status)

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

    def _on_emergency_stop(self, msg: Bool) -> None:
        self._stop_asked = "emergency stop on the topic emergency_stop" if msg.data else ""
        if self._stop_asked and self._active:
            self._controller.commander.stopped = (
                f"{self._stop_asked}; release it, then deactivate and activate"
            )

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
        return SetParametersResult(successful=True)

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
        if selection is not None and self._observe(selection):
            self._decided_ns = stamp_ns
            self._publish_ages(selection)
            self._decide(stamp_ns)

    def _beat(self) -> None:
        """Tell a watchdog that this thread, which makes the commands, is alive."""
        if self._runtime.heartbeat_hz:
            self._heart.publish(Bool(data=True))

    def _on_period(self) -> None:
        """One command: of a tick, or of a time between two ticks."""
        if not self._active:
            return
        now_ns = self.get_clock().now().nanoseconds
        if not self._controller.is_between(now_ns):
            self._tick_realtime(now_ns)
        elif (command := self._controller.between(now_ns)) is not None:
            self._publish_command(command)

    def _tick_realtime(self, now_ns: int) -> None:
        passed_ns = self._controller.period_ns - self._timer.time_until_next_call()
        self._command_timer.begin(now_ns, max(0, passed_ns) / 1e9)
        self._streams.refuse_future(now_ns)
        if (pose := self._streams.ee_pose.at(now_ns)) is not None:
            self._controller.commander.measure(pose.stamp_ns, pose.value)
        selection = self._streams.select(now_ns)
        is_taken = selection is not None and self._observe(selection)
        self._decide(now_ns)
        if is_taken and selection is not None:
            self._publish_ages(selection)

    def _observe(self, selection: Selection) -> bool:
        refused_before = self._controller.refused
        frame = to_frame(selection)
        is_taken = self._controller.observe(frame)
        if is_taken:
            self._opening = frame.gripper
        if self._controller.refused and not refused_before:
            self.get_logger().error(self._controller.refused)
        return is_taken

    def _publish_ages(self, selection: Selection) -> None:
        names = tuple(self._streams.streams())
        self._ages_publisher.publish(conversions.selection_to_ages(selection, names))

    def _on_plan(self) -> None:
        if self._active and self._lockstep:
            self._decide(self._decided_ns)

    def _decide(self, now_ns: int) -> None:
        publishers = self._pose_publisher, self._gripper_publisher
        self._controller.commander.rival = other_publishers(self, publishers, "the policy drives")
        decision = self._controller.tick(now_ns)
        if decision is None:
            return
        if not decision.is_silent:
            self._publish_command(decision.command)
        self._report.add(decision, None if self._lockstep else self._command_timer.end(decision))
        self._drawing.add(decision, self._report.text, self._inputs.poses.frame_id)

    def _publish_command(self, command: Command) -> None:
        self._answer = command if self._lockstep else None
        pose, gripper = command_to_messages(command, self._inputs.poses.frame_id)
        self._pose_publisher.publish(pose)
        if (
            command.gripper is not None or self._lockstep
        ):  # in lockstep the simulated arm waits for both messages
            self._gripper_publisher.publish(gripper)

    def _status(self) -> tuple[bytes, str, dict[str, str]]:
        values = {
            "checkpoint": self._checkpoint,
            "mode": self._runtime.mode,
            "engine": self._engine,
            **({"instruction": self._instruction.text or "none"} if self._instruction else {}),
            **self._report.values(),
            "gripper_opening": "none" if self._opening is None else f"{self._opening:.3f}",
        }
        if self._inputs.bad:
            return ERROR, "; ".join(self._inputs.bad.values()), values
        if not self._active:
            return OK, "inactive", values
        if not self._lockstep and (without_time := self.without_time()):
            return WARN, without_time, values
        verdict = self._report.verdict
        if self._instruction and self._instruction.problem:
            return WARN, self._instruction.problem, values
        if verdict is None:
            now_ns = self.get_clock().now().nanoseconds
            waiting = self._streams.missing(now_ns) if not self._lockstep else []
            why = self._controller.refused or "waiting for the first observation: " + "; ".join(waiting)
            return WARN, why, values
        return (WARN if verdict.holds else OK), self._report.text, values


def main() -> None:
    run_process(PolicyNode)


if __name__ == "__main__":
    main()
