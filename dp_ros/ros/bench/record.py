"""Benchmark of the recorder's losses: a simulated robot in real time, cameras at full size, and killed recorders.

A synthetic camera stamps each picture with its number divided by the rate. A number that the bag lacks is a lost
picture.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from dp_ros.data.bags.reader import BagError
from dp_ros.data.bags.repair import repair
from dp_ros.ros.bags.episode_reader import read_episode
from dp_ros.ros.messages import conversions, images
from dp_ros.ros.node import qos
from dp_ros.ros.processes.environment import SESSION_VARIABLE, node_environment
from dp_ros.ros.processes.node_process import NodeGroup, SessionError, parameters_yaml
from dp_ros.schema import BridgeConfig, Config, RecorderConfig, TopicMap
from dp_ros.sim.arm import simulator_of

_DOWN = [0.0, 1.0, 0.0, 0.0]


class _Recorder(NodeGroup):
    """Recorder and robot as processes; begins and ends one bag."""

    def __init__(self, recorder: RecorderConfig, robot: dict[str, Config], domain_id: int | None) -> None:
        self._statuses: list[dict[str, Any]] = []
        configs: dict[str, Config] = {**robot, "recorder_node": recorder}
        nodes = {
            name: parameters_yaml(f"/**/{name}", config, autostart=True) for name, config in configs.items()
        }
        super().__init__(nodes, domain_id, client="dp_ros_bench")

    def create_interface(self) -> None:
        self.node.create_subscription(
            String, "record/status", lambda msg: self._statuses.append(json.loads(msg.data)), qos.LATCHED
        )
        self._words = {
            word: self.node.create_client(Trigger, f"record/{word}") for word in ("start", "success")
        }
        self._reset = self.node.create_client(Trigger, "episode/reset")

    def start(self) -> Path:
        self._ask(self._words["start"])
        self.spin_until(
            lambda: self._statuses[-1]["state"] == "recording", 10.0, "record/start had no effect"
        )
        return Path(self._statuses[-1]["bag"])

    def begin_episode(self) -> None:
        self._ask(self._reset)

    def run(self, seconds: float) -> None:
        self.spin_until(lambda: False, seconds, "")

    def end(self) -> dict[str, Any]:
        self._ask(self._words["success"])
        self.spin_until(lambda: self._statuses[-1]["state"] == "idle", 60.0, "the bag was not ended")
        return self._statuses[-1]

    def kill(self) -> int:
        """End the recorder with SIGKILL; returns the wall time [ns]."""
        process = next(p for p in self.processes if p.name == "recorder_node")
        now_ns = time.time_ns()
        process.kill()
        return now_ns

    def _ask(self, client: Any) -> None:
        deadline, why = time.monotonic() + 30.0, ""
        while time.monotonic() < deadline:
            self.spin_until(client.service_is_ready, 30.0, f"{client.srv_name} is not offered")
            answer = client.call_async(Trigger.Request())
            self.spin_until(answer.done, 2.0, "")
            if answer.done() and answer.result().success:
                return
            why = answer.result().message if answer.done() else "no answer"
            self.spin_until(lambda: False, 0.1, "")
        raise SessionError(f"{client.srv_name}: {why}")


def record_robot(folder: Path, seconds: float, size_px: int, domain_id: int | None = None) -> dict[str, Any]:
    """Record the simulated arm in real time, driven by its expert, with one camera; counts of its pictures."""
    bridge = BridgeConfig(
        task="drawer-open-v3", cameras=("gripperPOV",), width_px=size_px, height_px=size_px, mode="realtime",
        expert=True, keep_steps=100_000, max_steps=100_000,
    )  # fmt: skip
    recorder = RecorderConfig(folder=str(folder), cameras=bridge.cameras)
    with _Recorder(recorder, {"metaworld_bridge": bridge}, domain_id) as session:
        session.begin_episode()
        session.run(1.0)
        bag = session.start()
        session.run(seconds)
        status = session.end()
    rate_hz = simulator_of(bridge.task).rate_hz
    return {"what": f"bridge {size_px}x{size_px} at {rate_hz:g} Hz", **_count(bag, status, rate_hz)}


def record_cameras(
    folder: Path, seconds: float, cameras: int, width_px: int, height_px: int, rate_hz: float,
    domain_id: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Record synthetic cameras; counts of their pictures."""
    names = tuple(f"camera{i}" for i in range(cameras))
    recorder = RecorderConfig(folder=str(folder), cameras=names)
    robot = _synthetic_robot(names, width_px, height_px, rate_hz, domain_id)
    with robot, _Recorder(recorder, {}, domain_id) as session:
        bag = session.start()
        session.run(seconds)
        status = session.end()
    return {"what": f"{cameras} x {width_px}x{height_px} at {rate_hz:g} Hz", **_count(bag, status, rate_hz)}


def kill_recorders(folder: Path, kills: int, domain_id: int | None = None) -> dict[str, Any]:
    """Kill recorders of 224x224 at 80 Hz at random times; time [s] that each repaired bag lacks at its end."""
    rng = np.random.default_rng(0)
    lost_s: list[float] = []
    refused: list[str] = []
    with _synthetic_robot(("camera0",), 224, 224, 80.0, domain_id):
        for i in range(kills):
            recorder = RecorderConfig(folder=str(folder / f"kill_{i}"), cameras=("camera0",))
            with _Recorder(recorder, {}, domain_id) as session:
                bag = session.start()
                session.run(float(rng.uniform(0.5, 2.5)))
                killed_ns = session.kill()
            try:
                repair(bag)
                newest_ns = int(read_episode(bag, TopicMap()).cameras["camera0"].received_ns.max())
                lost_s.append((killed_ns - newest_ns) / 1e9)
            except BagError as error:
                refused.append(str(error))
    return {"kills": kills, "reopened": len(lost_s), "refused": refused, "lost_s": lost_s}


def _count(bag: Path, status: dict[str, Any], rate_hz: float) -> dict[str, Any]:
    """Counts of the cameras' pictures, by their numbers between the first and the last in the bag."""
    episode = read_episode(bag, TopicMap())
    expected = found = 0
    for track in episode.cameras.values():
        numbers = np.unique(np.round(track.stamps_ns * rate_hz / 1e9).astype(np.int64))
        expected += int(numbers[-1] - numbers[0]) + 1
        found += len(numbers)
    camera = next(iter(episode.cameras.values()))
    wall_s = float(camera.received_ns[-1] - camera.received_ns[0]) / 1e9
    return {
        "seconds": wall_s,
        "expected": expected,
        "recorded": found,
        "missing": expected - found,
        "dropped": sum(status["dropped"].values()),
        "rate_hz": (len(camera.stamps_ns) - 1) / wall_s,
        "mb_per_s": sum(f.stat().st_size for f in bag.iterdir()) / 1e6 / wall_s,
    }


@contextmanager
def _synthetic_robot(
    cameras: tuple[str, ...], width_px: int, height_px: int, rate_hz: float, domain_id: int | None
) -> Iterator[None]:
    arguments = json.dumps([list(cameras), width_px, height_px, rate_hz])
    process = subprocess.Popen(
        [sys.executable, "-c", "from dp_ros.ros.bench.record import publish; publish()", arguments],
        env={**node_environment(domain_id), SESSION_VARIABLE: str(os.getpid())},
        stdin=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def publish() -> None:
    """Main function of the robot's process: cameras, pose, gripper and command, stamped with number / rate."""
    cameras, width_px, height_px, rate_hz = json.loads(sys.argv[1])
    rclpy.init()
    node = Node("dp_ros_bench_robot")
    profile = qos.observations("realtime")
    sensors = {name: node.create_publisher(Image, f"camera/{name}/image_raw", profile) for name in cameras}
    poses = [node.create_publisher(PoseStamped, name, profile) for name in ("ee_pose", "command/ee_pose")]
    grippers = [
        node.create_publisher(JointState, name, profile) for name in ("gripper/state", "command/gripper")
    ]
    picture = np.random.default_rng(0).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)
    number = 0

    def tick() -> None:
        nonlocal number
        number += 1
        stamp_ns = round(number * 1e9 / rate_hz)
        picture[0, 0] = number % 256
        for publisher in poses:
            publisher.publish(conversions.position_to_pose([0.0, 0.6, 0.2], _DOWN, stamp_ns, "base_link"))
        for publisher, message in zip(
            grippers,
            (conversions.gripper_state(1.0, stamp_ns), conversions.effort_to_joint_state(0.0, stamp_ns)),
            strict=True,
        ):
            publisher.publish(message)
        for name, publisher in sensors.items():
            publisher.publish(images.rgb_to_image(picture, stamp_ns, name))

    node.create_timer(1.0 / rate_hz, tick)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)


def bench_record(seconds: float, kills: int) -> dict[str, Any]:
    """Run all three benchmarks in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="dp_ros-bench-", dir=".") as folder:
        path = Path(folder).absolute()
        runs = [
            record_robot(path / "robot", seconds, 224),
            record_cameras(path / "cameras", seconds, 2, 640, 480, 30.0),
        ]
        return {"runs": runs, "kills": kill_recorders(path, kills) if kills else None}
