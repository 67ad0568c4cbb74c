"""Repair of rosbag2's split bags and of its compressed messages: readable afterwards, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer

from dp_ros.data.bags.reader import BagError, BagReader
from dp_ros.data.bags.repair import repair
from dp_ros.data.bags.writer import BagWriter

STRING = "std_msgs/msg/String"
QOS = [{
    "history": "keep_last", "depth": 10, "reliability": "best_effort", "durability": "volatile",
    "deadline": {"sec": 0, "nsec": 0}, "lifespan": {"sec": 0, "nsec": 0}, "liveliness": "automatic",
    "liveliness_lease_duration": {"sec": 0, "nsec": 0}, "avoid_ros_namespace_conventions": False,
}]  # fmt: skip


def text(i: int) -> bytes:
    body = f"message {i}".ljust(190, ".").encode() + b"\0"
    return b"\0\1\0\0" + len(body).to_bytes(4, "little") + body


def read(path: Path) -> list[bytes]:
    with BagReader(path) as bag:
        assert sum(1 for _ in bag.messages(bag.info.topics)) == bag.info.messages
        return [data for _, _, data in bag.messages(["/words"])]


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Twelve files of 100 messages each, without metadata.yaml; one topic begins with the last file."""
    path = tmp_path / "bag"
    path.mkdir()
    for n in range(12):
        writer = BagWriter(tmp_path / "parts" / f"bag{n}", {})
        writer.add_topic("/words", STRING, QOS)
        if n == 11:
            writer.add_topic("/late", STRING, QOS)
            writer.write("/late", text(0), 100_000, 100_000)
        for i in range(100 * n, 100 * n + 100):
            writer.write("/words", text(i), 1000 + i, 900 + i)
            if i % 10 == 0:
                writer.sync()
        writer.close()
        (file,) = (tmp_path / "parts" / f"bag{n}").glob("*.mcap")
        file.rename(path / f"bag_{n}.mcap")
    return path


def test_whole_files_of_a_split_bag_get_their_metadata(split: Path) -> None:
    before = {file.name: file.read_bytes() for file in split.iterdir()}
    assert repair(split).messages == 1201
    assert {name: (split / name).read_bytes() for name in before} == before
    assert read(split) == [text(i) for i in range(1200)]
    with BagReader(split) as bag:
        assert bag.info.outcome == "unknown"
        assert bag.info.topics == {"/words": (STRING, 1200), "/late": (STRING, 1)}
        assert (bag.info.start_ns, round(bag.info.duration_s * 1e9)) == (1000, 99_001)
    assert repair(split).was_whole
    with Reader(split) as reader:
        words = next(c for c in reader.connections if c.topic == "/words")
        assert words.ext.offered_qos_profiles[0].depth == 10


@pytest.mark.parametrize("kept_bytes", [0.0, 0.5, 0.9])
def test_the_last_file_of_a_split_bag_is_repaired(split: Path, kept_bytes: float) -> None:
    last = split / "bag_11.mcap"
    content = last.read_bytes()
    last.write_bytes(content[: int(kept_bytes * len(content))])
    found = repair(split)
    assert 1100 + (kept_bytes > 0) <= found.messages < 1200
    assert (split / "bag_11.mcap.damaged").exists()
    words = read(split)
    assert words == [text(i) for i in range(len(words))]
    assert repair(split).was_whole


def test_a_split_bag_of_which_nothing_can_be_saved_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    path.mkdir()
    for n in range(2):
        (path / f"bag_{n}.mcap").write_bytes(b"nothing")
    with pytest.raises(BagError, match="nothing can be saved"):
        repair(path)


@pytest.fixture
def compressed(tmp_path: Path) -> Path:
    """As `ros2 bag record --compression-mode message --compression-format zstd`."""
    from rosbags.typesys import Stores, get_typestore

    path = tmp_path / "compressed"
    writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    with writer:
        words = writer.add_connection("/words", STRING, typestore=get_typestore(Stores.ROS2_JAZZY))
        for i in range(500):
            writer.write(words, 1000 + i, text(i))
    return path


def test_compressed_messages_are_readable_after_a_repair(compressed: Path) -> None:
    assert read(compressed) == [text(i) for i in range(500)]
    (compressed / "metadata.yaml").unlink()
    assert repair(compressed).messages == 500
    assert read(compressed) == [text(i) for i in range(500)]
    assert repair(compressed).was_whole


@pytest.mark.parametrize("lost_bytes", [1, 100, 3000])
def test_a_cut_bag_of_compressed_messages_is_readable_after_a_repair(
    compressed: Path, lost_bytes: int
) -> None:
    """The bag is one chunk, which is whole or not."""
    (compressed / "metadata.yaml").unlink()
    (file,) = compressed.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-lost_bytes])
    found = repair(compressed)
    assert read(compressed) == [text(i) for i in range(found.messages)]


def test_compressed_messages_are_readable_where_metadata_does_not_say_so(compressed: Path) -> None:
    """As after a reindex by a tool that does not look into the messages."""
    metadata = compressed / "metadata.yaml"
    text_of = metadata.read_text()
    assert "compression_mode: message" in text_of
    changed = text_of.replace("compression_mode: message", "compression_mode: ''")
    metadata.write_text(changed.replace("compression_format: zstd", "compression_format: ''"))
    assert read(compressed) == [text(i) for i in range(500)]


def test_a_split_bag_of_compressed_messages_is_readable_after_a_repair(
    compressed: Path, tmp_path: Path
) -> None:
    (file,) = compressed.glob("*.mcap")
    path = tmp_path / "split"
    path.mkdir()
    content = file.read_bytes()
    (path / "split_0.mcap").write_bytes(content)
    (path / "split_1.mcap").write_bytes(content[: len(content) // 50])
    assert repair(path).messages >= 500
    assert read(path)[:500] == [text(i) for i in range(500)]


def test_messages_of_another_compression_are_refused_and_left_as_they_are(tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag", {})
    writer.add_topic("/words", STRING)
    writer.write("/words", b"\x04\x22\x4d\x18" + text(0), 1, 1)
    writer.close()
    (tmp_path / "bag/metadata.yaml").unlink()
    (file,) = (tmp_path / "bag").iterdir()
    content = file.read_bytes()
    with pytest.raises(BagError, match=r"a message on /words in .* is neither CDR nor zstd"):
        repair(tmp_path / "bag")
    assert [each.read_bytes() for each in (tmp_path / "bag").iterdir()] == [content]
