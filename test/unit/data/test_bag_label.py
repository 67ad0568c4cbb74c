"""Labels of bags: inside the .mcap files as well, so that tools which rebuild metadata.yaml do not lose them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader

from dp_ros.data.bags.label import label_bag
from dp_ros.data.bags.reader import BagError, BagReader, read_metadata
from dp_ros.data.bags.repair import repair
from dp_ros.data.bags.writer import BagWriter, write_metadata

STRING = "std_msgs/msg/String"


def write(path: Path, outcome: str = "success", compression: str = "none") -> Path:
    writer = BagWriter(path, {"task": "stack"}, compression)
    writer.add_topic("/words", STRING)
    for i in range(300):
        writer.write("/words", b"\0\1\0\0" + i.to_bytes(4, "little") * 50, 1000 + i, 900 + i)
        if i % 10 == 0:
            writer.sync()
    writer.close({"outcome": outcome})
    return path


def reindex(path: Path) -> None:
    """As `ros2 bag reindex` does: metadata.yaml is rebuilt from the files, without custom data."""
    metadata = read_metadata(path)
    write_metadata(path, {key: value for key, value in metadata.items() if key != "custom_data"})


def messages(path: Path) -> list[bytes]:
    with BagReader(path) as bag:
        return [data for _, _, data in bag.messages(["/words"])]


@pytest.mark.parametrize("outcome", ["failure", "discarded", "success"])
def test_a_recorded_outcome_survives_a_reindex(tmp_path: Path, outcome: str) -> None:
    path = write(tmp_path / "bag", outcome)
    reindex(path)
    with BagReader(path) as bag:
        assert bag.info.custom == {"task": "stack", "outcome": outcome}


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_later_label_survives_a_reindex(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "bag", compression=compression)
    before = messages(path)
    for said in ({"outcome": "failure"}, {"outcome": "discarded", "note": "slipped, ü"}):
        label_bag(path, said)
    reindex(path)
    with BagReader(path) as bag:
        assert bag.info.custom == {"task": "stack", "outcome": "discarded", "note": "slipped, ü"}
    assert messages(path) == before
    (file,) = path.glob("*.mcap")
    with file.open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True)
        assert sum(1 for _ in reader.iter_messages()) == 300
        assert [record.metadata.get("outcome") for record in reader.iter_metadata()] == [
            None,
            "success",
            "failure",
            "discarded",
        ]
        assert reader.get_summary().statistics.metadata_count == 4
    assert repair(path).was_whole


def test_a_bag_of_another_writer_is_labelled_inside(tmp_path: Path, bag_maker) -> None:
    path = bag_maker.episode(tmp_path / "bag", storage="mcap", custom={})
    label_bag(path, {"outcome": "failure"})
    reindex(path)
    with BagReader(path) as bag:
        assert bag.info.outcome == "failure"
        assert sum(1 for _ in bag.messages(bag.info.topics)) == 200


def test_a_label_that_is_interrupted_loses_no_message(tmp_path: Path) -> None:
    """The summary is gone, as after a kill between the two halves of the write."""
    path = write(tmp_path / "bag")
    before = messages(path)
    label_bag(path, {"outcome": "failure"})
    (file,) = path.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-200])
    assert repair(path).messages == 300
    assert messages(path) == before
    with BagReader(path) as bag:
        assert bag.info.outcome == "failure"


def test_a_damaged_file_is_not_labelled(tmp_path: Path) -> None:
    path = write(tmp_path / "bag")
    (file,) = path.glob("*.mcap")
    content = file.read_bytes()[:-50]
    file.write_bytes(content)
    with pytest.raises(BagError, match=r"was not closed; run `dp_ros bag repair"):
        label_bag(path, {"outcome": "failure"})
    assert file.read_bytes() == content


def test_ros2_readers_open_a_labelled_bag(tmp_path: Path) -> None:
    path = write(tmp_path / "bag")
    label_bag(path, {"outcome": "failure"})
    with Reader(path) as reader:
        assert reader.message_count == 300
