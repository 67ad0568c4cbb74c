"""Topics of an episode, and subscriptions that receive their messages in serialized form."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from dp_ros.data.bags.reader import BagError
from dp_ros.data.bags.writer import message_definition
from dp_ros.schema import RecorderConfig, TopicMap
from dp_ros.schema.topics import COMPRESSED

# Deep enough that a busy second loses nothing; pictures are large.
_DEPTH, _PICTURE_DEPTH = 2000, 200
_PICTURES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_OTHERS = (
    "joint_states", "command/ee_pose", "command/gripper", "expert/ee_pose", "expert/gripper",
    "policy/shadow/ee_pose", "policy/shadow/gripper", "policy/verdict",
    "policy/ages", "policy/session", "policy/ticks", "policy/status", "episode/task", "episode/seed",
    "episode/success", "episode/result",
)  # fmt: skip

# (topic, message, received [ns], sent [ns])
OnMessage = Callable[[str, bytes, int, int], None]


_CAMERA = "gripperPOV"  # recorded where nobody names a camera


def required_topics(config: RecorderConfig, topics: TopicMap) -> list[str]:
    """Topics without which no episode can be recorded, as the robot calls them: pictures and measured state."""
    names = topics.names()
    pictures = [
        f"camera/{camera}/image_raw"
        + (COMPRESSED if topics.is_compressed(camera, config.image_transport) else "")
        for camera in recorded_cameras(config, topics)
    ]
    return [names.get(topic, topic) for topic in (*pictures, "ee_pose", "gripper/state")]


def wanted_topics(config: RecorderConfig, topics: TopicMap) -> list[str]:
    """All topics to record, where they are published, as the robot calls them."""
    names = topics.names()
    ours = [*(f"camera/{camera}/camera_info" for camera in recorded_cameras(config, topics)), *_OTHERS]
    others = [names.get(topic, topic) for topic in ours]
    return list(dict.fromkeys([*required_topics(config, topics), *others, *config.topics]))


def recorded_cameras(config: RecorderConfig, topics: TopicMap) -> tuple[str, ...]:
    return config.cameras or tuple(topics.cameras) or (_CAMERA,)


@dataclass
class Source:
    """A subscribed topic."""

    topic: str  # resolved
    type_name: str
    qos: list[dict[str, Any]]  # profiles that its publishers offer, in rosbag2's form
    profile: QoSProfile
    subscription: Any

    @property
    def is_latched(self) -> bool:
        return bool(self.profile.durability == DurabilityPolicy.TRANSIENT_LOCAL)


class Sources:
    """Subscriptions to all wanted topics that have a publisher, with the most reliable QoS that it offers."""

    def __init__(self, node: Node, topics: Sequence[str], on_message: OnMessage) -> None:
        self._node, self._on_message = node, on_message
        self._wanted = {node.resolve_topic_name(topic): topic for topic in topics}
        self.found: dict[str, Source] = {}
        self.refused: dict[str, str] = {}  # topic -> why
        self.lost: Counter[str] = Counter()  # messages that never arrived, counted by the middleware

    def discover(self) -> list[Source]:
        """Look for publishers again; returns new sources, and those whose publishers changed their QoS."""
        changed = []
        for topic in self._wanted:
            infos = self._node.get_publishers_info_by_topic(topic)
            if not infos or topic in self.refused:
                continue
            is_picture = infos[0].topic_type in _PICTURES
            profile = _profile([info.qos_profile for info in infos], is_picture)
            known = self.found.get(topic)
            if known and known.type_name != infos[0].topic_type:
                self._refuse(
                    topic, f"is now {infos[0].topic_type}, and was {known.type_name}: restart the recorder"
                )
                continue
            if known and (known.profile.reliability, known.profile.durability) == (
                profile.reliability,
                profile.durability,
            ):
                continue
            if known:
                self._drain(known)
                self._node.destroy_subscription(known.subscription)
            try:
                self.found[topic] = self._subscribe(topic, infos[0].topic_type, profile, infos)
            except (BagError, ImportError, AttributeError, RuntimeError) as error:
                self.found.pop(topic, None)
                self._refuse(topic, f"{infos[0].topic_type} cannot be recorded ({error})")
                continue
            changed.append(self.found[topic])
        return changed

    def missing(self, required: Sequence[str]) -> list[str]:
        """The required topics that have no publisher or are not subscribed."""
        names = map(self._node.resolve_topic_name, required)
        return [name for name in names if not self._node.count_publishers(name) or name not in self.found]

    def drain(self) -> None:
        """Process all messages that have arrived, without an executor."""
        for source in self.found.values():
            self._drain(source)

    def _drain(self, source: Source) -> None:
        subscription = source.subscription
        with subscription.handle:
            while (taken := subscription.handle.take_message(subscription.msg_type, True)) is not None:
                subscription.callback(*taken)

    def _refuse(self, topic: str, why: str) -> None:
        self.refused[topic] = why
        self._node.get_logger().error(f"{topic}: {why}")

    def close(self) -> None:
        for source in self.found.values():
            self._node.destroy_subscription(source.subscription)
        self.found.clear()

    def _subscribe(self, topic: str, type_name: str, profile: QoSProfile, infos: Sequence[Any]) -> Source:
        message_definition(type_name)  # refused here rather than in the middle of an episode
        package, kind, name = type_name.split("/")
        message_type = getattr(importlib.import_module(f"{package}.{kind}"), name)

        def receive(data: bytes, info: Mapping[str, int]) -> None:
            self._on_message(topic, data, info["received_timestamp"], info["source_timestamp"])

        def count_lost(status: Any) -> None:
            self.lost[topic] += status.total_count_change

        subscription = self._node.create_subscription(
            message_type,
            topic,
            receive,
            profile,
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(message_lost=count_lost),
        )
        offered = [_as_rosbag2(info.qos_profile) for info in infos]
        return Source(topic, type_name, offered, profile, subscription)


def _profile(offered: Sequence[QoSProfile], pictures: bool) -> QoSProfile:
    """The most reliable and durable profile that every publisher can serve."""
    reliable = all(profile.reliability == ReliabilityPolicy.RELIABLE for profile in offered)
    latched = all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in offered)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=_PICTURE_DEPTH if pictures else _DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def _as_rosbag2(profile: QoSProfile) -> dict[str, Any]:
    def duration(value: Any) -> dict[str, int]:
        sec, nsec = divmod(value.nanoseconds, 1_000_000_000)
        return {"sec": sec, "nsec": nsec}

    return {
        "history": profile.history.name.lower(),
        "depth": profile.depth,
        "reliability": profile.reliability.name.lower(),
        "durability": profile.durability.name.lower(),
        "deadline": duration(profile.deadline),
        "lifespan": duration(profile.lifespan),
        "liveliness": profile.liveliness.name.lower(),
        "liveliness_lease_duration": duration(profile.liveliness_lease_duration),
        "avoid_ros_namespace_conventions": profile.avoid_ros_namespace_conventions,
    }
