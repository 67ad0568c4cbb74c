"""Labels of recorded bags: written into metadata.yaml and into the .mcap files themselves.

`ros2 bag reindex` and other tools rebuild metadata.yaml without our data; the label in the .mcap files survives them.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import DataEnd, Footer, Metadata, MetadataIndex, SummaryOffset

from dp_ros.data.bags.reader import METADATA_RECORD, BagError, read_metadata, storage_files
from dp_ros.data.bags.writer import write_metadata

_MAGIC = b"\x89MCAP0\r\n"
_HEAD = 9  # bytes of a record's opcode and length
_FOOTER = _HEAD + 20
_DATA_END = _HEAD + 4
_METADATA_COUNT = _HEAD + 18  # place of this count in the record of statistics


def label_bag(bag: Path, said: Mapping[str, str]) -> None:
    """Add `said` to the custom data of a bag folder; no message is touched. BagError where that is impossible."""
    metadata = read_metadata(bag)
    metadata["custom_data"] = {**(metadata.get("custom_data") or {}), **said}
    try:
        for file in storage_files(bag):
            if file.suffix == ".mcap":
                add_metadata(file, METADATA_RECORD, said)
        write_metadata(bag, metadata)
    except OSError as error:
        raise BagError(f"{bag}: cannot be labelled ({error.strerror or error})") from None


def add_metadata(file: Path, name: str, values: Mapping[str, str]) -> None:
    """Append a metadata record to a closed MCAP file, in place; its summary moves behind the record.

    A process that is killed meanwhile leaves all messages, without their index: `dp_ros bag repair` makes it again.
    """
    with file.open("r+b") as stream:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, end - _FOOTER - len(_MAGIC)))
        tail = stream.read()
        if len(tail) != _FOOTER + len(_MAGIC) or tail[0] != Opcode.FOOTER or not tail.endswith(_MAGIC):
            raise BagError(f"{file}: was not closed; run `dp_ros bag repair {file.parent}`")
        summary_start, offsets_start, _ = struct.unpack_from("<QQI", tail, _HEAD)
        if not summary_start:
            raise BagError(f"{file}: has no index; run `dp_ros bag repair {file.parent}`")
        data_end = summary_start - _DATA_END
        stream.seek(data_end)
        before = stream.read(_DATA_END)
        if before[:1] != bytes([Opcode.DATA_END]):
            raise BagError(f"{file}: its index is damaged; run `dp_ros bag repair {file.parent}`")
        summary = stream.read((offsets_start or end - len(tail)) - summary_start)
        stream.seek(data_end)
        stream.write(_tail(data_end, summary, name, values))
        stream.truncate()
        stream.flush()
        os.fsync(stream.fileno())


def _tail(begin: int, summary: bytes, name: str, values: Mapping[str, str]) -> bytes:
    """All that follows the messages of a file, from byte `begin` on: new record, end of data, summary, footer."""
    new = _serialized(Metadata(name, dict(values)))
    front = new + _serialized(DataEnd(data_section_crc=0))
    groups = _groups(summary)
    index = _serialized(MetadataIndex(offset=begin, length=len(new), name=name))
    groups[Opcode.METADATA_INDEX] = groups.get(Opcode.METADATA_INDEX, b"") + index
    if Opcode.STATISTICS in groups:
        statistics = bytearray(groups[Opcode.STATISTICS])
        (count,) = struct.unpack_from("<I", statistics, _METADATA_COUNT)
        struct.pack_into("<I", statistics, _METADATA_COUNT, count + 1)
        groups[Opcode.STATISTICS] = bytes(statistics)
    start = at = begin + len(front)
    offsets = b""
    for opcode, group in groups.items():
        offsets += _serialized(SummaryOffset(group_opcode=opcode, group_start=at, group_length=len(group)))
        at += len(group)
    section = b"".join(groups.values()) + offsets
    crc = zlib.crc32(section + struct.pack("<BQQQ", Opcode.FOOTER, _FOOTER - _HEAD, start, at))
    footer = _serialized(Footer(summary_start=start, summary_offset_start=at, summary_crc=crc))
    return front + section + footer + _MAGIC


def _serialized(record: Any) -> bytes:
    builder: Any = RecordBuilder()
    record.write(builder)
    return bytes(builder.end())


def _groups(summary: bytes) -> dict[int, bytes]:
    """Opcode -> the records of a summary section with this opcode."""
    groups: dict[int, bytes] = {}
    at = 0
    while at < len(summary):
        opcode, length = struct.unpack_from("<BQ", summary, at)
        groups[opcode] = groups.get(opcode, b"") + summary[at : at + _HEAD + length]
        at += _HEAD + length
    return groups
