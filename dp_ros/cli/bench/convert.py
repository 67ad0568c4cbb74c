"""Benchmark of the conversion of long bags with one camera: speed against real time, and peak memory."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rosbags.typesys import Stores, get_typestore

from dp_ros.data.bags.writer import BagWriter

_RATE_HZ = 80.0
_BEGIN_NS = 1_700_000_000_000_000_000


def measure_conversion(seconds: float, size_px: int, bags: int, jobs: int) -> dict[str, Any]:
    """Write `bags` bags of `seconds` in all and convert them; ratio to real time, and MB of all processes."""
    from dp_ros.ros.bags.convert import convert
    from dp_ros.schema import ConvertConfig

    with tempfile.TemporaryDirectory(prefix="dp_ros-bench-", dir=".") as folder:
        path = Path(folder)
        for i in range(bags):
            _write_bag(path / "bags" / f"episode_{i:05}", round(seconds * _RATE_HZ / bags), size_px, seed=i)
        size_mb = sum(f.stat().st_size for f in path.rglob("*.mcap")) / 1e6
        with _PeakMemory() as memory:
            began = time.perf_counter()
            result = convert([path / "bags"], path / "data", ConvertConfig(), jobs=jobs)
            took_s = time.perf_counter() - began
    return {
        "seconds": seconds,
        "bags": bags,
        "size_px": size_px,
        "bag_mb": size_mb,
        "ticks": result.ticks,
        "took_s": took_s,
        "ratio": result.ticks / _RATE_HZ / took_s,
        "peak_mb": memory.peak_mb,
        "peak_mb_of_one": memory.peak_mb_of_one,
    }


class _PeakMemory:
    """Resident memory of this process and its children, sampled 20 times a second."""

    def __init__(self) -> None:
        self.peak_mb = self.peak_mb_of_one = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process(os.getpid())
        while not self._stop.wait(0.05):
            sizes = []
            for process in [me, *me.children(recursive=True)]:
                try:
                    sizes.append(process.memory_info().rss / 1e6)
                except psutil.NoSuchProcess:
                    continue
            self.peak_mb = max(self.peak_mb, sum(sizes))
            self.peak_mb_of_one = max(self.peak_mb_of_one, *sizes)


def _write_bag(path: Path, ticks: int, size_px: int, seed: int) -> None:
    """Write one episode: pictures that compress like a camera's (noise on a gradient), pose, gripper, command."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types = store.types
    rng = np.random.default_rng(seed)
    ramp = np.linspace(40, 200, size_px, dtype=np.float32)
    scene = (ramp[None, :, None] + ramp[:, None, None] * 0.2 + np.array([0.0, 10.0, 20.0])).astype(np.uint8)
    pictures = [scene + rng.integers(0, 8, scene.shape, dtype=np.uint8) for _ in range(16)]
    writer = BagWriter(path, {"task": "bench", "outcome": "success"})
    image, pose, joints = (
        "sensor_msgs/msg/Image",
        "geometry_msgs/msg/PoseStamped",
        "sensor_msgs/msg/JointState",
    )
    topics = {
        "/camera/bench/image_raw": image, "/ee_pose": pose, "/gripper/state": joints,
        "/command/ee_pose": pose, "/command/gripper": joints,
    }  # fmt: skip
    for topic, kind in topics.items():
        writer.add_topic(topic, kind)
    empty = np.array([], dtype=np.float64)
    one = np.array([0.5])
    point = types["geometry_msgs/msg/Point"](x=0.0, y=0.6, z=0.2)
    turn = types["geometry_msgs/msg/Quaternion"](x=0.0, y=1.0, z=0.0, w=0.0)
    held = types["geometry_msgs/msg/Pose"](position=point, orientation=turn)
    for i in range(ticks):
        at = _BEGIN_NS + round(i * 1e9 / _RATE_HZ)
        sec, nanosec = divmod(at, 1_000_000_000)
        stamp = types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
        header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="base_link")
        messages = {
            "/camera/bench/image_raw": types[image](
                header=header, height=size_px, width=size_px, encoding="rgb8", is_bigendian=0, step=3 * size_px,
                data=pictures[i % 16].reshape(-1),
            ),
            "/ee_pose": types[pose](header=header, pose=held),
            "/gripper/state": types[joints](header=header, name=["g"], position=one, velocity=empty, effort=empty),
            "/command/ee_pose": types[pose](header=header, pose=held),
            "/command/gripper": types[joints](header=header, name=["g"], position=empty, velocity=empty, effort=one),
        }  # fmt: skip
        for topic, message in messages.items():
            writer.write(topic, bytes(store.serialize_cdr(message, topics[topic])), at + 1_000_000, at)
    writer.close()
