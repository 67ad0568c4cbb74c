"""Reading of one bag as an episode: stamps of all messages, values of the small ones.

Messages are translated by the functions that the live nodes call. Works without ROS.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.data.bags.reader import BagError, BagInfo, BagReader
from dp_ros.pictures import ImageSizeError, check_fits, contrast
from dp_ros.poses import make_pose
from dp_ros.ros.bags.episode import COMMANDS, EXPERT, BagEpisode, RecordedStream
from dp_ros.ros.bags.messages import decode, json_object
from dp_ros.ros.messages import conversions, images
from dp_ros.ros.messages.gripper_reader import GripperCommandReader, GripperReader
from dp_ros.schema import PictureSizes, Size, TopicMap
from dp_ros.schema.topics import COMPRESSED

_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_POSE, _JOINTS = "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/JointState"
_FLOAT, _STRING = "std_msgs/msg/Float64", "std_msgs/msg/String"
_AGES, _RESULT = "policy/ages", "episode/result"

Translation = Callable[[Any, int], Any]  # (message, its number on the topic) -> value, or OTHER
OTHER = object()  # instead of the value of a message that is not of the stream


def read_episode(
    path: str | Path, topics: TopicMap, cameras: Sequence[str] = (), sizes: PictureSizes | None = None
) -> BagEpisode:
    """All of a bag but its pixels. Pictures must fit the camera's size in `sizes`; without one, that of its first one.

    Messages that the live node cannot use are left out and counted. BagError where the bag is damaged, or where a
    topic is missing, is of another type, or has no usable message.
    """
    with BagReader(path) as bag:
        found = camera_topics(bag.info, topics)
        for camera in cameras:
            if camera not in found:
                known = f"it has {', '.join(found)}" if found else "it has none"
                raise BagError(f"{path}: has no camera '{camera}'; {known} (map topics with --topics-file)")
        chosen = {name: found[name] for name in cameras or sorted(found)}
        if not chosen:
            raise BagError(
                f"{path}: has no camera/<name>/image_raw topic; it has {', '.join(sorted(bag.info.topics))}: "
                "map them with --topics-file"
            )
        return _EpisodeReader(bag, topics, chosen, sizes or PictureSizes()).read()


def camera_topics(info: BagInfo, topics: TopicMap) -> dict[str, str]:
    """camera -> topic; raw pictures where a camera has both, compressed ones where it has no others."""
    if topics.cameras:
        absolute = {name: topics.absolute(topic) for name, topic in topics.cameras.items()}
        return {
            name: topic + COMPRESSED
            if topic not in info.topics and topic + COMPRESSED in info.topics
            else topic
            for name, topic in absolute.items()
        }
    pattern = re.compile(
        re.escape(topics.absolute("camera")) + r"/([A-Za-z][A-Za-z0-9_]*)/image_raw(/compressed)?"
    )
    found: dict[str, str] = {}
    for topic, (_, messages) in sorted(info.topics.items()):  # .../image_raw sorts before .../compressed
        if messages and (match := pattern.fullmatch(topic)):
            found.setdefault(match[1], topic)
    return found


class _StreamBuilder:
    """One stream while its bag is read."""

    def __init__(self, topic: str, translate: Translation) -> None:
        self.topic, self._translate = topic, translate
        self._stamps: list[int] = []
        self._received: list[int] = []
        self._values: list[Any] = []
        self._frame_ids: dict[str, None] = {}
        self._messages = self._unreadable = 0
        self._why = ""

    def add(self, msg: Any, stamp_ns: int, received_ns: int) -> None:
        number, self._messages = self._messages, self._messages + 1
        try:
            value = self._translate(msg, number)
        except (conversions.ConversionError, ImageSizeError) as error:
            self._unreadable += 1
            self._why = self._why or str(error)
            return
        if value is OTHER:
            return
        self._stamps.append(stamp_ns)
        self._received.append(received_ns)
        self._values.append(value)
        if hasattr(msg, "header"):
            self._frame_ids.setdefault(msg.header.frame_id)

    def build(self, type_name: str) -> RecordedStream:
        stamps, received = (np.array(times, dtype=np.int64) for times in (self._stamps, self._received))
        frame_ids = tuple(self._frame_ids)
        return RecordedStream(
            self.topic, type_name, stamps, received, self._values, frame_ids, self._unreadable, self._why
        )


class _EpisodeReader:
    """Reads a bag once, from begin to end."""

    def __init__(
        self, bag: BagReader, topics: TopicMap, cameras: dict[str, str], sizes: PictureSizes
    ) -> None:
        self._bag, self._path, self._cameras, self._wanted = bag, bag.path, cameras, sizes
        self._map = topics
        self._joints: dict[str, None] = {}  # of the messages that are not the gripper's
        self._types = {name: kind for name, (kind, _) in bag.info.topics.items()}
        self._with_messages = {name for name, (_, messages) in bag.info.topics.items() if messages}
        self._topics = self._find_topics(topics)
        self._ages_topic, self._result_topic = topics.absolute(_AGES), topics.absolute(_RESULT)
        self._sizes: dict[str, Size] = {}
        self._looks: dict[str, list[tuple[float, int]]] = {}

    def _find_topics(self, topics: TopicMap) -> dict[str, str]:
        """Stream -> topic, of the streams that the bag has; BagError where one is missing."""
        names = ("ee_pose", "gripper", *COMMANDS, *EXPERT)
        wanted = {name: topics.absolute(getattr(topics, name)) for name in names}
        found = {name: topic for name, topic in wanted.items() if topic in self._with_messages}
        for pose, gripper in (COMMANDS, EXPERT):
            # A gripper that was never commanded: its topic was recorded, and nothing was sent on it.
            if pose in found and wanted[gripper] in self._types:
                found[gripper] = wanted[gripper]
        for name, topic in wanted.items():
            if name not in found and name not in EXPERT:
                has = ", ".join(sorted(self._with_messages))
                raise BagError(
                    f"{self._path}: has no messages on {topic} ({name}); it has {has}: map it with --topics-file"
                )
        if len([name for name in EXPERT if name in found]) == 1:
            raise BagError(f"{self._path}: has only one of {' and '.join(wanted[name] for name in EXPERT)}")
        return found

    def read(self) -> BagEpisode:
        for topic in self._cameras.values():
            if topic not in self._with_messages:
                pictures = self._topics_of(_IMAGES) or "none with pictures"
                raise BagError(
                    f"{self._path}: {topic} has no messages; it has {pictures}: map another topic with --topics-file"
                )
            self._check_type(topic, *_IMAGES)
        for name, topic in self._topics.items():
            expected = (
                (_POSE,) if name.endswith("pose") else (_JOINTS,) if name == "gripper" else (_JOINTS, _FLOAT)
            )
            self._check_type(topic, *expected)
        builders = {
            name: _StreamBuilder(topic, self._translation(name)) for name, topic in self._topics.items()
        }
        for camera, topic in self._cameras.items():
            builders[f"camera {camera}"] = _StreamBuilder(topic, self._picture_translation(camera))
        node_stamps, result = self._read_messages(builders)
        streams = {name: each.build(self._types[each.topic]) for name, each in builders.items()}
        for name, stream in streams.items():
            self._check_usable(name, stream)
        return BagEpisode(
            self._bag.info,
            {camera: streams[f"camera {camera}"] for camera in self._cameras},
            streams["ee_pose"],
            streams["gripper"],
            {name: streams[name] for name in (*COMMANDS, *EXPERT) if name in streams},
            node_stamps,
            {camera: self._sizes[camera] for camera in self._cameras},
            result,
            self._looks,
        )

    def _read_messages(
        self, builders: dict[str, _StreamBuilder]
    ) -> tuple[dict[int, dict[str, int]], dict[str, Any]]:
        """Fill the builders; (the policy node's stamps, the episode's result)."""
        builders_of: dict[str, list[_StreamBuilder]] = {}
        for builder in builders.values():  # one topic may be several streams
            builders_of.setdefault(builder.topic, []).append(builder)
        node_stamps: dict[int, dict[str, int]] = {}
        result: dict[str, Any] = {}
        optional = {self._ages_topic: _JOINTS, self._result_topic: _STRING}
        recorded = [topic for topic, kind in optional.items() if self._types.get(topic) == kind]
        for topic, received_ns, data in self._bag.messages([*builders_of, *recorded]):
            msg = decode(data, self._types[topic], topic, self._path)
            if topic in builders_of:
                stamp_ns = (
                    conversions.stamp_to_ns(msg.header.stamp) if hasattr(msg, "header") else received_ns
                )
                for builder in builders_of[topic]:
                    builder.add(msg, stamp_ns, received_ns)
            elif topic == self._ages_topic:
                try:
                    tick_ns, stamps = conversions.ages_to_stamps(msg)
                except conversions.ConversionError as error:
                    raise BagError(f"{self._path}: {error}") from None
                node_stamps[tick_ns] = stamps
            else:
                result = json_object(msg.data)
        return node_stamps, result

    def _check_type(self, topic: str, *expected: str) -> None:
        found = self._types[topic]
        if found not in expected:
            others = self._topics_of(expected)
            raise BagError(
                f"{self._path}: {topic} is of type {found}, not {' or '.join(expected)}; "
                f"{f'it has {others} of that type' if others else 'no other topic is'}: "
                "map another topic with --topics-file"
            )

    def _topics_of(self, kinds: Sequence[str]) -> str:
        """The topics with messages of these types, as text; empty where there are none."""
        return ", ".join(sorted(topic for topic in self._with_messages if self._types[topic] in kinds))

    def _check_usable(self, name: str, stream: RecordedStream) -> None:
        if not len(stream) and not stream.unreadable and name.endswith("gripper") and self._joints:
            setting = "gripper_joint" if name == "gripper" else "command_gripper_joint"
            raise BagError(
                f"{self._path}: no message on {stream.topic} ({name}) has the joint '{getattr(self._map, setting)}'; "
                f"they have {', '.join(self._joints)}: name another one with {setting}"
            )
        if len(stream) or not stream.unreadable:
            return
        count = stream.unreadable
        if name == "ee_pose":
            raise BagError(
                f"{self._path}: ee_pose: {count} of {count} without a valid orientation: {stream.topic} must hold the "
                "measured one, a quaternion x, y, z, w of length 1"
            )
        what = f"pictures of camera '{name.removeprefix('camera ')}'" if name.startswith("camera") else ""
        what = what or f"messages on {stream.topic} ({name})"
        raise BagError(f"{self._path}: not one of the {count} {what} can be used: {stream.why}")

    def _translation(self, name: str) -> Translation:
        if name == "ee_pose":
            return lambda msg, _: conversions.pose_to_vector(msg)
        if name.endswith("pose"):
            return lambda msg, _: _pose_as_sent(msg)
        topics = self._map
        if name == "gripper":
            states = GripperReader(topics.gripper_joint, topics.gripper_range)
            return lambda msg, _: self._other(msg) if (opening := states.read(msg)) is None else opening
        commands = GripperCommandReader(
            topics.command_gripper_joint, topics.command_gripper_field, topics.command_gripper_range
        )
        return lambda msg, _: commands.read(msg) if commands.is_of_gripper(msg) else self._other(msg)

    def _other(self, msg: Any) -> object:
        """A JointState that is not the gripper's: its joints are kept for the message of a fault."""
        self._joints.update(dict.fromkeys(msg.name))
        return OTHER

    def _picture_translation(self, camera: str) -> Translation:
        """A picture's number, where the live node could use the picture: decoded, and of a shape that fits."""

        def number_of(msg: Any, number: int) -> int:
            rgb = images.to_rgb(msg)
            size = rgb.shape[0], rgb.shape[1]
            check_fits(size, self._wanted.target(camera, self._sizes.get(camera, size)), f"camera {camera}")
            self._sizes.setdefault(camera, size)
            self._looks.setdefault(camera, []).append((contrast(rgb), zlib.crc32(msg.data)))
            return number

        return number_of


def _pose_as_sent(msg: Any) -> NDArray[np.float64]:
    """PoseStamped -> (7,), whatever its quaternion: the audit judges commanded orientations."""
    q = msg.pose.orientation
    return make_pose(conversions.pose_to_position(msg), [q.x, q.y, q.z, q.w])
