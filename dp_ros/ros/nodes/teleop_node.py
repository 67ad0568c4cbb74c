"""Teleoperation node: Joy in, commands out, on the topics of a policy. Wiring only."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from geometry_msgs.msg import PoseStamped
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import String

from dp_ros.control.safety import Command
from dp_ros.control.teleop.teleoperation import TeleopDecision, Teleoperation
from dp_ros.ros.messages import conversions
from dp_ros.ros.messages.commands import command_to_messages
from dp_ros.ros.messages.gripper_reader import GripperCommandReader, GripperReader
from dp_ros.ros.messages.pose_reader import PoseReader
from dp_ros.ros.node import qos
from dp_ros.ros.node.diagnostics import ERROR, OK, WARN
from dp_ros.ros.node.emergency_stop import EmergencyStop
from dp_ros.ros.node.managed_node import ManagedNode, reported
from dp_ros.ros.node.node_main import run_process
from dp_ros.ros.node.parameters import read_config
from dp_ros.ros.node.rivals import other_publishers
from dp_ros.schema import TeleopConfig, TopicsFile
from dp_ros.schema.gripper import GripperCommands

OTHER_COMMANDER = "hold_other_commander"  # the verdict while another node may command the arm


class TeleopNode(ManagedNode):
    """`joy`, `ee_pose`, `gripper/state` and `emergency_stop` in; `command/*` and `record/command` out."""

    def __init__(self) -> None:
        super().__init__("teleop_node")
        topics = read_config(self, TopicsFile).read()
        self.names = topics.names()
        self._teleop = Teleoperation(topics.gripper_of(read_config(self, TeleopConfig), self.get_name()))
        self._gripper_commands = topics.gripper_of(read_config(self, GripperCommands), self.get_name())
        self._active = False
        self._emergency_stop = EmergencyStop(self, self._on_emergency_stop)

    # ---- lifecycle -------------------------------------------------------------------------------------

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        publish = self.add_publisher
        self._pose_publisher = publish(PoseStamped, "command/ee_pose", qos.RELIABLE)
        self._gripper_publisher = publish(JointState, "command/gripper", qos.RELIABLE)
        self._verdict_publisher = publish(String, "teleop/verdict", qos.RELIABLE)
        self._event_publisher = publish(String, "record/command", qos.RELIABLE)
        self.add_subscription(Joy, "joy", self._on_joy, qos.JOY)
        self.add_subscription(PoseStamped, "ee_pose", self._on_pose, qos.observations("realtime"))
        self.add_subscription(JointState, "gripper/state", self._on_gripper, qos.observations("realtime"))
        self.add_subscription(JointState, "command/gripper", self._on_gripper_command, qos.RELIABLE)
        self._emergency_stop.listen()
        self.single = (self.resolved("ee_pose"),)
        self.add_diagnostics(self._status)
        self._steady_time = self.control_time()
        self._poses = PoseReader()
        self._openings = GripperReader(self._teleop.config.gripper_joint, self._teleop.config.gripper_range)
        self._heard = _reader(self._gripper_commands)
        self._bad_pose = self._bad_gripper = self._rival = self._said = ""
        self._decision: TeleopDecision | None = None
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._teleop.reset()
        self._poses.clear()
        self._openings.clear()
        self._decision, self._bad_pose, self._rival, self._said, self._active = None, "", "", "", True
        self.add_timer(self._teleop.config.dt_s, self._tick, self.control_clock())
        return super().on_activate(state)

    def stop(self) -> None:
        """End the commands with a hold."""
        if not self._active:
            return
        self._active = False
        hold = self._teleop.hold(self._steady_time.now_ns())
        if hold is not None and not self._find_rival():
            self._publish_command(hold)
            self.wait_until_acked(self._pose_publisher, self._gripper_publisher)

    # ---- what arrives ----------------------------------------------------------------------------------

    def _on_joy(self, msg: Joy) -> None:
        if not self._active:
            return
        stamp_ns = self._steady_time.from_stamp(conversions.stamp_to_ns(msg.header.stamp))
        for event in self._teleop.joy(stamp_ns, msg.axes, msg.buttons, self._steady_time.now_ns()):
            self.get_logger().info(f"episode: {event.value}")
            self._event_publisher.publish(String(data=event.value))

    def _on_pose(self, msg: PoseStamped) -> None:
        if not self._active:
            return
        try:
            pose = self._poses.read(msg)
        except conversions.ConversionError as error:
            if not self._bad_pose:
                self.get_logger().error(str(error))
            self._bad_pose = str(error)
            return
        self._bad_pose = ""
        stamp_ns = self._steady_time.from_stamp(conversions.stamp_to_ns(msg.header.stamp))
        self._teleop.observe(stamp_ns, pose, self._steady_time.now_ns())

    def _on_gripper(self, msg: JointState) -> None:
        try:
            opening = self._openings.read(msg)
        except conversions.ConversionError as error:
            if not self._bad_gripper:
                self.get_logger().warning(f"gripper/state: {error}")
            self._bad_gripper = f"gripper/state: {error}"
            return
        if opening is not None:  # else of other joints
            self._bad_gripper = ""
            self._teleop.observe_opening(opening)

    def _on_gripper_command(self, msg: JointState) -> None:
        """Of any publisher, also while inactive: the first press repeats it."""
        with suppress(conversions.ConversionError):  # it says nothing about the gripper
            if self._heard.is_of_gripper(msg) and (value := self._heard.read(msg)) is not None:
                self._teleop.hear_gripper(value)

    def _on_emergency_stop(self) -> None:
        if self._active:  # at once, not with the next tick
            self._tick()

    # ---- what is decided -------------------------------------------------------------------------------

    def _tick(self) -> None:
        if not self._active:
            return
        self._rival = self._find_rival()
        if self._rival:
            self._teleop.forget()  # the arm follows the other node
        self._teleop.stopped = self._emergency_stop.message
        self._decision = self._teleop.tick(self._steady_time.now_ns())
        if self._decision.command is not None:
            self._publish_command(self._decision.command)
        self._log(self._decision)
        verdict = OTHER_COMMANDER if self._rival else self._decision.verdict.value
        self._verdict_publisher.publish(String(data=verdict))

    def _find_rival(self) -> str:
        """Message about other publishers of commands; empty when there are none."""
        return other_publishers(self, (self._pose_publisher, self._gripper_publisher), "a person drives")

    def control_rate_hz(self) -> float | None:
        return self._teleop.config.rate_hz

    def _publish_command(self, command: Command) -> None:
        stamped = replace(command, stamp_ns=self._steady_time.to_stamp(command.stamp_ns))
        pose, gripper = command_to_messages(stamped, self._poses.frame_id, self._gripper_commands)
        self._pose_publisher.publish(pose)
        if command.gripper is not None:
            self._gripper_publisher.publish(gripper)

    def _log(self, decision: TeleopDecision) -> None:
        """Log each trouble once, until the arm moves again."""
        trouble = f"{decision.verdict.value}: {decision.detail}" if decision.is_trouble else ""
        if self._rival and self._rival != self._said:
            self.get_logger().error(self._rival)
        elif trouble and not self._rival and trouble != self._said:
            self.get_logger().warning(trouble)
        elif decision.moves and self._said:
            self.get_logger().info(f"moving again: {decision.verdict.value}")
        self._said = "" if decision.moves else self._rival or trouble or self._said

    def _status(self) -> tuple[bytes, str, dict[str, str]]:
        decision = self._decision
        values = {"verdict": decision.verdict.value if decision else "none"}
        if not self._active:
            return OK, "inactive", values
        if self._rival:
            return ERROR, self._rival, values | {"verdict": OTHER_COMMANDER}
        if self._bad_pose:
            return ERROR, self._bad_pose, values
        if without_time := self.without_time():
            return WARN, without_time, values
        if decision is None:
            return WARN, "waiting for the first tick", values
        if decision.is_trouble:
            return WARN, f"{decision.verdict.value}: {decision.detail}", values
        if self._bad_gripper:  # the arm can be driven without it
            return WARN, self._bad_gripper, values
        return OK, decision.verdict.value, values


def _reader(gripper: GripperCommands) -> GripperCommandReader:
    joint, field = gripper.command_gripper_joint, gripper.command_gripper_field
    return GripperCommandReader(joint, field, gripper.command_gripper_range)


def main() -> None:
    run_process(TeleopNode)


if __name__ == "__main__":
    main()
