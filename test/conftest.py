"""Bags made without ROS, for every folder of tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

MS = 1_000_000
BEGIN_NS = 1_700_000_000_000_000_000


class BagMaker:
    """Writes one episode of one arm; every stream is a list of (stamp [ns], received [ns], value)."""

    def __init__(self) -> None:
        from rosbags.typesys import Stores, get_typestore

        self.store = get_typestore(Stores.ROS2_JAZZY)

    def _make(self, kind: str, **fields: Any) -> Any:
        return self.store.types[kind](**fields)

    def header(self, stamp_ns: int, frame_id: str = "base_link") -> Any:
        sec, nanosec = divmod(stamp_ns, 1_000_000_000)
        stamp = self._make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
        return self._make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def pose(self, stamp_ns: int, position_m: Sequence[float]) -> tuple[str, Any]:
        x, y, z = map(float, position_m)
        point = self._make("geometry_msgs/msg/Point", x=x, y=y, z=z)
        turn = self._make("geometry_msgs/msg/Quaternion", x=0.0, y=1.0, z=0.0, w=0.0)
        pose = self._make("geometry_msgs/msg/Pose", position=point, orientation=turn)
        kind = "geometry_msgs/msg/PoseStamped"
        return kind, self._make(kind, header=self.header(stamp_ns), pose=pose)

    def joints(
        self, stamp_ns: int, position: Sequence[float] = (), effort: Sequence[float] = (), names=("gripper",)
    ) -> tuple[str, Any]:
        kind = "sensor_msgs/msg/JointState"
        arrays = {"position": np.array(position, float), "effort": np.array(effort, float)}
        msg = self._make(
            kind, header=self.header(stamp_ns), name=list(names), velocity=np.array([], float), **arrays
        )
        return kind, msg

    def image(self, stamp_ns: int, rgb: NDArray[np.uint8]) -> tuple[str, Any]:
        kind = "sensor_msgs/msg/Image"
        height, width, _ = rgb.shape
        fields = {"height": height, "width": width, "encoding": "rgb8", "is_bigendian": 0, "step": 3 * width}
        return kind, self._make(kind, header=self.header(stamp_ns), data=rgb.reshape(-1), **fields)

    def compressed(self, stamp_ns: int, rgb: NDArray[np.uint8]) -> tuple[str, Any]:
        """PNG, as image_transport writes it: lossless, so that pictures can be compared."""
        kind = "sensor_msgs/msg/CompressedImage"
        _, png = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        msg = self._make(
            kind, header=self.header(stamp_ns), format="rgb8; png compressed bgr8", data=png.reshape(-1)
        )
        return kind, msg

    def text(self, value: str) -> tuple[str, Any]:
        return "std_msgs/msg/String", self._make("std_msgs/msg/String", data=value)

    def write(
        self,
        path: Path,
        messages: Sequence[tuple[str, int, tuple[str, Any]]],
        custom: Mapping[str, str] | None = None,
        storage: str = "ours",
        compression: str = "none",
    ) -> Path:
        """`messages`: (topic, received [ns], (type, message)), written in the order of receipt.

        storage: "ours", or "mcap" or "sqlite3" by the rosbags library, as a stand-in for `ros2 bag record`.
        """
        ordered = sorted(messages, key=lambda item: item[1])
        topics = {topic: kind for topic, _, (kind, _) in ordered}
        raw = [
            (topic, received, bytes(self.store.serialize_cdr(msg, kind)))
            for topic, received, (kind, msg) in ordered
        ]
        if storage == "ours":
            from dp_ros.data.bags.writer import BagWriter

            ours = BagWriter(path, custom or {}, compression)
            for topic, kind in topics.items():
                ours.add_topic(topic, kind)
            for topic, received, data in raw:
                ours.write(topic, data, received, received)
            ours.close()
            return path
        from rosbags.rosbag2 import StoragePlugin, Writer

        with Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
            for key, value in (custom or {}).items():
                writer.set_custom_data(key, value)
            connections = {
                topic: writer.add_connection(topic, kind, typestore=self.store)
                for topic, kind in topics.items()
            }
            for topic, received, data in raw:
                writer.write(connections[topic], received, data)
        return path

    def episode(
        self,
        path: Path,
        *,
        seed: int = 0,
        ticks: int = 40,
        period_ns: int = 12_500_000,
        cameras: Sequence[str] = ("left",),
        size: tuple[int, int] = (36, 40),
        latency_ns: Callable[[str, int], int] = lambda stream, index: 1 * MS,
        dropped: Callable[[str, int], bool] = lambda stream, index: False,
        expert: bool = False,
        prefix: str = "",
        compressed: bool = False,
        custom: Mapping[str, str] | None = None,
        extra: Sequence[tuple[str, int, tuple[str, Any]]] = (),
        **kwargs: Any,
    ) -> Path:
        """An episode of arbitrary but reproducible numbers, every stream once a tick.

        `latency_ns(stream, index)`: from stamp to receipt; `dropped(stream, index)`: not in the bag.
        """
        values = self.values(seed, ticks, cameras, size)
        messages: list[tuple[str, int, tuple[str, Any]]] = list(extra)
        picture = self.compressed if compressed else self.image
        suffix = "/compressed" if compressed else ""

        def add(stream: str, topic: str, i: int, stamp: int, message: tuple[str, Any]) -> None:
            if not dropped(stream, i):
                messages.append((f"{prefix}/{topic}", stamp + latency_ns(stream, i), message))

        for i in range(ticks):
            at = BEGIN_NS + i * period_ns
            for camera in cameras:
                add(
                    f"camera {camera}",
                    f"camera/{camera}/image_raw{suffix}",
                    i,
                    at,
                    picture(at, values[camera][i]),
                )
            add("ee_pose", "ee_pose", i, at, self.pose(at, values["ee_pose"][i]))
            add("gripper", "gripper/state", i, at, self.joints(at, position=[values["gripper"][i]]))
            for stream, topic, actions in (
                ("command", "command", values["command"]),
                *((("expert", "expert", values["action"]),) if expert else ()),
            ):
                add(f"{stream}_pose", f"{topic}/ee_pose", i, at, self.pose(at, actions[i, :3]))
                add(f"{stream}_gripper", f"{topic}/gripper", i, at, self.joints(at, effort=[actions[i, 3]]))
        return self.write(path, messages, custom, **kwargs)

    def values(
        self, seed: int, ticks: int, cameras: Sequence[str], size: tuple[int, int]
    ) -> dict[str, NDArray[Any]]:
        """What `episode` writes, by stream; row i is tick i."""
        rng = np.random.default_rng(seed)
        gripper = rng.uniform(-1, 1, (2, ticks))
        return {
            **{c: rng.integers(0, 256, (ticks, *size, 3), dtype=np.uint8) for c in cameras},
            "ee_pose": rng.normal(size=(ticks, 3)),
            "gripper": rng.random(ticks),
            "action": np.column_stack([rng.normal(size=(ticks, 3)), gripper[0]]),
            "command": np.column_stack([rng.normal(size=(ticks, 3)), gripper[1]]),
        }


@pytest.fixture(scope="session")
def bag_maker() -> BagMaker:
    return BagMaker()
