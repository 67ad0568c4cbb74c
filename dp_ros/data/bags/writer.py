"""Writer of rosbag2 bags (MCAP, metadata.yaml) from serialized messages, which are never decoded.

Messages written before the last `sync` survive a killed process and a power failure: every sync ends a chunk and brings
it to the disk. metadata.yaml is written last, so a bag that has one was closed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from mcap.writer import CompressionType, Writer
from rosbags.interfaces import Nodetype
from rosbags.interfaces.typing import Typesdict
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from dp_ros import __version__
from dp_ros.data.bags.reader import METADATA_RECORD, BagError
from dp_ros.files import sync, write_text

Compression = Literal["none", "zstd"]
_COMPRESSION = {"none": CompressionType.NONE, "zstd": CompressionType.ZSTD}
_VERSION = 9  # of metadata.yaml, Jazzy's
_CHUNK_BYTES = 4 << 20


class Definition(NamedTuple):
    """Definition of a message type inside a bag, to read it where the type is not installed."""

    text: bytes
    digest: str  # RIHS01
    encoding: str = "ros2msg"


class BagWriter:
    """Writes one bag. After an OSError of `write` or `sync`, `close` still saves as much as possible."""

    def __init__(
        self, path: str | Path, custom: Mapping[str, str], compression: Compression = "none"
    ) -> None:
        """Create the folder `path`, which must not exist. `custom` is written immediately."""
        self.path = Path(path)
        self.custom = dict(custom)
        try:
            self.path.mkdir(parents=True)
        except FileExistsError:
            raise BagError(f"{self.path}: exists already; choose another name") from None
        self._name = f"{self.path.name}_0.mcap"
        self._file = (self.path / self._name).open("xb")
        self._writer = Writer(self._file, chunk_size=_CHUNK_BYTES, compression=_COMPRESSION[compression])
        self._writer.start(profile="ros2", library=f"dp_ros {__version__}")
        self._writer.add_metadata(METADATA_RECORD, self.custom)
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._topics: dict[str, dict[str, Any]] = {}
        self._counts: dict[str, int] = {}
        self._first_ns: int | None = None
        self._last_ns = 0
        self.sync()
        sync(self.path)  # the file's name, too, must survive a power failure

    def add_topic(
        self,
        topic: str,
        type_name: str,
        qos: Sequence[Mapping[str, Any]] = (),
        definition: Definition | None = None,
    ) -> None:
        """Announce a topic: its type ("sensor_msgs/msg/Image") and the QoS profiles of its publishers.

        A second call for the same topic has no effect; BagError where the type differs.
        """
        if topic in self._topics:
            if self._topics[topic]["type"] != type_name:
                raise BagError(
                    f"{topic}: is recorded as {self._topics[topic]['type']}, and is now {type_name}"
                )
            return
        definition = definition or message_definition(type_name)
        if type_name not in self._schemas:
            self._schemas[type_name] = self._writer.register_schema(
                type_name, definition.encoding, definition.text
            )
        profiles = [dict(profile) for profile in qos]
        self._channels[topic] = self._writer.register_channel(
            topic,
            "cdr",
            self._schemas[type_name],
            {
                "offered_qos_profiles": yaml.safe_dump(profiles, sort_keys=False).strip() if profiles else "",
                "topic_type_hash": definition.digest,
            },
        )
        self._counts[topic] = 0
        self._topics[topic] = {
            "name": topic,
            "type": type_name,
            "serialization_format": "cdr",
            "offered_qos_profiles": profiles,
            "type_description_hash": definition.digest,
        }

    def write(self, topic: str, data: bytes, received_ns: int, sent_ns: int) -> None:
        """Append one serialized message of an announced topic."""
        self._writer.add_message(
            self._channels[topic], received_ns, data, sent_ns, sequence=self._counts[topic]
        )
        self._counts[topic] += 1
        self._first_ns = received_ns if self._first_ns is None else min(self._first_ns, received_ns)
        self._last_ns = max(self._last_ns, received_ns)

    def sync(self) -> None:
        """Bring all written messages to the disk."""
        self._writer.flush()  # type: ignore[no-untyped-call]
        os.fdatasync(self._file.fileno())

    @property
    def topics(self) -> tuple[str, ...]:
        return tuple(self._topics)

    @property
    def messages(self) -> int:
        return sum(self._counts.values())

    def close(self, custom: Mapping[str, str] | None = None) -> None:
        """Write the index, then metadata.yaml; `custom` adds to the data given at the start."""
        self.custom |= custom or {}
        try:
            self._writer.add_metadata(METADATA_RECORD, self.custom)
            self._writer.finish()  # type: ignore[no-untyped-call]
            self._file.flush()
            os.fdatasync(self._file.fileno())
        finally:
            self._file.close()
        write_metadata(self.path, self._metadata())

    def _metadata(self) -> dict[str, Any]:
        first = self._first_ns or 0

        def span() -> dict[str, Any]:
            return {
                "starting_time": {"nanoseconds_since_epoch": first},
                "duration": {"nanoseconds": max(0, self._last_ns - first)},
                "message_count": self.messages,
            }

        return {
            "version": _VERSION,
            "storage_identifier": "mcap",
            "relative_file_paths": [self._name],
            **span(),
            "topics_with_message_count": [
                {"topic_metadata": topic, "message_count": self._counts[name]}
                for name, topic in self._topics.items()
            ],
            "compression_format": "",  # MCAP compresses its own chunks
            "compression_mode": "",
            "files": [{"path": self._name, **span()}],
            "custom_data": self.custom or None,
            "ros_distro": os.environ.get("ROS_DISTRO", "jazzy"),
        }


def write_metadata(bag: Path, information: Mapping[str, Any]) -> None:
    """Write metadata.yaml of the folder `bag`, whole or not at all."""
    text = yaml.safe_dump({"rosbag2_bagfile_information": dict(information)}, sort_keys=False)
    write_text(bag / "metadata.yaml", text)


@lru_cache(maxsize=256)
def message_definition(type_name: str) -> Definition:
    """The .msg text of a type and of the types it contains, and its hash; BagError for an unknown type."""
    store = _typestore()
    if type_name not in store.fielddefs:
        _register_installed(store, type_name)
    text, _ = store.generate_msgdef(type_name, ros_version=2)
    return Definition(text.encode(), store.hash_rihs01(type_name))


@lru_cache(maxsize=1)
def _typestore() -> Typestore:
    return get_typestore(Stores.ROS2_JAZZY)


def _register_installed(store: Typestore, type_name: str) -> None:
    """Register a type that is not part of ROS, from the .msg files of its installed package."""
    wanted = [type_name]
    found: Typesdict = {}
    while wanted:
        name = wanted.pop()
        if name in store.fielddefs or name in found:
            continue
        package, _, message = name.partition("/msg/")
        prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
        files = [prefix / "share" / package / "msg" / f"{message}.msg" for prefix in prefixes]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            raise BagError(
                f"{name}: its definition is not installed (no share/{package}/msg/{message}.msg in "
                "AMENT_PREFIX_PATH); source the workspace that defines it, or do not record its topic"
            )
        types = get_types_from_msg(file.read_text(), name)
        found |= types
        wanted += [inner for _, field in types[name][1] if (inner := _message_name(field))]
    store.register(found)


def _message_name(field: Any) -> str | None:
    """The message type of a field or of its elements; None for a primitive."""
    kind, inner = field
    if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        return _message_name(inner[0])
    return str(inner) if kind == Nodetype.NAME else None
