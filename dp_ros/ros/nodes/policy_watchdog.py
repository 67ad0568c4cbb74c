"""Watchdog node: stops the arm when the process of the policy dies or hangs. Small, without torch, at high priority."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import qos_profile_sensor_data
from rclpy.timer import Timer
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from dp_ros.control.followed import LAG_S
from dp_ros.control.heartbeat import Guard, Heartbeat
from dp_ros.poses import angle_rad, orientation_of
from dp_ros.ros.messages.conversions import ConversionError, pose_to_position, pose_to_vector
from dp_ros.ros.node import qos
from dp_ros.ros.node.node_main import run_process
from dp_ros.ros.node.parameters import read_config
from dp_ros.ros.node.scheduling import set_priority
from dp_ros.schema import ConfigError, TopicsFile, WatchdogConfig

_PRIORITY = 1  # of real-time scheduling; every busy process of normal priority gives way


class PolicyWatchdog(Node):
    """`policy/heartbeat` and the commands in. After the heartbeat of an active policy has ended: commands out.

    A policy that goes on hears in `watchdog/status` that the watchdog holds, and is silent until it has handed back.
    The publisher of commands exists only while the watchdog commands, so that whoever drives sees another commander.
    """

    def __init__(self) -> None:
        super().__init__("policy_watchdog")
        self.fatal: str | None = None
        self._config = read_config(self, WatchdogConfig)
        self._names = read_config(self, TopicsFile).read().names()
        self._heartbeat = Heartbeat(self._config)
        self._pose: PoseStamped | None = None  # last command heard
        self._gripper: JointState | None = None
        self._pose_s = self._gripper_s = 0.0
        self._recent: deque[tuple[float, PoseStamped]] = deque()  # commands of the last LAG_S, when heard
        self._measured_s = 0.0  # time of the newest measured pose, or of the takeover
        self._repeated: list[tuple[Publisher, Any]] = []  # with the message that each repeats
        self._sending: Timer | None = None
        self._measured: Any = None  # subscription of the measured pose
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._status = self.create_publisher(String, "watchdog/status", qos.LATCHED)
        self._beats = self.create_subscription(Bool, "policy/heartbeat", self._on_beat, qos.RELIABLE)
        self.create_subscription(PoseStamped, self._name("command/ee_pose"), self._on_pose, qos.RELIABLE)
        self.create_subscription(JointState, self._name("command/gripper"), self._on_gripper, qos.RELIABLE)
        self.create_service(Trigger, "watchdog/release", self._on_release)
        self._expiry: Timer | None = None
        self._twist: Publisher | None = None
        if self._config.action == "twist":  # nobody else publishes it, so it can be known to the robot before
            self._twist = self.create_publisher(TwistStamped, "command/twist", qos.RELIABLE)
        self._said: Guard | None = None
        self._say(f"{Guard.WAITING}: no policy is active")

    def close(self) -> None:
        """End; the arm is on its own again."""
        if self._heartbeat.guard is Guard.HOLDING:
            self.get_logger().warning("ends while it commands: nobody holds the arm now")

    # ---- what arrives ----------------------------------------------------------------------------------

    def _on_beat(self, msg: Bool) -> None:
        before = self._heartbeat.guard
        is_back = self._heartbeat.beat(time.monotonic(), bool(msg.data))
        self._watch_for(self._config.timeout_s)
        if is_back:
            self._hand_back(f"the heartbeat is back for {self._config.recover_s:g} s")
        elif self._heartbeat.guard is not before:
            is_watching = self._heartbeat.guard is Guard.WATCHING
            self._say(f"{self._heartbeat.guard}: the policy is {'active' if is_watching else 'inactive'}")

    def _on_pose(self, msg: PoseStamped) -> None:
        if self._heartbeat.guard is not Guard.HOLDING:  # else it hears itself
            self._pose, self._pose_s = msg, time.monotonic()
            self._recent.append((self._pose_s, msg))
            while self._pose_s - self._recent[0][0] > LAG_S:
                self._recent.popleft()

    def _on_gripper(self, msg: JointState) -> None:
        if self._heartbeat.guard is not Guard.HOLDING and (msg.effort or msg.position):
            self._gripper, self._gripper_s = msg, time.monotonic()

    def _on_release(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.message = self._heartbeat.release(time.monotonic())
        response.success = not response.message
        if response.success:
            self._hand_back("watchdog/release was called")
        return response

    # ---- taking over -----------------------------------------------------------------------------------

    def _watch_for(self, seconds: float) -> None:
        """Call `_expire` once nothing is heard for so long."""
        if self._heartbeat.guard is not Guard.WATCHING:
            if self._expiry is not None:
                self._expiry.cancel()
            return
        if self._expiry is None:
            self._expiry = self.create_timer(seconds, self._expire, clock=self._steady)
        self._expiry.timer_period_ns = round(seconds * 1e9)
        self._expiry.reset()

    def _expire(self) -> None:
        now_s = time.monotonic()
        if wait_s := self._heartbeat.expire(now_s):
            self._watch_for(wait_s)
            return
        assert self._expiry is not None
        self._expiry.cancel()
        self._take_over()
        beaten_s = self._heartbeat.beaten_s or now_s
        silent = f"the policy is dead or hangs: no heartbeat for {(now_s - beaten_s) * 1e3:.0f} ms"
        self._say(f"{Guard.HOLDING}: {silent}; {self._what()}", is_alarm=True)

    def _what(self) -> str:
        """Description of the published commands, for the log."""
        if self._twist is not None:
            return f"{self._twist.topic_name} of 0 is published"
        if self._repeated:
            return "its last command is repeated"
        if self._others:
            return (
                f"nothing is commanded, because another node publishes {self._name('command/ee_pose')}, too"
            )
        if self._pose is None:
            return "nothing is commanded, because no command was heard"
        return f"nothing is commanded, because its last command came {self._command_age_s:.2f} s before that"

    @property
    def _others(self) -> bool:
        """Whether a node besides the policy may command the arm.

        The middleware knows dead policies for some 20 s, so there may be several: they all have a heartbeat.
        """
        commanders = self._nodes_with(self.resolve_topic_name(self._name("command/ee_pose")))
        return bool(commanders - self._nodes_with(self._beats.topic_name))

    def _nodes_with(self, topic: str) -> set[tuple[str, str]]:
        """Namespaces and names of the nodes that publish a topic."""
        return {(info.node_namespace, info.node_name) for info in self.get_publishers_info_by_topic(topic)}

    @property
    def _command_age_s(self) -> float:
        """Age of the last command at the last beat."""
        return (self._heartbeat.beaten_s or 0.0) - self._pose_s

    def _take_over(self) -> None:
        if self._twist is not None:
            twist = TwistStamped()
            twist.header.frame_id = self._pose.header.frame_id if self._pose is not None else ""
            self._repeated = [(self._twist, twist)]
        elif self._others:
            return
        elif self._pose is not None and self._command_age_s <= self._config.max_command_age_s:
            self._repeated = [(self._commander(PoseStamped, "command/ee_pose"), self._pose)]
            if self._gripper is not None and self._pose_s - self._gripper_s <= self._config.max_command_age_s:
                self._repeated.append((self._commander(JointState, "command/gripper"), self._gripper))
            self._measured_s = time.monotonic()
            self._measured = self.create_subscription(
                PoseStamped, self._name("ee_pose"), self._on_measured, qos_profile_sensor_data
            )
        if self._repeated:
            self._send()
            self._sending = self.create_timer(1.0 / self._config.rate_hz, self._send, clock=self._steady)

    def _commander(self, kind: type, topic: str) -> Publisher:
        return self.create_publisher(kind, self._name(topic), qos.RELIABLE)

    def _name(self, topic: str) -> str:
        """The robot's name of one of our topics (topics_file)."""
        return self._names.get(topic, topic)

    def _send(self) -> None:
        most, unknown_s = self._config.max_pose_age_s, time.monotonic() - self._measured_s
        if self._measured is not None and most and unknown_s > most:
            self._give_up(f"no pose of the arm for {unknown_s:.2f} s, more than max_pose_age_s {most:g}")
        stamp = self.get_clock().now().to_msg()
        for publisher, message in self._repeated:
            message.header.stamp = stamp
            publisher.publish(message)

    def _on_measured(self, msg: PoseStamped) -> None:
        """A robot that was moved, turned, or restarted elsewhere, must not leap to the last command."""
        if self._pose is None or not self._repeated:
            return
        with suppress(ConversionError):
            measured_m, now_s = pose_to_position(msg), time.monotonic()
            self._measured_s, most = now_s, self._config.max_distance_m
            commands = [self._pose, *(command for at_s, command in self._recent if now_s - at_s <= LAG_S)]
            distance_m = min(math.dist(measured_m, pose_to_position(command)) for command in commands)
            if most and not distance_m <= most:
                self._give_up(
                    f"the arm is measured {distance_m:.3f} m from the last command, more than max_distance_m {most:g}"
                )
                return
            commanded, measured = (orientation_of(pose_to_vector(each)) for each in (self._pose, msg))
            turn_rad, most_rad = angle_rad(commanded, measured), self._config.max_turn_rad
            if not turn_rad <= most_rad:
                self._give_up(
                    f"the tool is measured {turn_rad:.2f} rad from the commanded orientation, more than max_turn_rad "
                    f"{most_rad:g}"
                )

    def _give_up(self, why: str) -> None:
        """Command no more until the policy drives again."""
        self._stop_sending()
        self._say(f"{Guard.HOLDING}: nothing is commanded any more: {why}", is_alarm=True)

    # ---- handing back ----------------------------------------------------------------------------------

    def _stop_sending(self) -> None:
        """Destroy what was made to command."""
        if self._sending is not None:
            self.destroy_timer(self._sending)
        for publisher, _ in self._repeated:
            if publisher is not self._twist:
                self.destroy_publisher(publisher)
        if self._measured is not None:
            self.destroy_subscription(self._measured)
        self._sending, self._repeated, self._measured = None, [], None

    def _hand_back(self, why: str) -> None:
        self._stop_sending()
        self._watch_for(self._config.timeout_s)
        self._say(f"{self._heartbeat.guard}: handed back to the policy: {why}", is_alarm=True)

    def _say(self, text: str, is_alarm: bool = False) -> None:
        self._status.publish(String(data=text))
        if is_alarm:
            self.get_logger().warning(text)
        else:  # on a line of its own: the logger refuses another severity from the same line
            self.get_logger().info(text)


def main(args: Sequence[str] | None = None) -> None:
    """Main function; `args` in place of the process's own. ConfigError where an argument is not for ROS."""
    if unknown := remove_ros_args(args) if args else []:
        raise ConfigError(f"{' '.join(unknown)}: give parameters and remappings after --ros-args")
    refused = set_priority(_PRIORITY, inherited=True)  # before ROS makes its threads

    def make_node() -> PolicyWatchdog:
        node = PolicyWatchdog()
        if refused:
            node.get_logger().warning(
                f"runs at normal priority, and may be late on a busy computer: {refused}"
            )
        return node

    run_process(make_node, args)


if __name__ == "__main__":
    main()
