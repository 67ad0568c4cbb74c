"""Recording of one episode: a bounded queue, and a thread that writes it to a bag.

The receiver of messages never waits for the disk. Messages that do not fit into the queue are dropped and counted.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dp_ros.data.bags.reader import BagError
from dp_ros.data.bags.writer import BagWriter
from dp_ros.schema import RecorderConfig

MB = 1_000_000
_OVERHEAD_BYTES = 200  # of a queued message, in addition to its data


@dataclass(frozen=True)
class _Message:
    topic: str
    data: bytes
    received_ns: int
    sent_ns: int
    queued_s: float


@dataclass(frozen=True)
class _Topic:
    topic: str
    type_name: str
    qos: Sequence[Mapping[str, Any]]


class Recording:
    """Records until `close`. `problem` is the reason why it ended earlier, e.g. a full disk; else empty."""

    def __init__(self, path: str | Path, config: RecorderConfig, custom: Mapping[str, str]) -> None:
        """Begin the bag `path`. BagError where the disk has too little space or the folder cannot be made."""
        self.path = Path(path)
        self.config = config
        self.dropped: Counter[str] = Counter()
        self.written: Counter[str] = Counter()  # messages of each topic
        self.problem = ""
        self._queue: deque[_Message | _Topic] = deque()
        self._queued_bytes = 0
        self._wake = threading.Condition()
        self._closing = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if reason := self._too_full():
                raise BagError(f"{self.path.parent}: {reason}")
            self._writer = BagWriter(self.path, custom, config.compression)
        except OSError as error:
            raise BagError(f"{self.path}: cannot be recorded ({error.strerror or error})") from None
        self._thread = threading.Thread(target=self._run, name="bag-writer", daemon=True)
        self._thread.start()

    def add_topic(self, topic: str, type_name: str, qos: Sequence[Mapping[str, Any]] = ()) -> None:
        """Announce a topic, before its first message."""
        with self._wake:
            self._queue.append(_Topic(topic, type_name, qos))
            self._wake.notify()

    def put(self, topic: str, data: bytes, received_ns: int, sent_ns: int) -> bool:
        """Queue one serialized message; False when it was dropped because the queue is full or the recording ended."""
        size = len(data) + _OVERHEAD_BYTES
        with self._wake:
            if self._closing or self.problem or self._queued_bytes + size > self.config.queue_mb * MB:
                self.dropped[topic] += 1
                return False
            self._queued_bytes += size
            self._queue.append(_Message(topic, data, received_ns, sent_ns, time.monotonic()))
            self._wake.notify()
            return True

    @property
    def backlog_s(self) -> float:
        """Waiting time of the oldest queued message."""
        with self._wake:
            first = next((item for item in self._queue if isinstance(item, _Message)), None)
            return time.monotonic() - first.queued_s if first else 0.0

    def close(self, custom: Mapping[str, str]) -> None:
        """Write the queued messages, then close the bag with `custom` and the counts of dropped messages.

        BagError where it could not be closed. Everything that reached the disk can then be repaired.
        """
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        facts = {**custom, "dropped": json.dumps(dict(self.dropped), sort_keys=True)}
        if self.problem:
            facts["problem"] = self.problem
        try:
            self._writer.close(facts)
        except OSError as error:
            raise BagError(
                f"{self.path}: could not be closed ({error.strerror or error}); free some space and run "
                f"`dp_ros bag repair {self.path}`"
            ) from None

    def _run(self) -> None:
        synced_s = time.monotonic()
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._queue or self._closing, timeout=self.config.sync_s)
                batch = list(self._queue)
                self._queue.clear()
                # Subtracted after writing, when the memory is free.
                size = sum(len(m.data) + _OVERHEAD_BYTES for m in batch if isinstance(m, _Message))
                ends = self._closing and not batch
            if ends:
                return
            for item in batch:
                try:
                    synced_s = self._sync_when_due(synced_s)
                    self._write(item)
                except Exception as error:  # of any kind: the recorder must report it
                    self._give_up(f"writing failed ({getattr(error, 'strerror', None) or error})")
                    self._count_dropped(item)
            try:
                synced_s = self._sync_when_due(synced_s)
            except OSError as error:
                self._give_up(f"writing failed ({error.strerror or error})")
            with self._wake:
                self._queued_bytes -= size

    def _write(self, item: _Message | _Topic) -> None:
        if isinstance(item, _Topic):
            self._writer.add_topic(item.topic, item.type_name, item.qos)
        elif self.problem:
            self._count_dropped(item)
        else:
            self._writer.write(item.topic, item.data, item.received_ns, item.sent_ns)
            self.written[item.topic] += 1

    def _count_dropped(self, item: _Message | _Topic) -> None:
        if isinstance(item, _Message):
            self.dropped[item.topic] += 1

    def _sync_when_due(self, synced_s: float) -> float:
        if time.monotonic() - synced_s < self.config.sync_s or self.problem:
            return synced_s
        self._writer.sync()
        if reason := self._too_full():
            self._give_up(reason)
        return time.monotonic()

    def _give_up(self, reason: str) -> None:
        with self._wake:
            self.problem = self.problem or f"{self.path}: {reason}"

    def _too_full(self) -> str:
        free_mb = shutil.disk_usage(self.path.parent).free / MB
        if free_mb >= self.config.min_free_mb:
            return ""
        return f"only {free_mb:.0f} MB are free on the disk, fewer than {self.config.min_free_mb:.0f} (min_free_mb)"
