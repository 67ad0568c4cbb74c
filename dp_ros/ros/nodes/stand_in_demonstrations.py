"""Scripted demonstrations of the stand-in robot: it commands itself over its topics, as a person would.

The recorder is told on `record/command` when an episode begins and ends. Its publishers of commands end with the last
demonstration, so that a policy then finds the arm free.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from dp_ros.actions import POSITION, gripper_of
from dp_ros.control.safety import Command
from dp_ros.poses import orientation_of
from dp_ros.ros.messages.commands import command_to_messages
from dp_ros.ros.node import qos
from dp_ros.schema import TopicMap
from dp_ros.schema.gripper import GripperCommands
from dp_ros.schema.stand_in import StandInConfig
from dp_ros.sim.stand_in_arm import SPEED_M_S, StandInArm

_FIRST_S = 1.0  # from the first sign of a recorder, or the end of an episode: it hears the sensors by then
_ASK_AGAIN_S = 3.0  # where a recorder that was told to start has not
_KEEP_S = 0.4  # recorded after the success
_LONGEST_S = 20.0
_PACE = 0.5  # of the arm's own speed


class Demonstrations:
    """A number of demonstrations, one after another, driven by `tick`."""

    def __init__(
        self,
        node: Node,
        arm: StandInArm,
        config: StandInConfig,
        topics: TopicMap,
        frame_id: str,
        put_back: Callable[[], None],
    ) -> None:
        """`put_back()` begins a drive to the next start."""
        self._node, self._arm, self._config, self._put_back = node, arm, config, put_back
        self._frame_id = frame_id
        self._gripper = topics.gripper_of(GripperCommands(), "")
        self._words = node.create_publisher(String, "record/command", qos.RELIABLE)
        self._poses = node.create_publisher(PoseStamped, topics.command_pose, qos.RELIABLE)
        self._grippers = node.create_publisher(JointState, topics.command_gripper, qos.RELIABLE)
        self._statuses = node.create_subscription(String, "record/status", self._on_status, qos.LATCHED)
        self._status: dict[str, Any] = {}
        self._done, self._next = 0, self._wait_for_recorder
        self._asked_s = self._began_s = self._commanded_s = -np.inf
        self._ended_s: float | None = None
        node.get_logger().info("demonstrations: waiting for a recorder (record.launch.py, or recorder_node)")

    def tick(self, stamp_ns: int) -> bool:
        """One tick of the robot, whose sensors are stamped `stamp_ns`; whether all demonstrations are over."""
        self._next(time.monotonic(), stamp_ns)
        if self._done < self._config.demonstrations:
            return False
        for publisher in (self._words, self._poses, self._grippers):
            self._node.destroy_publisher(publisher)
        self._node.destroy_subscription(self._statuses)
        self._node.get_logger().info(f"{self._done} demonstrations are recorded; the arm waits for commands")
        return True

    def _on_status(self, msg: String) -> None:
        self._status = json.loads(msg.data)

    # ---- stages, in their order ------------------------------------------------------------------------

    def _wait_for_recorder(self, now_s: float, stamp_ns: int) -> None:
        if self._status.get("state") == "idle" and self._words.get_subscription_count():
            self._put_back()
            self._asked_s, self._next = now_s + _FIRST_S - _ASK_AGAIN_S, self._start

    def _start(self, now_s: float, stamp_ns: int) -> None:
        if self._status.get("state") == "recording":
            self._began_s, self._ended_s, self._next = now_s, None, self._drive
        elif not self._arm.is_homing and now_s - self._asked_s > _ASK_AGAIN_S:
            self._asked_s = now_s
            self._words.publish(String(data="start"))

    def _drive(self, now_s: float, stamp_ns: int) -> None:
        period_s = 1.0 / self._config.command_rate_hz
        if now_s - self._commanded_s < period_s - 0.5 / self._arm.rate_hz:
            return
        self._commanded_s = max(self._commanded_s + period_s, now_s - period_s)
        action = self._arm.expert_target(_PACE * SPEED_M_S * period_s)
        orientation = orientation_of(self._arm.measure()[0])
        command = Command(stamp_ns, POSITION.of(action), float(gripper_of(action)), orientation)
        for publisher, message in zip(
            (self._poses, self._grippers),
            command_to_messages(command, self._frame_id, self._gripper),
            strict=True,
        ):
            publisher.publish(message)
        if self._arm.success and self._ended_s is None:
            self._ended_s = now_s + _KEEP_S
        if now_s > (self._ended_s or np.inf) or now_s - self._began_s > _LONGEST_S:
            self._asked_s, self._next = -np.inf, self._end

    def _end(self, now_s: float, stamp_ns: int) -> None:
        if self._status.get("state") == "idle":
            self._done += self._status.get("outcome") == "success"
            self._next = self._wait_for_recorder
            self._node.get_logger().info(f"demonstration {self._done} of {self._config.demonstrations}")
        elif now_s - self._asked_s > _ASK_AGAIN_S:
            self._asked_s = now_s
            self._words.publish(String(data="success" if self._arm.success else "failure"))
