"""Parallel runs that do not disturb one another, and bags made without ROS, for every folder of tests."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import itertools
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dp_ros.actions import GRIPPER, POSITION, join
from test.crashes import Crashes
from test.outcomes import damaged_versions

# Before a test imports torch or opens a renderer: one thread for tensors and one for Mesa's rasteriser. Networks and
# pictures of this size gain nothing from more, and the tests run in as many processes as there are cores.
os.environ["OMP_NUM_THREADS"] = os.environ["LP_NUM_THREADS"] = "1"

# Exported engines go to a cache of the test run, which its processes share.
if "DP_ROS_TEST_CACHE" not in os.environ:
    os.environ["DP_ROS_TEST_CACHE"] = tempfile.mkdtemp(prefix="dp_ros-cache-")
    atexit.register(shutil.rmtree, os.environ["DP_ROS_TEST_CACHE"], ignore_errors=True)
os.environ["XDG_CACHE_HOME"] = os.environ["DP_ROS_TEST_CACHE"]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Crashes(Path(os.environ["DP_ROS_TEST_CACHE"])))


# Ports of domains 1 to 101 lie below the range that Linux hands out to clients.
_DOMAINS = range(1, 102)
_domains = itertools.cycle(_DOMAINS)  # each test gets the next: a domain is not used again at once
MS = 1_000_000
MakeOnce = Callable[[str, Callable[[Path], object]], Path]
BEGIN_NS = 1_700_000_000_000_000_000
DOWN = (0.0, 1.0, 0.0, 0.0)  # a tool that points down, x, y, z, w


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

    def pose(
        self,
        stamp_ns: int,
        position_m: Sequence[float],
        quat_xyzw: Sequence[float] = DOWN,
        frame_id: str = "base_link",
    ) -> tuple[str, Any]:
        x, y, z = map(float, position_m)
        point = self._make("geometry_msgs/msg/Point", x=x, y=y, z=z)
        x, y, z, w = map(float, quat_xyzw)
        orientation = self._make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)
        pose = self._make("geometry_msgs/msg/Pose", position=point, orientation=orientation)
        kind = "geometry_msgs/msg/PoseStamped"
        return kind, self._make(kind, header=self.header(stamp_ns, frame_id), pose=pose)

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

    def number(self, value: float) -> tuple[str, Any]:
        return "std_msgs/msg/Float64", self._make("std_msgs/msg/Float64", data=float(value))

    def text(self, value: str) -> tuple[str, Any]:
        return "std_msgs/msg/String", self._make("std_msgs/msg/String", data=value)

    def write(
        self,
        path: Path,
        messages: Sequence[tuple[str, int, tuple[str, Any]]],
        custom: Mapping[str, str] | None = None,
        silent: Mapping[str, str] | None = None,
        storage: str = "ours",
        compression: str = "none",
    ) -> Path:
        """`messages`: (topic, received [ns], (type, message)), written in the order of receipt.

        silent: topic -> type of topics without a message. storage: "ours", or "mcap" or "sqlite3" by the rosbags
        library, as a stand-in for `ros2 bag record`.
        """
        ordered = sorted(messages, key=lambda item: item[1])
        topics = {topic: kind for topic, _, (kind, _) in ordered} | dict(silent or {})
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
        size: tuple[int, int] | Mapping[str, tuple[int, int]] = (36, 40),
        latency_ns: Callable[[str, int], int] = lambda stream, index: 1 * MS,
        dropped: Callable[[str, int], bool] = lambda stream, index: False,
        orientation: Callable[[str, int], Sequence[float]] = lambda stream, index: DOWN,
        frame_id: Callable[[str, int], str] = lambda stream, index: "base_link",
        uncommanded: Callable[[str, int], bool] = lambda stream, index: False,
        edited: Callable[[str, int, NDArray[np.uint8]], NDArray[np.uint8]] = lambda camera, index, rgb: rgb,
        moved: Callable[[str, int, NDArray[np.float64]], NDArray[np.float64]] = lambda stream, index, at: at,
        expert: bool = False,
        prefix: str = "",
        compressed: bool = False,
        custom: Mapping[str, str] = MappingProxyType({"outcome": "success"}),
        extra: Sequence[tuple[str, int, tuple[str, Any]]] = (),
        **kwargs: Any,
    ) -> Path:
        """An episode of arbitrary but reproducible numbers, every stream once a tick.

        size: (height, width) of the pictures, or that of each camera.

        Each of these is asked for (stream, index). latency_ns: from stamp to receipt. dropped: whether the message is
        missing. orientation, frame_id: of a pose. uncommanded: whether a gripper command has no effort. moved, which is
        also given the position: another position of a pose. edited, likewise: another picture.
        """
        values = self.values(seed, ticks, cameras, size)
        messages: list[tuple[str, int, tuple[str, Any]]] = list(extra)
        picture = self.compressed if compressed else self.image
        suffix = "/compressed" if compressed else ""

        def add(stream: str, topic: str, i: int, stamp: int, message: tuple[str, Any]) -> None:
            if not dropped(stream, i):
                messages.append((f"{prefix}/{topic}", stamp + latency_ns(stream, i), message))

        def pose(stream: str, i: int, stamp: int, position_m: NDArray[np.float64]) -> tuple[str, Any]:
            return self.pose(stamp, moved(stream, i, position_m), orientation(stream, i), frame_id(stream, i))

        for i in range(ticks):
            at = BEGIN_NS + i * period_ns
            for camera in cameras:
                add(
                    f"camera {camera}",
                    f"camera/{camera}/image_raw{suffix}",
                    i,
                    at,
                    picture(at, edited(camera, i, values[camera][i])),
                )
            add("ee_pose", "ee_pose", i, at, pose("ee_pose", i, at, values["ee_pose"][i]))
            add("gripper", "gripper/state", i, at, self.joints(at, position=[values["gripper"][i]]))
            sent = {"command": values["command"]} | ({"expert": values["action"]} if expert else {})
            for name, actions in sent.items():
                position, gripper = POSITION.of(actions)[i], GRIPPER.of(actions)[i]
                message = pose(f"{name}_pose", i, at, position)
                add(f"{name}_pose", f"{name}/ee_pose", i, at, message)
                effort = () if uncommanded(f"{name}_gripper", i) else gripper
                add(f"{name}_gripper", f"{name}/gripper", i, at, self.joints(at, effort=effort))
        return self.write(path, messages, custom, **kwargs)

    def values(
        self,
        seed: int,
        ticks: int,
        cameras: Sequence[str],
        size: tuple[int, int] | Mapping[str, tuple[int, int]],
    ) -> dict[str, NDArray[Any]]:
        """The values that `episode` writes, by stream; row i is tick i."""
        rng = np.random.default_rng(seed)
        gripper = rng.uniform(-1, 1, (2, ticks))
        sizes = size if isinstance(size, Mapping) else dict.fromkeys(cameras, size)
        return {
            **{c: rng.integers(0, 256, (ticks, *sizes[c], 3), dtype=np.uint8) for c in cameras},
            "ee_pose": rng.normal(scale=0.05, size=(ticks, POSITION.size)),
            "gripper": rng.random(ticks),
            "action": join(rng.normal(scale=0.05, size=(ticks, POSITION.size)), gripper[0]),
            "command": join(rng.normal(scale=0.05, size=(ticks, POSITION.size)), gripper[1]),
        }


@pytest.fixture(scope="session")
def bag_maker() -> BagMaker:
    return BagMaker()


@pytest.fixture(scope="session")
def small_policy() -> Mapping[str, Any]:
    """Settings of a policy of reach-v3 with what every part of it needs at least."""
    encoder = {
        "cameras": ("gripperPOV",), "height_px": 64, "width_px": 64, "crop_height_px": 56, "crop_width_px": 56,
        "stages": 2, "keypoints": 8, "feature_dim": 16,
    }  # fmt: skip
    return MappingProxyType(
        {
            "task": "reach-v3",
            "encoder": encoder,
            "unet": {"channels": (16, 32), "groups": 4, "step_embedding_dim": 16},
            "diffusion": {"iterations": 20, "sampler_iterations": 2},
        }
    )


@contextlib.contextmanager
def reserved_domain() -> Iterator[int]:
    """A ROS_DOMAIN_ID that no other test of this machine and no other graph uses, until the context ends."""
    for domain_id in itertools.islice(_domains, len(_DOMAINS)):
        # A socket without a file is a lock that ends with its process; the ports tell of graphs that are no test's.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
            try:
                lock.bind(f"\0dp_ros test in ROS domain {domain_id}")
            except OSError:
                continue
            if is_silent(domain_id):
                yield domain_id
                return
    raise RuntimeError(f"every ROS domain from {_DOMAINS[0]} to {_DOMAINS[-1]} is in use")


def is_silent(domain_id: int) -> bool:
    """Whether no process of this machine listens as one of the domain's first participants (RTPS 9.6.1.1).

    Not of the very first only: the nodes of a test that was killed live on after it.
    """
    for participant in range(10):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7400 + 250 * domain_id + 10 + 2 * participant))
            except OSError:
                return False
    return True


@pytest.fixture
def ros_domain() -> Iterator[int]:
    """A ROS_DOMAIN_ID of the test's own."""
    with reserved_domain() as domain_id:
        yield domain_id


@pytest.fixture(scope="module")
def module_domain() -> Iterator[int]:
    """A ROS_DOMAIN_ID for a module whose tests share their nodes."""
    with reserved_domain() as domain_id:
        yield domain_id


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """make_once(name, make) -> the file or folder `name`, which `make(path)` writes once in a run of many processes.

    Tests must not change it: others read it at the same time.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # each process has its own folder in that of the run
    shared = shared / "shared"

    def once(name: str, make: Callable[[Path], object]) -> Path:
        path = shared / name
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_name(f".{path.name}.made")
        with path.with_name(f".{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                assert not path.exists(), f"{path} was not finished: the first test that needs it says why"
                make(path)
                made.touch()
        return path

    return once


@pytest.fixture(scope="session")
def damaged() -> Callable[..., Iterator[bytes]]:
    """`damaged(content, count)`: the same ones in each run."""
    return damaged_versions
