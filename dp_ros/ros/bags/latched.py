"""Latched messages of the recorded topics, kept for the bags to come: they stay valid until they are replaced."""

from __future__ import annotations

from collections.abc import Callable, Collection

from rclpy.serialization import deserialize_message
from std_msgs.msg import Int64, String

_KEPT = 50  # of a topic, whatever the number of its publishers
_FACTS = {"task": String, "seed": Int64}  # of the episode topics
_OF_LAST_EPISODE = ("success", "result")


class LatchedMessages:
    """Serialized messages by topic. Of an episode topic only the newest is valid; other topics, e.g. /tf_static, may
    have several publishers, each with a valid message."""

    def __init__(self, resolve: Callable[[str], str]) -> None:
        """`resolve` makes a topic name absolute."""
        self._episode_prefix = resolve("episode/task").removesuffix("task")
        self._messages: dict[str, dict[bytes, int]] = {}  # topic -> message -> when it was sent
        self.facts: dict[str, str] = {}  # task and seed of the episode, once they were published

    def keep(self, topic: str, data: bytes, sent_ns: int) -> None:
        name = topic.removeprefix(self._episode_prefix)
        if name in _FACTS:
            self.facts[name] = str(deserialize_message(data, _FACTS[name]).data)
        if name in _OF_LAST_EPISODE:
            return
        kept = self._messages.setdefault(topic, {})
        if name != topic:
            kept.clear()
        kept.pop(data, None)
        kept[data] = sent_ns
        while len(kept) > _KEPT:
            kept.pop(next(iter(kept)))

    def of(self, topic: str) -> Collection[tuple[bytes, int]]:
        """(message, time it was sent [ns]) of a topic, oldest first."""
        return self._messages.get(topic, {}).items()
