"""Storage files of a bag, as serialized messages in the order of receipt.

It builds on the rosbags library, and reads what that library refuses or leaves out: topics whose type was not installed
where the bag was recorded, several channels of one topic, chunks without a message index, and the write-ahead log of an
sqlite3 file.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Collection, Generator, Iterator, Set
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2 import Reader, ReaderError
from rosbags.rosbag2.metadata import ReaderMetadata
from rosbags.rosbag2.reader import DirectoryReader
from rosbags.rosbag2.storage_mcap import McapReader, Schema

_LANGUAGES = ("ros2msg", "ros2idl", "omgidl")
_NO_SCHEMA = "__schemaless__"  # rosbags' type of a channel without a schema
_EMPTY = ReaderMetadata(0, 2**63 - 1, 0, 0, None, None, None, None)


class _Schemas(dict[int, Schema]):
    """Schemas of an MCAP file. One that is not ROS's counts as unknown: a type that was not installed, or JSON."""

    def __setitem__(self, key: int, schema: Schema) -> None:
        is_known = schema.encoding in _LANGUAGES
        super().__setitem__(key, schema if is_known else schema._replace(encoding="", data=""))


class _McapFile(McapReader):
    def __init__(self, path: Any) -> None:
        super().__init__(path)
        self.schemas = _Schemas()

    def read_index(self) -> None:
        super().read_index()
        unindexed = [chunk for chunk in self.chunks if not chunk.message_index_offsets]
        for chunk in unindexed:  # it may hold messages of every channel
            chunk.channel_count.update(dict.fromkeys(self.channels, 1))
        if unindexed and self.statistics is None:
            self.meta_scan()


class _Sqlite3File:
    """File of the sqlite3 storage, with the messages that a killed recorder left in its write-ahead log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections: list[Connection] = []
        self.metadata = _EMPTY
        self._database: sqlite3.Connection | None = None

    def open(self) -> None:
        self._database = sqlite3.connect(self._uri(), uri=True)
        try:
            self._read_topics(self._database)
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise ReaderError(f"{self.path.name}: {error}") from error
            raise

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def messages(
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Generator[tuple[Connection, int, bytes], None, None]:
        """(connection, receive time, data) in the order of receipt, of the times from `start` to before `stop`."""
        assert self._database is not None
        by_id = {each.id: each for each in connections}
        places = ",".join("?" * len(by_id))
        rows = self._database.execute(
            f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({places}) "
            "AND timestamp >= ? AND timestamp < ? ORDER BY timestamp",
            (*by_id, start or 0, 2**63 - 1 if stop is None else stop),
        )
        for topic_id, received_ns, data in rows:
            yield by_id[topic_id], received_ns, data

    def _uri(self) -> str:
        """Without a log the file is opened as immutable: that makes no files beside it."""
        log = self.path.with_name(self.path.name + "-wal")
        mode = "mode=ro" if log.is_file() and log.stat().st_size else "immutable=1"
        return f"file:{quote(str(self.path.absolute()))}?{mode}"

    def _read_topics(self, database: sqlite3.Connection) -> None:
        counts = dict(database.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"))
        self.connections = [
            Connection(
                topic_id,
                topic,
                kind,
                MessageDefinition(MessageDefinitionFormat.NONE, ""),
                "",
                counts.get(topic_id, 0),
                ConnectionExtRosbag2(encoding, []),
                self,
            )
            for topic_id, topic, kind, encoding in database.execute(
                "SELECT id, name, type, serialization_format FROM topics ORDER BY id"
            )
        ]
        first, last = database.execute("SELECT min(timestamp), max(timestamp) FROM messages").fetchone()
        if first is not None:
            self.metadata = ReaderMetadata(
                last + 1 - first, first, last + 1, sum(counts.values()), None, None, None, None
            )


class _Folder(DirectoryReader):
    STORAGE_PLUGINS = MappingProxyType[str, Any]({"mcap": _McapFile, "sqlite3": _Sqlite3File})


class StorageReader(Reader):
    """Bag folder or single storage file."""

    STORAGE_PLUGINS = MappingProxyType[str, Any]({"dir": _Folder, ".mcap": _McapFile, ".db3": _Sqlite3File})

    def types(self, topic: str) -> set[str]:
        """Message types of a topic, in metadata.yaml and in the files."""
        connections = [*self.connections, *(each for file in self._files for each in file.connections)]
        return {each.msgtype for each in connections if each.topic == topic} - {_NO_SCHEMA}

    def publishers(self, topic: str) -> int:
        """Number of publishers of a topic, of which recorders keep the QoS profiles; 0 where none was kept."""
        profiles = (getattr(each.ext, "offered_qos_profiles", ()) for each in self.topics[topic].connections)
        return max(map(len, profiles), default=0)

    @property
    def ros_topics(self) -> set[str]:
        """Topics with serialized ROS messages; an MCAP file may hold others, in JSON say."""
        found = {
            each.topic for each in self.connections if getattr(each.ext, "serialization_format", "") == "cdr"
        }
        return {topic for topic in found if self.types(topic)}

    def messages_on(self, topics: Set[str]) -> Iterator[tuple[str, int, bytes]]:
        """(topic, receive time [ns], data) of all messages on the topics, in the order of their receive times.

        A topic's channels count whatever QoS they name: users edit QoS profiles in metadata.yaml to replay a bag.
        """
        channels = [[each for each in file.connections if each.topic in topics] for file in self._files]
        streams = [file.messages(found) for file, found in zip(self._files, channels, strict=True) if found]
        for connection, received_ns, data in heapq.merge(*streams, key=lambda message: int(message[1])):
            yield connection.topic, received_ns, data

    @property
    def _files(self) -> list[Any]:
        return self.storage.storages if isinstance(self.storage, DirectoryReader) else [self.storage]
