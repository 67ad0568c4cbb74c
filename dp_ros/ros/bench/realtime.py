"""Benchmark of the policy node in real time: a process that publishes like a robot, and the node in its own process.

The robot stamps pictures when it publishes them, follows the commands, and notes when each has arrived.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rclpy
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from dp_ros.policy.checkpoint_config import policy_config
from dp_ros.ros.messages import conversions, images
from dp_ros.ros.node import qos
from dp_ros.ros.node.scheduling import set_priority
from dp_ros.ros.processes.environment import (
    SESSION_VARIABLE,
    is_orphan,
    node_environment,
    take_standard_output,
)
from dp_ros.ros.processes.node_process import NodeGroup, SessionError, parameters_yaml
from dp_ros.schema import PolicyConfig, RuntimeConfig

_WARM_UP_S = 2.0  # at most, after the first command
_FIRST_COMMAND_S = 120.0
_PICTURES = 40  # of each camera, shown one after the other
_DOWN = (0.0, 1.0, 0.0, 0.0)
_ENDLESS_M = 1e6


def serve_in_real_time(
    checkpoint: Path, runtime: RuntimeConfig, seconds: float, domain_id: int | None = None
) -> dict[str, Any]:
    """Run the policy node for `seconds`; what the robot noted (see `_Robot`), and both processes.

    SessionError where the node does not start or sends no command.
    """
    config = policy_config(checkpoint)
    # What the pictures show has no end, so neither has the way of the arm.
    endless = {"workspace_low_m": (-_ENDLESS_M,) * 3, "workspace_high_m": (_ENDLESS_M,) * 3}
    gate = runtime.gate.model_copy(update=endless)
    parameters = parameters_yaml(
        "/**/policy_node",
        runtime.model_copy(update={"mode": "realtime", "gate": gate}),
        autostart=True,
        checkpoint=str(checkpoint.resolve()),
        use_sim_time=False,
        mode="realtime",
    )
    with NodeGroup({"policy_node": parameters}, domain_id, client="dp_ros_bench") as session:
        session.refuse_others(("command/ee_pose", "ee_pose"))
        (node,) = session.processes
        robot = subprocess.Popen(
            [sys.executable, "-c", "from dp_ros.ros.bench.realtime import robot; robot()"],
            env={**node_environment(domain_id), SESSION_VARIABLE: str(os.getpid())},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert robot.stdin is not None
            assert robot.stdout is not None
            robot.stdin.write(json.dumps([config.model_dump(mode="json"), seconds]) + "\n")
            robot.stdin.flush()
            if not robot.stdout.readline():
                node.check()
                raise SessionError(f"policy_node sent no command within {_FIRST_COMMAND_S:g} s")
            meters = {name: _Meter(pid) for name, pid in (("policy_node", node.pid), ("robot", robot.pid))}
            noted = robot.stdout.readline()
            node.check()
            if not noted:
                raise SessionError("the robot of the benchmark ended early: see its message above")
            processes = {name: meter.read() for name, meter in meters.items()}
        finally:
            robot.terminate()
            robot.wait()
    return {**json.loads(noted), "processes": processes}


class _Meter:
    """Processor time and memory of a process since the meter was made."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._began_s, self._before_s = time.perf_counter(), self._processor_s()

    def _processor_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def read(self) -> dict[str, float]:
        """cpu: share of one core; rss_mb and peak_mb: resident memory, now and at most since its start."""
        took_s = time.perf_counter() - self._began_s
        status = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        facts = dict(line.split(":", 1) for line in status if ":" in line)
        return {
            "cpu": (self._processor_s() - self._before_s) / took_s,
            "rss_mb": int(facts["VmRSS"].split()[0]) / 1e3,
            "peak_mb": int(facts["VmHWM"].split()[0]) / 1e3,
        }


class _Robot(Node):
    """A robot that follows the commands, with cameras that see a box move, at the policy's rate.

    It notes of each command: its stamp, when it arrived, the stamp of the newest picture it used, and the node's
    `policy/times`; and the verdicts.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__("dp_ros_bench_robot")
        rng = np.random.default_rng(0)
        sizes = [config.encoder.target(camera).size for camera in config.encoder.cameras]
        self._pictures = [moving_box(size, _PICTURES, rng) for size in sizes]
        profile, reliable = qos.observations("realtime"), qos.RELIABLE_DEEP
        self._cameras = [
            self.create_publisher(Image, f"camera/{camera}/image_raw", profile)
            for camera in config.encoder.cameras
        ]
        self._pose = self.create_publisher(PoseStamped, "ee_pose", profile)
        self._gripper = self.create_publisher(JointState, "gripper/state", profile)
        self.create_subscription(PoseStamped, "command/ee_pose", self._on_pose, qos.RELIABLE)
        self.create_subscription(JointState, "command/gripper", self._on_gripper, qos.RELIABLE)
        self.create_subscription(String, "policy/verdict", self._on_verdict, reliable)
        self.create_subscription(JointState, "policy/times", self._on_times, reliable)
        self.create_subscription(JointState, "policy/ages", self._on_ages, reliable)
        self.create_timer(1.0 / config.rate_hz, self._publish)
        self._position_m = np.array([0.0, 0.6, 0.2])
        self._number = 0
        self.forget()

    def forget(self) -> None:
        """Begin to measure."""
        self.received_ns: dict[int, int] = {}
        self.picture_ns: dict[int, int] = {}
        self.times_s: dict[int, dict[str, float]] = {}
        self.verdicts: list[str] = []

    def _publish(self) -> None:
        self._number += 1
        stamp_ns = time.time_ns()
        for publisher, pictures in zip(self._cameras, self._pictures, strict=True):
            picture = pictures[self._number % len(pictures)]
            publisher.publish(images.rgb_to_image(picture, stamp_ns, "camera"))
        self._pose.publish(conversions.position_to_pose(self._position_m, _DOWN, stamp_ns, "base_link"))
        self._gripper.publish(conversions.gripper_state(1.0, stamp_ns))

    def _on_pose(self, msg: PoseStamped, info: Mapping[str, int]) -> None:
        self._position_m = conversions.pose_to_position(msg)
        self._note(msg, info)

    def _on_gripper(self, msg: JointState, info: Mapping[str, int]) -> None:
        self._note(msg, info)

    def _note(self, msg: PoseStamped | JointState, info: Mapping[str, int]) -> None:
        """The middleware's time of arrival: a callback in Python runs when the ones before it have ended."""
        stamp_ns = conversions.stamp_to_ns(msg.header.stamp)
        self.received_ns[stamp_ns] = max(self.received_ns.get(stamp_ns, 0), info["received_timestamp"])

    def _on_verdict(self, msg: String) -> None:
        self.verdicts.append(msg.data)

    def _on_times(self, msg: JointState) -> None:
        stamp_ns = conversions.stamp_to_ns(msg.header.stamp)
        self.times_s[stamp_ns] = dict(zip(msg.name, msg.position, strict=True))

    def _on_ages(self, msg: JointState) -> None:
        tick_ns, stamps_ns = conversions.ages_to_stamps(msg)
        cameras = [stamp_ns for name, stamp_ns in stamps_ns.items() if name.startswith("camera")]
        self.picture_ns[tick_ns] = max(cameras)

    def noted(self) -> dict[str, Any]:
        """One entry for each command whose times are known."""
        ticks = sorted(self.received_ns.keys() & self.times_s.keys())
        commands = [
            {
                "stamp_ns": stamp_ns,
                "received_ns": self.received_ns[stamp_ns],
                "picture_ns": self.picture_ns.get(stamp_ns),
                **self.times_s[stamp_ns],
            }
            for stamp_ns in ticks
        ]
        return {"commands": commands, "verdicts": self.verdicts}


def robot() -> None:
    """Main function of the robot's process. Prints a line when it begins to measure, and then what it noted."""
    answers = take_standard_output()
    policy, seconds = json.loads(sys.stdin.readline())
    # A real robot has a computer of its own. Where that is not allowed, its delays count as transport.
    set_priority(RuntimeConfig().realtime_priority, inherited=True)
    rclpy.init()
    node, executor = _Robot(PolicyConfig.model_validate(policy)), SingleThreadedExecutor()
    executor.add_node(node)

    def spin_until(deadline_s: float, is_enough: bool = False) -> None:
        while time.monotonic() < deadline_s and not (is_enough and node.received_ns) and not is_orphan():
            executor.spin_once(timeout_sec=0.05)

    with suppress(KeyboardInterrupt, ExternalShutdownException):
        spin_until(time.monotonic() + _FIRST_COMMAND_S, is_enough=True)
        if not node.received_ns:
            return
        spin_until(time.monotonic() + min(_WARM_UP_S, seconds))
        print("measuring", file=answers)
        node.forget()
        spin_until(time.monotonic() + seconds)
        print(json.dumps(node.noted()), file=answers)


def moving_box(size: tuple[int, int], count: int, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """`count` pictures (H, W, 3) like a camera's: a lit table, a box that moves over it and comes back, and noise."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
    table = 90 + 90 * y[..., None] + np.array([20.0, 10.0, 0.0]) * (1 - x[..., None])
    pictures = []
    for i in range(count):
        turn = 2 * np.pi * i / count
        is_box = (abs(x - 0.5 - 0.25 * np.cos(turn)) < 0.12) & (abs(y - 0.6 - 0.15 * np.sin(turn)) < 0.12)
        scene = np.where(is_box[..., None], np.array([200.0, 40.0, 40.0]), table)
        noisy = scene + rng.normal(scale=4.0, size=scene.shape)
        pictures.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return pictures
