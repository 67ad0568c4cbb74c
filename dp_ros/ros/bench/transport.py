"""Benchmark of the round trip over DDS from a picture to its command, without a policy.

This process publishes pictures like a camera. A child process converts each to NumPy and answers with a command of the
same stamp. The round trip ends when pose and gripper have arrived.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from dp_ros.control.safety import Command
from dp_ros.ros.messages import conversions, images
from dp_ros.ros.messages.commands import CommandPairing, command_to_messages
from dp_ros.ros.node import qos
from dp_ros.ros.processes.environment import node_environment
from dp_ros.ros.processes.node_process import SessionError

_CAMERA = "camera/bench/image_raw"


def echo() -> None:
    """Main function of the child process: answer every picture at once."""
    rclpy.init()
    node = Node("dp_ros_bench_echo")
    pose = node.create_publisher(PoseStamped, "command/ee_pose", qos.RELIABLE)
    gripper = node.create_publisher(JointState, "command/gripper", qos.RELIABLE)

    def answer(msg: Image) -> None:
        pixels = images.image_to_rgb(msg)
        gripper_command = float(pixels[0, 0, 0] > 255)
        stamp_ns = conversions.stamp_to_ns(msg.header.stamp)
        command = Command(stamp_ns, np.zeros(3), gripper_command, np.array([0.0, 0.0, 0.0, 1.0]))
        for publisher, message in zip(
            (pose, gripper), command_to_messages(command, "base_link"), strict=True
        ):
            publisher.publish(message)

    node.create_subscription(Image, _CAMERA, answer, qos.RELIABLE)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)


def round_trips_ms(width_px: int, height_px: int, rate_hz: float, count: int) -> dict[str, Any]:
    """Publish `count` pictures at `rate_hz`; p50 and p99 of the round trip, and the number of answers."""
    environment = node_environment()
    os.environ.update({k: v for k, v in environment.items() if "PROFILES" in k or k.startswith("ROS_")})
    other = subprocess.Popen(
        [sys.executable, "-c", "from dp_ros.ros.bench.transport import echo; echo()"],
        env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("dp_ros_bench", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    arrived: dict[int, float] = {}
    pairing = CommandPairing(lambda stamp_ns, _: arrived.setdefault(stamp_ns, time.perf_counter()))
    node.create_subscription(PoseStamped, "command/ee_pose", pairing.pose, qos.RELIABLE)
    node.create_subscription(JointState, "command/gripper", pairing.gripper, qos.RELIABLE)
    camera = node.create_publisher(Image, _CAMERA, qos.RELIABLE)
    picture = np.random.default_rng(0).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)
    sent: dict[int, float] = {}

    def publish(stamp_ns: int) -> None:
        sent[stamp_ns] = time.perf_counter()
        camera.publish(images.rgb_to_image(picture, stamp_ns, "bench"))

    def spin_until(deadline: float) -> None:
        while (left := deadline - time.perf_counter()) > 0:
            executor.spin_once(timeout_sec=left)

    try:
        began = time.perf_counter()
        for warm_up in range(1000):  # until the first answer, when both directions are connected
            publish(warm_up)
            spin_until(time.perf_counter() + 0.05)
            if arrived:
                break
            if time.perf_counter() - began > 30.0 or other.poll() is not None:
                raise SessionError("the answering process did not connect within 30 s")
        first = max(sent) + 1
        for i in range(count):
            publish(first + i)
            spin_until(sent[first + i] + 1.0 / rate_hz)
        spin_until(time.perf_counter() + 0.5)
    finally:
        other.terminate()
        other.wait()
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()
    trips_ms = [1e3 * (arrived[s] - sent[s]) for s in range(first, first + count) if s in arrived]
    return {
        "width_px": width_px,
        "height_px": height_px,
        "rate_hz": rate_hz,
        "sent": count,
        "answered": len(trips_ms),
        "p50_ms": float(np.percentile(trips_ms, 50)) if trips_ms else None,
        "p99_ms": float(np.percentile(trips_ms, 99)) if trips_ms else None,
    }


def bench_transport(seconds: float = 5.0) -> dict[str, Any]:
    """Measure the round trip at three picture sizes: the demo's, the paper's, and a VGA camera's."""
    sizes = ((96, 96, 80.0), (224, 224, 30.0), (640, 480, 30.0))
    return {"transport": [round_trips_ms(w, h, rate, round(seconds * rate)) for w, h, rate in sizes]}
