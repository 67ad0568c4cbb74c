"""Policy node: callbacks store, the controller decides, one worker infers. Wiring only."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64, String
from visualization_msgs.msg import MarkerArray

from dp_ros.control.controller import Controller, PolicyDecision
from dp_ros.control.planner import PlanWorker
from dp_ros.control.safety import Command, Verdict
from dp_ros.control.timing import CommandTimer, CommandTimes
from dp_ros.inference.engine import choose_engine, load_engine
from dp_ros.pictures import ImageSizeError, side_by_side
from dp_ros.policy.checkpoint_config import policy_config
from dp_ros.policy.checkpoint_folder import find_checkpoint
from dp_ros.ros.messages import conversions, images
from dp_ros.ros.messages.commands import command_to_messages
from dp_ros.ros.messages.gripper_reader import GripperReader
from dp_ros.ros.messages.markers import chunk_to_path, plan_markers
from dp_ros.ros.messages.pose_reader import PoseReader
from dp_ros.ros.node import qos
from dp_ros.ros.node.diagnostics import ERROR, OK, WARN
from dp_ros.ros.node.managed_node import ManagedNode, reported
from dp_ros.ros.node.node_main import run_process
from dp_ros.ros.node.parameters import read_config
from dp_ros.schema import RuntimeConfig
from dp_ros.schema.nodes import ServedConfig
from dp_ros.streams import FrameAssembler, Selection, to_frame


class PolicyNode(ManagedNode):
    """Cameras, `ee_pose` and `gripper/state` in; `command/ee_pose` and `command/gripper` out."""

    def __init__(self) -> None:
        super().__init__("policy_node")
        self._served = read_config(self, ServedConfig)
        self._runtime = read_config(self, RuntimeConfig)
        self._worker: PlanWorker | None = None
        self._active = False

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
            lambda: load_engine(self._checkpoint, engine_runtime), self._plan_arrived.trigger
        )
        self._engine = f"{engine_runtime.engine} {engine_runtime.precision}"
        log = self.get_logger()
        (log.warning if "was not taken" in why else log.info)(f"engine {self._engine}: {why}")
        self._controller = Controller(self._policy, self._runtime, self._worker)
        self._lockstep = self._runtime.mode == "lockstep"
        max_age_ns = 0 if self._lockstep else round(self._runtime.gate.max_obs_age_s * 1e9)
        self._streams = FrameAssembler(self._policy.encoder.cameras, max_age_ns)
        self._create_interface()
        self._poses = PoseReader()
        self._openings = GripperReader(self._runtime.gripper_joint, self._runtime.gripper_range)
        self._opening: float | None = None  # of the newest frame
        self._bad_inputs: dict[str, str] = {}  # source -> why its newest message was refused
        self._decided_ns = -1
        self._answer: Command | None = None
        self._verdict: Verdict | None = None
        self._detail = ""
        self._plans_s: deque[float] = deque(maxlen=500)
        self._times: deque[CommandTimes] = deque(maxlen=500)
        self.get_logger().info(
            f"{self._checkpoint}: {self._policy.network}, cameras {', '.join(self._policy.encoder.cameras)}, "
            f"{self._runtime.mode}"
        )
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._controller.reset()
        self._streams.clear()
        self._poses.clear()
        self._openings.clear()
        self._bad_inputs.clear()
        self._opening = None
        self._decided_ns, self._answer, self._verdict, self._active = -1, None, None, True
        if not self._lockstep:
            gc.collect()
            gc.freeze()  # a later full collection takes 50 ms, four ticks, with all that is loaded
            self.add_priority(self._runtime.realtime_priority)
            period_s = self._controller.period_ns / 1e9
            self._command_timer = CommandTimer()
            self._timer = self.add_timer(period_s, self._on_period, self.control_clock())
        return super().on_activate(state)

    def stop(self) -> None:
        """End the commands with a hold."""
        if not self._active:
            return
        self._active = False
        hold = self._controller.hold(self.get_clock().now().nanoseconds)
        if hold is not None and not self._lockstep:  # in lockstep nothing moves without an answer
            self._publish_command(hold)
            self.wait_until_acked(self._pose_publisher, self._gripper_publisher)

    def release(self) -> None:
        if self._worker is not None:
            self._worker.close(
                timeout_s=2.0
            )  # `ros2 launch` kills a process that takes longer than 5 s to end
            self._worker = None

    def _create_interface(self) -> None:
        observation = qos.observations(self._runtime.mode)
        suffix, kind = (
            ("", Image) if self._runtime.image_transport == "raw" else ("/compressed", CompressedImage)
        )
        subscribe, publish = self.add_subscription, self.add_publisher
        pictures = {camera: f"camera/{camera}/image_raw{suffix}" for camera in self._policy.encoder.cameras}
        for camera, topic in pictures.items():
            subscribe(kind, topic, self._image_callback(camera), observation)
        subscribe(PoseStamped, "ee_pose", self._on_pose, observation)
        subscribe(JointState, "gripper/state", self._on_gripper, observation)
        self._pose_publisher = publish(PoseStamped, "command/ee_pose", qos.RELIABLE)
        self._gripper_publisher = publish(JointState, "command/gripper", qos.RELIABLE)
        self._verdict_publisher = publish(String, "policy/verdict", qos.RELIABLE)
        self._duration_publisher = publish(Float64, "policy/plan_duration", qos.RELIABLE_DEEP)
        self._ages_publisher = publish(JointState, "policy/ages", qos.RELIABLE)
        self._times_publisher = publish(JointState, "policy/times", qos.RELIABLE_DEEP)
        self._path_publisher = publish(Path, "policy/path", 10)
        self._marker_publisher = publish(MarkerArray, "policy/markers", 10)
        self._view_publisher = publish(Image, "policy/image", 10)
        self.single = tuple(map(self.resolve_topic_name, (*pictures.values(), "ee_pose")))
        self.add_diagnostics(self._status)

    # ---- what arrives ----------------------------------------------------------------------------------

    def _image_callback(self, camera: str) -> Callable[[Any], None]:
        encoder = self._policy.encoder
        target = encoder.target(camera)

        def store(msg: Any) -> None:
            if not self._active:
                return
            try:
                pixels = images.to_picture(msg, camera, target)
            except (conversions.ConversionError, ImageSizeError) as error:
                is_damaged = isinstance(error, images.DamagedImageError)
                if self._verdict is None and not is_damaged:  # a wrong set-up must not start at all
                    self.fatal = str(error)
                self._refuse(camera, str(error))
                return
            self._bad_inputs.pop(camera, None)
            stamp_ns = conversions.stamp_to_ns(msg.header.stamp)
            self._streams.images[camera].put(stamp_ns, pixels)
            if (
                self._answer is not None
                and self._answer.stamp_ns == stamp_ns
                and camera == encoder.cameras[-1]
            ):
                self._publish_command(self._answer)  # the bridge asks again: it did not get the answer
            else:
                self._tick_lockstep(stamp_ns)

        return store

    def _refuse(self, source: str, why: str) -> None:
        """Note a message that cannot be used; logged once, until the source sends a good one."""
        if source not in self._bad_inputs:
            self.get_logger().error(why)
        self._bad_inputs[source] = why

    def _on_pose(self, msg: PoseStamped) -> None:
        if not self._active:
            return
        stamp_ns = conversions.stamp_to_ns(msg.header.stamp)
        try:
            self._streams.ee_pose.put(stamp_ns, self._poses.read(msg))
        except conversions.ConversionError as error:
            self._refuse("ee_pose", str(error))
            return
        self._bad_inputs.pop("ee_pose", None)
        self._tick_lockstep(stamp_ns)

    def _on_gripper(self, msg: JointState) -> None:
        if not self._active:
            return
        stamp_ns = conversions.stamp_to_ns(msg.header.stamp)
        try:
            opening = self._openings.read(msg)
            if opening is None:  # of other joints
                return
            self._streams.gripper.put(stamp_ns, opening)
        except conversions.ConversionError as error:
            self._refuse("gripper/state", f"gripper/state: {error}")
            return
        self._bad_inputs.pop("gripper/state", None)
        self._tick_lockstep(stamp_ns)

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
        decision = self._controller.tick(now_ns)
        if decision is None:
            return
        self._publish_command(decision.command)
        if not self._lockstep:
            self._times.append(times := self._command_timer.end(decision))
            if self._times_publisher.get_subscription_count():
                self._times_publisher.publish(conversions.times_to_message(vars(times), now_ns))
        self._verdict_publisher.publish(String(data=decision.verdict.value))
        if decision.verdict is not self._verdict:
            self._log_verdict(decision)
        self._verdict, self._detail = decision.verdict, decision.detail
        if decision.plan_s is not None:
            self._plans_s.append(decision.plan_s)
            self._duration_publisher.publish(Float64(data=decision.plan_s))
            self._draw(decision)

    def _publish_command(self, command: Command) -> None:
        self._answer = command if self._lockstep else None
        pose, gripper = command_to_messages(command, self._poses.frame_id)
        self._pose_publisher.publish(pose)
        if (
            command.gripper is not None or self._lockstep
        ):  # in lockstep the simulated arm waits for both messages
            self._gripper_publisher.publish(gripper)

    def _draw(self, decision: PolicyDecision) -> None:
        frame_id = self._poses.frame_id
        if decision.chunk is not None and np.isfinite(decision.chunk.actions).all():
            if self._path_publisher.get_subscription_count():
                path = chunk_to_path(decision.chunk, decision.command.orientation, frame_id)
                self._path_publisher.publish(path)
            if self._marker_publisher.get_subscription_count():
                markers = plan_markers(decision.chunk, decision.command, decision.verdict, frame_id)
                self._marker_publisher.publish(markers)
        if self._view_publisher.get_subscription_count():
            newest = [stream.at(decision.command.stamp_ns) for stream in self._streams.images.values()]
            pictures = [sample.value for sample in newest if sample is not None]
            if pictures:
                view = images.rgb_to_image(side_by_side(pictures), decision.command.stamp_ns, frame_id)
                self._view_publisher.publish(view)

    def _log_verdict(self, decision: PolicyDecision) -> None:
        why = decision.detail
        if decision.verdict is Verdict.HOLD_STALE:
            why = "; ".join([why, *self._streams.missing(decision.command.stamp_ns)])
        text = f"{decision.verdict.value}{': ' + why if why else ''}"
        if decision.verdict.holds:
            self.get_logger().warning(text)
        elif self._verdict is not None and self._verdict.holds:
            self.get_logger().info(f"moving again: {text}")

    def _status(self) -> tuple[bytes, str, dict[str, str]]:
        plans = np.percentile(self._plans_s or [0.0], (50, 99)) * 1e3
        overheads = np.percentile([times.overhead for times in self._times] or [0.0], (50, 99)) * 1e3
        values = {
            "checkpoint": self._checkpoint,
            "mode": self._runtime.mode,
            "engine": self._engine,
            "verdict": self._verdict.value if self._verdict else "none",
            "gripper_opening": "none" if self._opening is None else f"{self._opening:.3f}",
            **{f"plan_ms_{p}": f"{ms:.1f}" for p, ms in zip(("p50", "p99"), plans, strict=True)},
            **{f"overhead_ms_{p}": f"{ms:.1f}" for p, ms in zip(("p50", "p99"), overheads, strict=True)},
        }
        if self._bad_inputs:
            return ERROR, "; ".join(self._bad_inputs.values()), values
        if not self._active:
            return OK, "inactive", values
        if not self._lockstep and (without_time := self.without_time()):
            return WARN, without_time, values
        if self._verdict is None:
            now_ns = self.get_clock().now().nanoseconds
            waiting = self._streams.missing(now_ns) if not self._lockstep else []
            why = self._controller.refused or "waiting for the first observation: " + "; ".join(waiting)
            return WARN, why, values
        if self._verdict.holds:
            return WARN, f"{self._verdict.value}: {self._detail}", values
        return OK, self._verdict.value, values


def main() -> None:
    run_process(PolicyNode)


if __name__ == "__main__":
    main()
