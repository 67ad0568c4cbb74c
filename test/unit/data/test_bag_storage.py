"""Bags as recorders, other tools and users leave them: every message is read, or the bag is refused with the remedy."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard
from mcap.reader import make_reader
from mcap.writer import IndexType, Writer
from rosbags.rosbag2 import Reader

from dp_ros.data.bags.label import label_bag
from dp_ros.data.bags.reader import BagError, BagReader, find_bags
from dp_ros.data.bags.repair import repair

STRING = "std_msgs/msg/String"
COUNT = 200
QOS = {
    "history": "keep_last", "depth": 10, "reliability": "best_effort", "durability": "volatile",
    "deadline": {"sec": 0, "nsec": 0}, "lifespan": {"sec": 0, "nsec": 0}, "liveliness": "automatic",
    "liveliness_lease_duration": {"sec": 0, "nsec": 0}, "avoid_ros_namespace_conventions": False,
}  # fmt: skip


def read(path: Path, topic: str = "/words") -> list[int]:
    """Receive times of the messages on a topic."""
    with BagReader(path) as bag:
        return [at for _, at, _ in bag.messages([topic])]


@pytest.fixture
def write(tmp_path: Path, bag_maker) -> Callable[..., Path]:
    """write(name, storage, begin) -> bag of COUNT strings on /words, received at begin, begin + 1, ..."""

    def make(name: str = "bag", storage: str = "mcap", begin: int = 0) -> Path:
        messages = [("/words", begin + i, bag_maker.text(f"message {begin + i}")) for i in range(COUNT)]
        return bag_maker.write(tmp_path / name, messages, {"outcome": "success"}, storage=storage)

    return make


def rewrite(
    bag: Path, extra: Callable[[Writer], None] = lambda writer: None, split_at: int = COUNT, **options: Any
) -> Path:
    """The same bag, its MCAP file written with other options; messages from `split_at` on have a channel of their own.

    extra: adds other records.
    """
    (file,) = bag.glob("*.mcap")
    with file.open("rb") as source:
        records = list(make_reader(source).iter_messages())
    with file.open("wb") as target:
        writer = Writer(target, **options)
        writer.start(profile="ros2", library="test")
        schema = records[0][0]
        kind = writer.register_schema(schema.name, schema.encoding, schema.data)
        qos = ({}, {"offered_qos_profiles": yaml.safe_dump([QOS])})
        channels = [writer.register_channel("/words", "cdr", kind, metadata) for metadata in qos]
        for i, (_, _, msg) in enumerate(records):
            writer.add_message(channels[i >= split_at], msg.log_time, msg.data, msg.publish_time)
        extra(writer)
        writer.finish()
    return bag


def edit_metadata(bag: Path, change: Callable[[dict[str, Any]], None]) -> None:
    metadata = yaml.safe_load((bag / "metadata.yaml").read_text())
    change(metadata["rosbag2_bagfile_information"])
    (bag / "metadata.yaml").write_text(yaml.safe_dump(metadata))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_qos_profiles_edited_in_metadata_yaml_hide_no_message(write, storage: str) -> None:
    """Users edit them by hand to replay a bag."""
    bag = write(storage=storage)

    def edit(information: dict[str, Any]) -> None:
        for topic in information["topics_with_message_count"]:
            topic["topic_metadata"]["offered_qos_profiles"] = [QOS]

    edit_metadata(bag, edit)
    assert read(bag) == list(range(COUNT))


def test_every_channel_of_a_topic_is_read(write) -> None:
    """A second publisher with other QoS gives the topic a second channel."""
    assert read(rewrite(write(), split_at=120)) == list(range(COUNT))


def test_files_that_overlap_are_read_in_the_order_of_receipt(write) -> None:
    first, second = write("a"), write("b", begin=100)
    (file,) = second.glob("*.mcap")
    shutil.copy(file, first / "a_1.mcap")
    (first / "metadata.yaml").unlink()
    repair(first)
    assert read(first) == sorted([*range(COUNT), *range(100, 100 + COUNT)])


@pytest.mark.parametrize(
    "options",
    [
        {"index_types": IndexType.CHUNK},
        {"index_types": IndexType.CHUNK, "use_statistics": False},
        {"use_chunking": False},
        {"use_chunking": False, "index_types": IndexType.NONE, "use_statistics": False},
    ],
    ids=str,
)
def test_a_file_with_less_of_an_index_is_read_whole(write, options: dict[str, Any]) -> None:
    assert read(rewrite(write(), chunk_size=1000, **options)) == list(range(COUNT))


def test_a_file_without_an_index_gets_one_by_repair_and_takes_a_label_then(write) -> None:
    options = {"use_chunking": False, "index_types": IndexType.NONE, "use_statistics": False}
    bag = rewrite(write(), use_summary_offsets=False, repeat_channels=False, repeat_schemas=False, **options)
    with pytest.raises(BagError, match=f"has no index; run `dp_ros bag repair {bag}`"):
        label_bag(bag, {"outcome": "failure"})
    assert repair(bag).messages == COUNT
    label_bag(bag, {"outcome": "failure"})
    with BagReader(bag) as labelled:
        assert (labelled.info.outcome, labelled.info.messages) == ("failure", COUNT)
    assert read(bag) == list(range(COUNT))


def unknown(writer: Writer, encoding: str = "unknown") -> None:
    """A topic whose type was not installed where it was recorded: rosbag2 writes no definition."""
    kind = writer.register_schema("arm_msgs/msg/Torque", encoding, b"")
    writer.add_message(writer.register_channel("/torque", "cdr", kind), 5, b"\0\1\0\0", 5)


def json(writer: Writer) -> None:
    kind = writer.register_schema("log", "jsonschema", b"{}")
    writer.add_message(writer.register_channel("/log", "json", kind), 5, b"{}", 5)


def without_schema(writer: Writer) -> None:
    writer.add_message(writer.register_channel("/raw", "cdr", 0), 5, b"\0\1\0\0", 5)


@pytest.mark.parametrize("extra", [unknown, lambda writer: unknown(writer, ""), json, without_schema])
def test_a_topic_of_unknown_type_makes_no_bag_unreadable(write, extra: Callable[[Writer], None]) -> None:
    bag = rewrite(write(), extra)
    assert read(bag) == list(range(COUNT))
    (bag / "metadata.yaml").unlink()
    (file,) = bag.glob("*.mcap")
    content = file.read_bytes()
    repair(bag)
    assert read(bag) == list(range(COUNT))
    assert file.read_bytes() == content  # it was whole


def test_a_topic_of_unknown_type_makes_no_sqlite3_bag_unreadable(write) -> None:
    bag = write(storage="sqlite3")
    (file,) = bag.glob("*.db3")
    with sqlite3.connect(file) as database:
        database.execute(
            "UPDATE message_definitions SET encoding = 'unknown', encoded_message_definition = ''"
        )
    database.close()
    assert read(bag) == list(range(COUNT))


def test_a_topic_of_two_types_is_refused_where_it_is_read(write, bag_maker) -> None:
    def other(writer: Writer) -> None:
        kind = writer.register_schema("std_msgs/msg/Int64", "ros2msg", b"int64 data")
        writer.add_message(writer.register_channel("/words", "cdr", kind), 5, b"\0\1\0\0" + bytes(8), 5)

    with BagReader(rewrite(write(), other)) as bag:
        assert bag.info.topics["/words"][0] == "std_msgs/msg/Int64 and std_msgs/msg/String"


def test_messages_in_the_write_ahead_log_of_a_killed_recorder_are_read(write, tmp_path: Path) -> None:
    """`ros2 bag record --storage-preset-profile resilient` writes one; the file alone holds the first half."""
    bag = write(storage="sqlite3")
    (file,) = bag.glob("*.db3")
    database = sqlite3.connect(file)
    rows = database.execute(
        "SELECT topic_id, timestamp, data FROM messages WHERE timestamp >= 100"
    ).fetchall()
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("DELETE FROM messages WHERE timestamp >= 100")
    database.commit()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.executemany("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", rows)
    database.commit()
    killed = shutil.copytree(bag, tmp_path / "killed")
    database.close()
    assert len(rows) == COUNT - 100
    assert read(killed) == list(range(COUNT))
    assert read(next(killed.glob("*.db3"))) == list(range(COUNT))


def test_a_bag_with_fewer_messages_than_it_counts_is_refused(write) -> None:
    bag = write()

    def edit(information: dict[str, Any]) -> None:
        information["topics_with_message_count"][0]["message_count"] = COUNT + 1

    edit_metadata(bag, edit)
    with pytest.raises(
        BagError, match=f"counts {COUNT + 1} messages, and {COUNT} can be read; run `dp_ros bag repair"
    ):
        read(bag)
    repair(bag)
    assert read(bag) == list(range(COUNT))


def compressed(bag: Path, lost_bytes: int = 0) -> Path:
    """The bag's storage file as `ros2 bag record --compression-mode file` leaves it."""
    (file,) = [*bag.glob("*.mcap"), *bag.glob("*.db3")]
    content, packer = file.read_bytes(), zstandard.ZstdCompressor().compressobj()
    packed = b""
    for at in range(0, len(content), 1000):
        packed += packer.compress(content[at : at + 1000]) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    packed += packer.flush()
    path = file.with_name(file.name + ".zstd")
    path.write_bytes(packed[: len(packed) - lost_bytes])
    file.unlink()
    return path


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_closed_bag_of_compressed_files_is_read(write, storage: str) -> None:
    bag = write(storage=storage)
    packed = compressed(bag)

    def edit(information: dict[str, Any]) -> None:
        information |= {"compression_format": "zstd", "compression_mode": "FILE"}
        information["relative_file_paths"] = [packed.name]

    edit_metadata(bag, edit)
    assert read(bag) == list(range(COUNT))
    assert repair(bag).was_whole


def test_the_compressed_files_of_a_killed_recorder_are_part_of_the_repaired_bag(write) -> None:
    """It compresses a file when it begins the next one; the last one is plain, and cut."""
    bag, rest = write("a"), write("b", begin=COUNT)
    (last,) = rest.glob("*.mcap")
    whole = last.read_bytes()
    (bag / "metadata.yaml").unlink()
    packed = compressed(bag)
    (bag / "a_1.mcap").write_bytes(whole[: len(whole) - 40])
    with pytest.raises(BagError, match=f"was not closed .*; run `dp_ros bag repair {bag}`"):
        BagReader(bag)
    assert repair(bag).messages == 2 * COUNT
    assert read(bag) == list(range(2 * COUNT))
    assert not packed.exists()
    with Reader(bag) as other:  # of the rosbags library
        assert other.message_count == 2 * COUNT


def test_a_compressed_file_that_is_cut_gives_what_it_has_and_stays(write) -> None:
    bag = rewrite(write(), chunk_size=1000)
    (bag / "metadata.yaml").unlink()
    packed = compressed(bag, lost_bytes=1000)
    assert find_bags([bag]) == [bag]
    kept = repair(bag).messages
    assert 20 < kept < COUNT
    assert read(bag) == list(range(kept))
    assert packed.exists()


def test_a_compressed_file_alone_is_refused_with_the_remedy(write) -> None:
    packed = compressed(write())
    with pytest.raises(BagError, match=r"\.mcap\.zstd: is compressed; give the folder it is in"):
        find_bags([packed])
