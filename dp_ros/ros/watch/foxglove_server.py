"""Server of topics to Foxglove, over its WebSocket protocol, by foxglove-sdk. Messages pass unchanged.

A topic is subscribed to while a client shows it. Of pictures only the newest is passed on at each call of `take`. Where
a client is too slow, the server drops its oldest messages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import unquote, urlsplit

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy
from rclpy.serialization import deserialize_message

from dp_ros.data.bags.reader import BagError
from dp_ros.data.bags.writer import message_definition
from dp_ros.errors import UserError
from dp_ros.ros.watch.polled import Polled, newest
from dp_ros.schema.base import ConfigError

MISSING = "foxglove-sdk is not installed: pip install 'dp_ros[watch]', or start foxglove_bridge"
_BACKLOG = 128  # messages that wait for one client
_DEPTH = 100
_NEWEST_ONLY = {
    f"sensor_msgs/msg/{name}" for name in ("Image", "CompressedImage", "CameraInfo", "PointCloud2")
} | {"visualization_msgs/msg/MarkerArray", "rosgraph_msgs/msg/Clock"}
_CLOCK, _CLOCK_TYPE = "/clock", "rosgraph_msgs/msg/Clock"
_MESH = re.compile(r'filename="(file://[^"]+)"')


class FoxgloveMissingError(UserError):
    """foxglove-sdk cannot be imported; one line that says what to do."""


def has_foxglove() -> bool:
    return find_spec("foxglove") is not None


class FoxgloveServer:
    """Server of all topics of the graph. Those in the node's namespace appear without it, as the layout names them."""

    def __init__(self, node: Node, host: str, port: int) -> None:
        """port: 0, or one that is taken: a free one. FoxgloveMissingError; ConfigError for a host that is not here."""
        if not has_foxglove():
            raise FoxgloveMissingError(MISSING)
        import foxglove
        from foxglove.websocket import Capability

        self._node, self._polled = node, Polled(node)
        self._channels: dict[str, Any] = {}  # ROS topic -> channel
        self._kinds: dict[str, str] = {}
        self._subscriptions: dict[str, Any] = {}
        self._latched: dict[str, list[bytes]] = {}
        self._joined: SimpleQueue[str] = SimpleQueue()  # names of channels, told by the server's thread
        self._now_ns: int | None = None
        self._meshes: frozenset[str] = frozenset()
        self._context = foxglove.Context()
        settings: dict[str, Any] = {
            "name": "dp_ros",
            "host": host,
            "capabilities": [Capability.Time],
            "server_listener": _Listener(self._joined),
            "supported_encodings": ["cdr"],
            "asset_handler": self._asset,
            "context": self._context,
            "message_backlog_size": _BACKLOG,
        }
        try:
            self._server = foxglove.start_server(port=port, **settings)
        except Exception:
            try:
                self._server = foxglove.start_server(port=0, **settings)
            except Exception as error:
                raise ConfigError(f"foxglove_host {host}: cannot be served at ({error})") from None
        self.address = f"ws://{host}:{self._server.port}"

    def close(self) -> None:
        self._polled.close()
        self._server.stop()

    def refresh(self) -> None:
        """Advertise new topics, and end those that nobody publishes."""
        published = {
            topic: kinds[0]
            for topic, kinds in self._node.get_topic_names_and_types()
            if self._node.count_publishers(topic)
        }
        for topic in [topic for topic, kind in self._kinds.items() if published.get(topic) != kind]:
            self._unsubscribe(topic)
            self._channels.pop(topic).close()
            del self._kinds[topic]
        for topic, name in shown_names(published, self._node.get_namespace()).items():
            if topic not in self._channels:
                self._advertise(topic, name, published[topic])

    def take(self) -> None:
        """Follow what the clients show, and pass on what has arrived."""
        for topic, channel in self._channels.items():
            wanted = channel.has_sinks() or self._kinds[topic] == _CLOCK_TYPE
            if wanted and topic not in self._subscriptions:
                self._subscribe(topic)
            elif not wanted and topic in self._subscriptions:
                self._unsubscribe(topic)
        self._polled.take()
        self._repeat_latched()

    def _advertise(self, topic: str, name: str, kind: str) -> None:
        import foxglove

        try:
            definition = message_definition(kind)
            message_class(kind)
        except (BagError, ImportError, AttributeError):  # its package is not installed here
            return
        schema = foxglove.Schema(name=kind, encoding="ros2msg", data=definition.text)
        self._channels[topic] = foxglove.Channel(
            name, schema=schema, message_encoding="cdr", context=self._context
        )
        self._kinds[topic] = kind

    def _subscribe(self, topic: str) -> None:
        kind, channel = self._kinds[topic], self._channels[topic]
        infos = self._node.get_publishers_info_by_topic(topic)
        is_latched = any(i.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for i in infos)
        depth = 1 if kind in _NEWEST_ONLY else _DEPTH
        if is_latched:
            self._latched[topic] = []

        def forward(data: bytes) -> None:
            if topic in self._latched:
                self._latched[topic] = [*self._latched[topic], data][-_DEPTH:]
            self._look_into(kind, data)
            channel.log(data, log_time=self._now_ns)

        made = self._polled.subscribe(
            message_class(kind), topic, forward, newest(depth, latched=is_latched), raw=True
        )
        self._subscriptions[topic] = made

    def _unsubscribe(self, topic: str) -> None:
        self._latched.pop(topic, None)
        if (made := self._subscriptions.pop(topic, None)) is not None:
            self._polled.forget(made)

    def _look_into(self, kind: str, data: bytes) -> None:
        """Take the time from /clock, and from a robot's model the meshes that clients may ask for."""
        if kind == _CLOCK_TYPE:
            clock = deserialize_message(data, message_class(kind)).clock
            self._now_ns = clock.sec * 1_000_000_000 + clock.nanosec
            self._server.broadcast_time(self._now_ns)
        elif kind == "std_msgs/msg/String" and b"<robot" in data:
            self._meshes |= frozenset(_MESH.findall(deserialize_message(data, message_class(kind)).data))

    def _repeat_latched(self) -> None:
        """Pass latched messages on again where a client has joined after them."""
        joined = set()
        while True:
            try:
                joined.add(self._joined.get_nowait())
            except Empty:
                break
        for topic, messages in self._latched.items():
            if self._channels[topic].topic() in joined:
                for data in messages:
                    self._channels[topic].log(data, log_time=self._now_ns)

    def _asset(self, uri: str) -> bytes | None:
        """A mesh of the robot's model; None for every other file. Called by the server's thread."""
        if uri not in self._meshes:
            return None
        return Path(unquote(urlsplit(uri).path)).read_bytes()


class _Listener:
    """Callbacks of the server about its clients."""

    def __init__(self, joined: SimpleQueue[str]) -> None:
        self._joined = joined

    def on_subscribe(self, client: Any, channel: Any) -> None:
        self._joined.put(channel.topic)

    def on_unsubscribe(self, client: Any, channel: Any) -> None:
        """Nothing: `take` sees it. Without this method the server would report an error each time."""


def shown_names(published: Mapping[str, str], namespace: str) -> dict[str, str]:
    """ROS topic -> name for Foxglove, which is without the namespace.

    A topic outside of the namespace that has one of these names is left out.
    """
    prefix = f"{namespace.rstrip('/')}/"
    own = {topic: f"/{topic.removeprefix(prefix)}" for topic in published if topic.startswith(prefix)}
    taken = set(own.values())
    return own | {topic: topic for topic in published if topic not in own and topic not in taken}


def message_class(kind: str) -> Any:
    """ "std_msgs/msg/String" -> its class; ImportError or AttributeError where it is not installed."""
    package, folder, name = kind.split("/")
    return getattr(import_module(f"{package}.{folder}"), name)
