"""Repair of bags that were not closed, or were truncated: every whole chunk is kept, and the index is rebuilt.

The repaired file replaces the damaged one only when it is complete on the disk. Where bytes could not be read, the
damaged file stays beside it as `*.damaged`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcap.records import Attachment, Channel, Chunk, McapRecord, Message, Metadata, Schema
from mcap.stream_reader import StreamReader, breakup_chunk

from dp_ros.data.bags.compression import decompress_files
from dp_ros.data.bags.information import has_index, information_of, merged, qos_of
from dp_ros.data.bags.reader import (
    CDR,
    METADATA_RECORD,
    BagError,
    BagReader,
    compressed_files,
    plain_message,
    read_metadata,
    repair_hint,
    storage_files,
)
from dp_ros.data.bags.writer import BagWriter, Definition, write_metadata

DAMAGED = ".damaged"
_LARGEST_RECORD = 1 << 30  # a length beyond this is damage, not data


class NothingToSaveError(BagError):
    """A file without a single whole chunk of messages."""


@dataclass(frozen=True)
class Repair:
    """Result of a repair."""

    messages: int  # kept
    chunks_lost: int  # of the right length, but with damaged contents
    bytes_lost: int  # after the last record that could be read
    was_whole: bool  # nothing had to be repaired

    def __str__(self) -> str:
        if self.was_whole:
            return f"was whole, {self.messages} messages"
        lost = f", lost {self.chunks_lost} chunks and {self.bytes_lost} bytes at the end"
        return f"repaired, {self.messages} messages kept{lost if self.chunks_lost or self.bytes_lost else ''}"


def repair(bag: str | Path) -> Repair:
    """Make a folder of .mcap files readable again; BagError where that is impossible.

    Whole files stay as they are and get their metadata.yaml. Damaged ones, those without an index, and those with
    compressed messages are rewritten. Of a bag that was not closed, files compressed as a whole are decompressed.
    """
    path = Path(bag)
    if not path.is_dir():
        what = "is a file: give the folder it is in" if path.is_file() else "does not exist"
        raise BagError(f"{path}: {what}")
    whole = _messages_if_whole(path)
    if whole is not None and all(has_index(file) for file in _mcap_files(path)):
        return Repair(whole, 0, 0, was_whole=True)
    if any(".db3" in file.name for file in (*storage_files(path), *compressed_files(path))):
        raise BagError(f"{path}: is an sqlite3 bag; {repair_hint(path)}")
    unneeded = decompress_files(path)
    files = _mcap_files(path)
    if not files:
        raise BagError(f"{path}: holds no .mcap file, so there is nothing to repair")
    done = _rewrite_split(path, files) if len(files) > 1 or _is_good(files[0]) else _rewrite(path, files[0])
    for file in unneeded:
        file.unlink()
    return done


def _mcap_files(path: Path) -> list[Path]:
    return [file for file in storage_files(path) if file.suffix == ".mcap"]


def _messages_if_whole(path: Path) -> int | None:
    """Number of messages of an undamaged bag; None for a damaged one."""
    try:
        with BagReader(path) as bag:
            read = sum(1 for _ in bag.messages(bag.info.topics))
            return read if read == bag.info.messages else None
    except BagError:
        return None


def _rewrite(path: Path, file: Path) -> Repair:
    """A bag of one file."""
    information, scan = _rewrite_file(path, file)
    custom = {**(information["custom_data"] or {}), **_known_custom(path), "repaired": str(scan)}
    write_metadata(path, {**information, "custom_data": custom})
    return Repair(information["message_count"], scan.chunks_lost, scan.bytes_lost, was_whole=False)


def _rewrite_split(path: Path, files: Sequence[Path]) -> Repair:
    """A bag of several files. One without any whole chunk is set aside."""
    parts: list[dict[str, Any]] = []
    chunks_lost = bytes_lost = rewritten = 0
    for file in files:
        if _is_good(file):
            parts.append(information_of(file))
            continue
        size = file.stat().st_size
        try:
            information, scan = _rewrite_file(path, file)
        except NothingToSaveError:
            os.replace(file, file.with_name(file.name + DAMAGED))
            bytes_lost += size
            continue
        parts.append(information)
        rewritten += 1
        chunks_lost, bytes_lost = chunks_lost + scan.chunks_lost, bytes_lost + scan.bytes_lost
    if not parts:
        raise BagError(f"{path}: its files hold not one whole chunk of messages; nothing can be saved")
    information = merged(parts)
    custom = {
        key: value for part in parts for key, value in (part["custom_data"] or {}).items()
    } | _known_custom(path)
    custom.setdefault("outcome", "unknown")
    custom["repaired"] = (
        f"{rewritten} of {len(files)} files, {chunks_lost} chunks and {bytes_lost} bytes lost"
    )
    write_metadata(path, {**information, "custom_data": custom})
    return Repair(information["message_count"], chunks_lost, bytes_lost, was_whole=False)


def _is_good(file: Path) -> bool:
    """Whether a file can stay as it is."""
    if _messages_if_whole(file) is None or not has_index(file):
        return False
    with BagReader(file) as bag:
        return bag.is_plain()


def _rewrite_file(path: Path, file: Path) -> tuple[dict[str, Any], _Scan]:
    """Replace one file of the bag `path` by a whole one; its part of metadata.yaml, and what was lost."""
    staging = path / ".repairing" / path.name
    shutil.rmtree(staging.parent, ignore_errors=True)
    scan = _Scan(file)
    try:
        writer: BagWriter | None = None
        custom: dict[str, str] = {}
        topics: dict[int, str] = {}
        schemas: dict[int, Schema] = {}
        others: list[Metadata] = []
        for record in scan.records():
            if isinstance(record, Metadata) and record.name == METADATA_RECORD:
                custom |= record.metadata
            elif isinstance(record, Metadata) and record.name != "rosbag2":
                others.append(record)
            elif isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Attachment) or (
                isinstance(record, Channel)
                and (record.schema_id not in schemas or record.message_encoding != "cdr")
            ):
                raise BagError(
                    f"{path}: {file.name} holds more than ROS messages, and a repair here would lose it; try "
                    f"`mcap recover {file}`"
                )
            elif isinstance(record, Channel) and record.id not in topics:
                topics[record.id] = record.topic
                writer = writer or BagWriter(staging, custom)
                if record.topic not in writer.topics:
                    schema = schemas[record.schema_id]
                    digest = record.metadata.get("topic_type_hash", "")
                    definition = Definition(schema.data, digest, schema.encoding)
                    writer.add_topic(record.topic, schema.name, qos_of(record), definition)
            elif isinstance(record, Message) and writer is not None and record.channel_id in topics:
                data = plain_message(bytes(record.data), path)
                if data[:1] != CDR:
                    raise BagError(
                        f"{path}: a message on {topics[record.channel_id]} in {file.name} is neither CDR nor zstd: it "
                        "cannot be repaired here"
                    )
                writer.write(topics[record.channel_id], data, record.log_time, record.publish_time)
        if writer is None or not writer.messages:
            raise NothingToSaveError(
                f"{path}: {file.name} holds not one whole chunk of messages; nothing can be saved"
            )
        custom.setdefault("outcome", "unknown")
        writer.close({**custom, **_known_custom(path), "repaired": str(scan)})
        information = read_metadata(staging)
        information["relative_file_paths"] = [file.name]
        information["files"][0]["path"] = file.name
        if scan.chunks_lost or scan.bytes_lost or others:
            os.replace(file, file.with_name(file.name + DAMAGED))
        os.replace(next(iter(storage_files(staging))), file)
    except OSError as error:
        raise BagError(
            f"{path}: cannot be repaired ({error.strerror or error}); it is left as it was"
        ) from None
    finally:
        shutil.rmtree(staging.parent, ignore_errors=True)
    return information, scan


class _Scan:
    """Reader of a damaged file's records, up to the first that cannot be read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.chunks_lost = self.bytes_lost = 0

    def __str__(self) -> str:
        return f"{self.chunks_lost} chunks and {self.bytes_lost} bytes lost"

    def records(self) -> Iterator[McapRecord]:
        size = self._file.stat().st_size
        good = 0
        with self._file.open("rb") as stream:
            source = StreamReader(stream, emit_chunks=True, record_size_limit=min(size, _LARGEST_RECORD))
            reading = iter(source.records)
            while True:
                try:
                    record = next(reading, None)
                except Exception:  # damaged bytes raise many kinds: short reads, wrong lengths, invalid text
                    self.bytes_lost = size - good
                    return
                if record is None:
                    return
                good = stream.tell()
                if isinstance(record, Chunk):
                    yield from self._inside(record)
                else:
                    yield record

    def _inside(self, chunk: Chunk) -> list[McapRecord]:
        try:
            return breakup_chunk(chunk, validate_crc=True)
        except Exception:  # zstandard and lz4 have errors of their own
            self.chunks_lost += 1
            return []


def _known_custom(path: Path) -> dict[str, str]:
    """Custom data from metadata.yaml where it can be read: the bag may have been labelled after the recording."""
    try:
        custom = read_metadata(path).get("custom_data") or {}
    except BagError:
        return {}
    return {str(key): str(value) for key, value in custom.items()}
