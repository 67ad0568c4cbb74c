"""Information of metadata.yaml, made from closed .mcap files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcap.reader import make_reader
from mcap.records import Channel

from dp_ros.data.bags.reader import METADATA_RECORD, BagError
from dp_ros.documents import parse_yaml


def information_of(file: Path) -> dict[str, Any]:
    """`rosbag2_bagfile_information` of a bag with this file alone, from the file's index.

    Channels that are not ROS's are left out: rosbag2 would not open the bag. BagError for a file without an index.
    """
    with file.open("rb") as stream:
        reader = make_reader(stream)
        summary = reader.get_summary()
        metadata = [record.metadata for record in reader.iter_metadata() if record.name == METADATA_RECORD]
    if summary is None or summary.statistics is None:
        raise BagError(f"{file.parent}: {file.name} has no index; run `dp_ros bag repair {file.parent}`")
    statistics = summary.statistics
    counts: dict[str, int] = {}
    topics: dict[str, dict[str, Any]] = {}
    for channel in summary.channels.values():
        if channel.message_encoding != "cdr" or channel.schema_id not in summary.schemas:
            continue
        found = statistics.channel_message_counts.get(channel.id, 0)
        counts[channel.topic] = counts.get(channel.topic, 0) + found
        topics[channel.topic] = {
            "name": channel.topic,
            "type": summary.schemas[channel.schema_id].name,
            "serialization_format": channel.message_encoding,
            "offered_qos_profiles": qos_of(channel),
            "type_description_hash": channel.metadata.get("topic_type_hash", ""),
        }
    span = _span(statistics.message_start_time, statistics.message_end_time, sum(counts.values()))
    return {
        "version": 9,
        "storage_identifier": "mcap",
        "relative_file_paths": [file.name],
        **span,
        "topics_with_message_count": [
            {"topic_metadata": topic, "message_count": counts[name]} for name, topic in topics.items()
        ],
        "compression_format": "",
        "compression_mode": "",
        "files": [{"path": file.name, **span}],
        "custom_data": {key: value for values in metadata for key, value in values.items()} or None,
        "ros_distro": "jazzy",
    }


def has_index(file: Path) -> bool:
    """Whether a whole MCAP file has the index and the statistics of its messages."""
    with file.open("rb") as stream:
        summary = make_reader(stream).get_summary()
    return summary is not None and summary.statistics is not None


def merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Information of a bag from that of its files, in their order; without custom data."""
    topics: dict[str, dict[str, Any]] = {}
    for part in parts:
        for each in part["topics_with_message_count"]:
            name = each["topic_metadata"]["name"]
            before = topics.get(name, {"message_count": 0})["message_count"]
            topics[name] = {**each, "message_count": before + each["message_count"]}
    filled = [part for part in parts if part["message_count"]] or list(parts)
    begins = [part["starting_time"]["nanoseconds_since_epoch"] for part in filled]
    ends = [begin + part["duration"]["nanoseconds"] for begin, part in zip(begins, filled, strict=True)]
    return {
        **parts[0],
        "relative_file_paths": [name for part in parts for name in part["relative_file_paths"]],
        **_span(min(begins), max(ends), sum(part["message_count"] for part in parts)),
        "topics_with_message_count": list(topics.values()),
        "files": [file for part in parts for file in part["files"]],
        "custom_data": None,
    }


def qos_of(channel: Channel) -> list[dict[str, Any]]:
    """QoS profiles of a channel's publishers; empty where they cannot be read."""
    try:
        profiles = parse_yaml(channel.metadata.get("offered_qos_profiles", "") or "[]")
    except ValueError:
        return []
    return profiles if isinstance(profiles, list) else []


def _span(begin_ns: int, end_ns: int, messages: int) -> dict[str, Any]:
    return {
        "starting_time": {"nanoseconds_since_epoch": begin_ns},
        "duration": {"nanoseconds": max(0, end_ns - begin_ns)},
        "message_count": messages,
    }
