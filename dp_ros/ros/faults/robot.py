"""A robot as a process of its own: it follows the commands late, publishes its sensors, and can be told to fail.

It is driven over its standard input and output, a JSON text a line, so that no fault of the graph reaches that.
"""

from __future__ import annotations

import json
import math
import queue
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from dp_ros.ros.bench.realtime import moving_box
from dp_ros.ros.faults.injector import CAMERA, GRIPPER, POSE, Injector
from dp_ros.ros.messages import conversions, images
from dp_ros.ros.node import qos
from dp_ros.ros.node.scheduling import set_priority
from dp_ros.ros.processes.environment import is_orphan, take_standard_output
from dp_ros.schema import PolicyConfig, RuntimeConfig

RIVAL_FRAME = "another_commander"  # of commands that the robot does not follow, and notes not
POSE_HZ = 80.0
_POSES_PER_PICTURE = 3
_PICTURES = 40  # shown one after the other
_LAG_S = 0.05  # time constant with which the arm follows a command
_DOWN = (0.0, 1.0, 0.0, 0.0)


class Robot(Node):
    """`command/ee_pose` in; cameras, `ee_pose` and `gripper/state` out."""

    def __init__(self, config: PolicyConfig, home_m: list[float], answers: TextIO) -> None:
        super().__init__("dp_ros_faults_robot")
        rng, profile = np.random.default_rng(0), qos.observations("realtime")
        self._cameras = [
            (
                self.create_publisher(Image, f"camera/{camera}/image_raw", profile),
                moving_box(config.encoder.target(camera).size, _PICTURES, rng),
                Injector(CAMERA),
            )
            for camera in config.encoder.cameras
        ]
        self._pose = self.create_publisher(PoseStamped, "ee_pose", profile)
        self._gripper = self.create_publisher(JointState, "gripper/state", profile)
        self._poses, self._openings = Injector(POSE), Injector(GRIPPER)
        self.create_subscription(PoseStamped, "command/ee_pose", self._on_command, qos.RELIABLE_DEEP)
        self._arm_m = np.array(home_m)
        self._target_m = self._arm_m
        self._answers = answers
        self._ticks = 0
        self._last_s = time.monotonic()
        self._heard: list[list[Any]] = []
        self.is_done = False  # the input has ended
        self.orders: queue.Queue[dict[str, Any]] = queue.Queue()
        self.create_timer(1.0 / POSE_HZ, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_command(self, msg: PoseStamped, info: Mapping[str, int]) -> None:
        if msg.header.frame_id == RIVAL_FRAME:
            return
        self._move()
        self._target_m = conversions.pose_to_position(msg)
        stamp_ns = conversions.stamp_to_ns(msg.header.stamp)
        self._heard.append(
            [
                info["received_timestamp"],
                time.time_ns(),
                stamp_ns,
                self._target_m.tolist(),
                self._arm_m.tolist(),
            ]
        )

    def _tick(self) -> None:
        self._obey()
        self._move()
        self._ticks += 1
        now_ns = time.time_ns()
        if self._ticks % _POSES_PER_PICTURE == 0:
            for publisher, pictures, injector in self._cameras:
                picture = pictures[self._ticks // _POSES_PER_PICTURE % len(pictures)]
                self._publish(publisher, injector, images.rgb_to_image(picture, now_ns, "camera"), now_ns)
        pose = conversions.position_to_pose(self._arm_m, _DOWN, now_ns, "base_link")
        self._publish(self._pose, self._poses, pose, now_ns)
        self._publish(self._gripper, self._openings, conversions.gripper_state(1.0, now_ns), now_ns)

    def _move(self) -> None:
        """Move the arm to where it is now: on a busy computer it moves in the time of a late tick, too."""
        now_s = time.monotonic()
        share = 1.0 - math.exp(-(now_s - self._last_s) / _LAG_S)
        self._arm_m = self._arm_m + (self._target_m - self._arm_m) * share
        self._last_s = now_s

    def _publish(self, publisher: Any, injector: Injector, message: Any, now_ns: int) -> None:
        for each in injector.send(message, now_ns):
            publisher.publish(each)

    def _obey(self) -> None:
        """Answer the orders that have come: begin a fault, or give what was heard since the last answer."""
        with suppress(queue.Empty):
            while True:
                order = self.orders.get_nowait()
                if "fault" in order:
                    for injector in (self._poses, self._openings, *(each[2] for each in self._cameras)):
                        injector.begin(order["fault"])
                heard, self._heard = self._heard, []
                print(json.dumps({"now_ns": time.time_ns(), "heard": heard}), file=self._answers)


def main() -> None:
    """Main function of the process. The first line of its input is the policy's config and where the arm begins."""
    answers = take_standard_output()
    config, home_m = json.loads(sys.stdin.readline())
    set_priority(RuntimeConfig().realtime_priority, inherited=True)  # a robot has a computer of its own
    rclpy.init()
    node = Robot(PolicyConfig.model_validate(config), home_m, answers)
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def read() -> None:
        for line in sys.stdin:
            node.orders.put(json.loads(line))
        node.is_done = True

    threading.Thread(target=read, daemon=True).start()
    print(json.dumps({"ready": True}), file=answers)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        while not node.is_done and not is_orphan():
            executor.spin_once(timeout_sec=0.1)


if __name__ == "__main__":
    main()
