"""Subscriptions whose messages are taken a few times a second, and not one by one as they arrive.

An executor wakes for each message. A viewer beside a control loop must not: a pair of cores has other work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

_NO_EVENTS = SubscriptionEventCallbacks(use_default_callbacks=False)


def newest(depth: int = 1, latched: bool = False) -> QoSProfile:
    """Profile that hears every publisher and keeps the last `depth` messages. latched: also what was sent before.

    Best effort, so that no publisher ever waits for a viewer; a latched message needs a reliable reader.
    """
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if latched else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


class _Never(CallbackGroup):
    """A callback group that no executor serves."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        pass


class Polled:
    """Subscriptions of a node, made by `subscribe`; `take` calls their callbacks, `close` destroys them."""

    def __init__(self, node: Node) -> None:
        self._node, self._group = node, _Never()
        self._made: list[Any] = []

    def subscribe(
        self, kind: type, topic: str, callback: Callable[[Any], None], profile: Any, raw: bool = False
    ) -> Any:
        made = self._node.create_subscription(
            kind, topic, callback, profile, callback_group=self._group, event_callbacks=_NO_EVENTS, raw=raw
        )
        self._made.append(made)
        return made

    def take(self) -> None:
        """Call the callbacks with all messages that wait."""
        for made in tuple(self._made):
            with made.handle:
                messages = []
                while (taken := made.handle.take_message(made.msg_type, made.raw)) is not None:
                    messages.append(taken[0])
            for message in messages:
                made.callback(message)

    def forget(self, made: Any) -> None:
        self._made.remove(made)
        self._node.destroy_subscription(made)

    def close(self) -> None:
        while self._made:
            self.forget(self._made[-1])
