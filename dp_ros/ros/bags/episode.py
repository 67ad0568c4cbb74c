"""A bag as the streams of one arm: stamps of all, values of the small ones; pictures stay in the bag.

Messages are translated by the functions that the live nodes call. Works without ROS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from dp_ros.data.bags.reader import BagError, BagInfo, BagReader
from dp_ros.ros.messages import conversions
from dp_ros.schema import TopicMap
from dp_ros.streams import ImageSizeError, check_fits

_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_POSE, _JOINTS = "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/JointState"
_STRING = "std_msgs/msg/String"
_AGES, _RESULT = "policy/ages", "episode/result"
COMMANDS = ("command_pose", "command_gripper")
EXPERT = ("expert_pose", "expert_gripper")


@dataclass
class Track:
    """One stream of a bag, in the order of arrival."""

    topic: str
    type_name: str
    stamps_ns: NDArray[np.int64]
    received_ns: NDArray[np.int64]
    values: list[Any]  # of a camera, which of its topic's messages each picture is
    unreadable: int = 0  # messages that were left out, as the node leaves them out


@dataclass
class BagEpisode:
    """One recorded episode; the names of its tracks are those of `FrameAssembler` and of TopicMap."""

    info: BagInfo
    cameras: dict[str, Track]
    ee_pose: Track
    gripper: Track
    actions: dict[str, Track]  # of COMMANDS and EXPERT, those that are there
    ages: list[tuple[int, dict[str, int]]] = field(
        default_factory=list
    )  # tick -> stream -> stamp, by the node
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)  # camera -> (height, width) [px]
    result: dict[str, Any] = field(default_factory=dict)  # what the bridge said at the end of the episode

    @property
    def tracks(self) -> dict[str, Track]:
        return {
            **{f"camera {name}": track for name, track in self.cameras.items()},
            "ee_pose": self.ee_pose,
            "gripper": self.gripper,
            **self.actions,
        }

    @property
    def pictures(self) -> PictureSource:
        return PictureSource(
            self.info.path, {name: (track.topic, track.type_name) for name, track in self.cameras.items()}
        )

    @property
    def is_lockstep(self) -> bool:
        return self.info.custom.get("mode") == "lockstep"

    @property
    def collect(self) -> dict[str, Any]:
        """The settings of the scripted collection it is part of; empty for any other."""
        return json_object(self.info.custom.get("collect", "{}"))


def read_episode(
    path: str | Path, topics: TopicMap, cameras: Sequence[str] = (), size: tuple[int, int] = (0, 0)
) -> BagEpisode:
    """All of a bag but its pictures, which must fit `size` (height, width), or the first of their camera.

    Messages that cannot be translated are left out, and counted, as the live node leaves them out. BagError:
    damaged, a topic is missing or of another type.
    """
    with BagReader(path) as bag:
        found = camera_topics(bag.info, topics)
        for camera in cameras:
            if camera not in found:
                known = f"it has {', '.join(found)}" if found else "it has none"
                raise BagError(f"{path}: has no camera '{camera}'; {known} (map topics with --map)")
        chosen = {name: found[name] for name in cameras or sorted(found)}
        if not chosen:
            raise BagError(
                f"{path}: has no camera/<name>/image_raw topic; it has {', '.join(sorted(bag.info.topics))}: "
                "map them with --map"
            )
        return _Indexer(bag, topics, chosen, size).read()


def camera_topics(info: BagInfo, topics: TopicMap) -> dict[str, str]:
    """camera -> topic; raw pictures where a camera has both."""
    if topics.cameras:
        return {name: topics.absolute(topic) for name, topic in topics.cameras.items()}
    pattern = re.compile(
        re.escape(topics.absolute("camera")) + r"/([A-Za-z][A-Za-z0-9_]*)/image_raw(/compressed)?"
    )
    found: dict[str, str] = {}
    for topic, (_, messages) in sorted(info.topics.items()):  # .../image_raw sorts before .../compressed
        if messages and (match := pattern.fullmatch(topic)):
            found.setdefault(match[1], topic)
    return found


@dataclass(frozen=True)
class PictureSource:
    """Where an episode's pictures are: all that a worker needs to read them."""

    path: Path
    topics: dict[str, tuple[str, str]]  # camera -> (topic, type)

    def read(
        self, wanted: Callable[[str, int], bool], height_px: int, width_px: int
    ) -> Iterator[tuple[str, int, NDArray[np.uint8]]]:
        """(camera, number among its messages, picture of that size) of those `wanted(camera, number)`."""
        names = {topic: (camera, kind) for camera, (topic, kind) in self.topics.items()}
        counts = dict.fromkeys(names, -1)
        with BagReader(self.path) as bag:
            for topic, _, data in bag.messages(names):
                counts[topic] += 1
                camera, kind = names[topic]
                if wanted(camera, counts[topic]):
                    msg = decode(data, kind, topic, self.path)
                    yield camera, counts[topic], conversions.to_picture(msg, camera, height_px, width_px)


class _Building:
    """A track while the bag is gone through."""

    def __init__(self, topic: str, translate: Callable[[Any], Any]) -> None:
        self.topic, self._translate = topic, translate
        self._stamps: list[int] = []
        self._received: list[int] = []
        self._values: list[Any] = []
        self._messages = self._unreadable = 0

    def take(self, msg: Any, stamp_ns: int, received_ns: int) -> None:
        number, self._messages = self._messages, self._messages + 1
        try:
            value = self._translate(msg)
        except (conversions.ConversionError, ImageSizeError):
            self._unreadable += 1
            return
        self._stamps.append(stamp_ns)
        self._received.append(received_ns)
        self._values.append(number if value is None else value)

    def track(self, type_name: str) -> Track:
        stamps, received = (np.array(times, dtype=np.int64) for times in (self._stamps, self._received))
        return Track(self.topic, type_name, stamps, received, self._values, self._unreadable)


class _Indexer:
    """Goes through a bag once."""

    def __init__(
        self, bag: BagReader, topics: TopicMap, cameras: dict[str, str], size: tuple[int, int]
    ) -> None:
        self._bag, self._cameras, self._size = bag, cameras, size
        self._types = {name: kind for name, (kind, messages) in bag.info.topics.items() if messages}
        roles = {
            "ee_pose": topics.absolute(topics.ee_pose),
            "gripper": topics.absolute(topics.gripper),
            "command_pose": topics.absolute(topics.command_pose),
            "command_gripper": topics.absolute(topics.command_gripper),
            "expert_pose": topics.absolute(topics.expert_pose),
            "expert_gripper": topics.absolute(topics.expert_gripper),
        }
        for role, topic in roles.items():
            if topic not in self._types and role not in EXPERT:
                raise BagError(
                    f"{bag.path}: has no messages on {topic} ({role}); it has {', '.join(sorted(self._types))}: "
                    "map it with --map"
                )
        self._roles = {role: topic for role, topic in roles.items() if topic in self._types}
        if len([role for role in EXPERT if role in self._roles]) == 1:
            raise BagError(
                f"{bag.path}: has only one of {roles['expert_pose']} and {roles['expert_gripper']}"
            )
        self._ages_topic = topics.absolute(_AGES)
        self._notes = {self._ages_topic: _JOINTS, topics.absolute(_RESULT): _STRING}
        self._joint = topics.gripper_joint

    def read(self) -> BagEpisode:
        for topic in self._cameras.values():
            self._check_type(topic, *_IMAGES)
        for role, topic in self._roles.items():
            self._check_type(topic, _POSE if role.endswith("pose") else _JOINTS)
        building = {role: _Building(topic, self._translation(role)) for role, topic in self._roles.items()}
        sizes: dict[str, tuple[int, int]] = {}
        for camera, topic in self._cameras.items():
            building[f"camera {camera}"] = _Building(topic, self._size_checker(camera, sizes))
        of_topic: dict[str, list[_Building]] = {}
        for each in building.values():
            of_topic.setdefault(each.topic, []).append(each)
        ages: list[tuple[int, dict[str, int]]] = []
        result: dict[str, Any] = {}
        path = self._bag.path
        notes = [topic for topic, kind in self._notes.items() if self._types.get(topic) == kind]
        for topic, received_ns, data in self._bag.messages([*of_topic, *notes]):
            if topic in of_topic:
                msg = decode(data, self._types[topic], topic, path)
                stamp_ns = conversions.stamp_to_ns(msg.header.stamp)
                for each in of_topic[topic]:
                    each.take(msg, stamp_ns, received_ns)
            elif topic == self._ages_topic:
                try:
                    ages.append(conversions.ages_to_stamps(decode(data, _JOINTS, topic, path)))
                except conversions.ConversionError as error:
                    raise BagError(f"{path}: {error}") from None
            else:
                result = json_object(decode(data, _STRING, topic, path).data)
        tracks = {role: each.track(self._types[each.topic]) for role, each in building.items()}
        for camera in self._cameras:
            if camera not in sizes:
                unreadable = tracks[f"camera {camera}"].unreadable
                raise BagError(
                    f"{path}: not one of the {unreadable} pictures of camera '{camera}' can be used"
                )
        return BagEpisode(
            self._bag.info,
            {name: tracks[f"camera {name}"] for name in self._cameras},
            tracks["ee_pose"],
            tracks["gripper"],
            {role: tracks[role] for role in (*COMMANDS, *EXPERT) if role in tracks},
            ages,
            sizes,
            result,
        )

    def _size_checker(self, camera: str, sizes: dict[str, tuple[int, int]]) -> Callable[[Any], None]:
        """Whether the live node could use a picture: decoded, and of a shape that fits."""

        def check(msg: Any) -> None:
            height, width = conversions.to_rgb(msg).shape[:2]
            first = sizes.get(camera, (height, width))
            check_fits((height, width), *(self._size if self._size[0] else first), camera)
            sizes.setdefault(camera, (height, width))

        return check

    def _check_type(self, topic: str, *expected: str) -> None:
        found = self._types.get(topic)
        if found not in expected:
            what = f"is of type {found}, not {' or '.join(expected)}" if found else "has no messages"
            raise BagError(f"{self._bag.path}: {topic} {what}: map another topic with --map")

    def _translation(self, role: str) -> Callable[[Any], Any]:
        if role == "ee_pose":
            return conversions.pose_to_vector
        if role.endswith("pose"):
            return conversions.pose_to_position
        if role == "gripper":
            return lambda msg: conversions.joint_state_to_position(msg, self._joint)
        return lambda msg: conversions.joint_state_to_effort(msg, self._joint)


def decode(data: bytes, type_name: str, topic: str, path: Path) -> Any:
    """A serialized message; BagError where it is none of its type."""
    try:
        return _typestore().deserialize_cdr(data, type_name)
    except Exception as error:  # whatever damaged bytes make of the decoder
        raise BagError(
            f"{path}: a message on {topic} cannot be read ({type(error).__name__}: {error})"
        ) from None


def json_object(text: str) -> dict[str, Any]:
    """Empty where it is none: others may use the same names for something else."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


@lru_cache(maxsize=1)
def _typestore() -> Typestore:
    return get_typestore(Stores.ROS2_JAZZY)
