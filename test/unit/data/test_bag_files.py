"""Bags on disk: valid for rosbag2, whole after a kill up to the last sync, repaired or refused when damaged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader

from dp_ros.data.bags.reader import BagError, BagReader, find_bags
from dp_ros.data.bags.repair import repair
from dp_ros.data.bags.writer import BagWriter, message_definition

QOS = {
    "history": "keep_last", "depth": 10, "reliability": "best_effort", "durability": "volatile",
    "deadline": {"sec": 0, "nsec": 0}, "lifespan": {"sec": 0, "nsec": 0}, "liveliness": "automatic",
    "liveliness_lease_duration": {"sec": 0, "nsec": 0}, "avoid_ros_namespace_conventions": False,
}  # fmt: skip
STRING = "std_msgs/msg/String"


def text(i: int) -> bytes:
    """A std_msgs/String of about 200 bytes, serialized."""
    body = f"message {i}".ljust(190, ".").encode() + b"\0"
    return b"\0\1\0\0" + len(body).to_bytes(4, "little") + body


def write(path: Path, count: int = 300, compression: str = "none", sync_every: int = 10) -> Path:
    writer = BagWriter(path, {"task": "stack", "seed": "7"}, compression)
    writer.add_topic("/words", STRING, [QOS])
    for i in range(count):
        writer.write("/words", text(i), 1000 + i, 900 + i)
        if i % sync_every == 0:
            writer.sync()
    writer.close({"outcome": "success"})
    return path


def read(path: Path) -> list[bytes]:
    with BagReader(path) as bag:
        return [data for _, _, data in bag.messages(["/words"])]


def message_of(call, path: Path) -> str:
    with pytest.raises(BagError) as caught:
        call(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_written_bag_is_read_by_another_reader(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "bag", compression=compression)
    with Reader(path) as bag:  # of the rosbags library
        (connection,) = bag.connections
        assert (connection.topic, connection.msgtype, connection.msgcount) == ("/words", STRING, 300)
        assert connection.digest == "RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18"
        assert "string data" in connection.msgdef.data
        assert connection.ext.offered_qos_profiles[0].reliability.name == "BEST_EFFORT"
        assert [(at, data) for _, at, data in bag.messages()] == [(1000 + i, text(i)) for i in range(300)]
    with BagReader(path) as ours:
        assert ours.info.custom == {"task": "stack", "seed": "7", "outcome": "success"}
        assert ours.info.outcome == "success"
        assert ours.info.topics == {"/words": (STRING, 300)}


def test_the_file_alone_says_what_the_episode_was(tmp_path: Path) -> None:
    """MCAP tools read the file without metadata.yaml, sent times included."""
    (file,) = write(tmp_path / "bag").glob("*.mcap")
    with file.open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True)
        assert reader.get_header().profile == "ros2"
        assert [m.metadata["seed"] for m in reader.iter_metadata()] == ["7", "7"]
        _, channel, first = next(iter(reader.iter_messages()))
        assert (first.log_time, first.publish_time, channel.message_encoding) == (1000, 900, "cdr")
        assert len(reader.get_summary().chunk_indexes) > 20


def test_a_type_of_an_installed_package_is_recorded_with_its_definition(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "share" / "arm_msgs" / "msg"
    folder.mkdir(parents=True)
    (folder / "Grip.msg").write_text("std_msgs/Header header\nFinger[] fingers\n")
    (folder / "Finger.msg").write_text("float64 force\n")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    definition = message_definition("arm_msgs/msg/Grip").text.decode()
    for part in ("Finger[] fingers", "float64 force", "MSG: std_msgs/Header"):
        assert part in definition


def test_a_type_that_is_not_installed_is_refused(tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag", {})
    with pytest.raises(BagError, match="arm_msgs/msg/Unknown: its definition is not installed"):
        writer.add_topic("/grip", "arm_msgs/msg/Unknown")
    writer.close()


def unclosed(path: Path, size: int | None = None) -> Path:
    """A bag whose writer was killed: no metadata.yaml, and a truncated file."""
    (path / "metadata.yaml").unlink()
    (file,) = path.glob("*.mcap")
    if size is not None:
        os.truncate(file, size)
    return path


def test_an_unclosed_bag_is_refused_with_the_command_that_repairs_it(tmp_path: Path) -> None:
    path = unclosed(write(tmp_path / "bag"))
    assert message_of(BagReader, path).endswith(f"run `dp_ros bag repair {path}`")


def messages_or_reason(path: Path) -> int:
    """Number of messages that a repair keeps; 0 when it refuses, which it must do in one line."""
    try:
        return repair(path).messages
    except BagError as error:
        reason = str(error)
    assert reason.startswith(str(path))
    assert "\n" not in reason
    return 0


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_bag_cut_anywhere_is_repaired_or_refused_with_a_reason(tmp_path: Path, compression: str) -> None:
    """The kept messages are the first recorded ones, without a hole."""
    whole = write(tmp_path / "whole", 100, compression)
    (file,) = whole.glob("*.mcap")
    data = file.read_bytes()
    rng = np.random.default_rng(0)
    kept = []
    for i, size in enumerate(sorted(rng.integers(0, len(data), 100).tolist())):
        path = tmp_path / f"cut_{i}"
        path.mkdir()
        (path / file.name).write_bytes(data[:size])
        kept.append(messages_or_reason(path))
        if kept[-1]:
            assert read(path) == [text(n) for n in range(kept[-1])]
    assert kept == sorted(kept)
    assert kept[-1] >= 90
    assert kept.count(0) < 20


@pytest.mark.slow
def test_a_bag_with_flipped_bytes_is_repaired_or_refused_with_a_reason(tmp_path: Path) -> None:
    """A chunk with a wrong checksum is left out; the others are kept as recorded."""
    whole = write(tmp_path / "whole", 100)
    (file,) = whole.glob("*.mcap")
    data = file.read_bytes()
    expected = {text(n) for n in range(100)}
    for i, at in enumerate(np.random.default_rng(1).integers(0, len(data), 100).tolist()):
        path = tmp_path / f"flipped_{i}"
        path.mkdir()
        flipped = bytearray(data)
        flipped[at] ^= 0xFF
        (path / file.name).write_bytes(bytes(flipped))
        if messages_or_reason(path):
            found = read(path)
            assert set(found) <= expected
            assert found == sorted(found, key=lambda d: int(d[16:19].rstrip(b".")))


def test_repair_keeps_the_damaged_file_and_says_what_is_lost(tmp_path: Path) -> None:
    path = write(tmp_path / "bag")
    (file,) = path.glob("*.mcap")
    damaged = file.read_bytes()[: file.stat().st_size // 2]
    unclosed(path, len(damaged))
    found = repair(path)
    assert 100 < found.messages < 200
    assert found.bytes_lost > 0
    assert str(found).startswith(f"repaired, {found.messages} messages kept, lost 0 chunks and")
    assert (path / f"{file.name}.damaged").read_bytes() == damaged
    with BagReader(path) as bag:
        assert bag.info.custom["task"] == "stack"
        assert bag.info.outcome == "unknown"  # it has no label


def test_repair_of_a_whole_bag_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "bag")
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    assert repair(path).was_whole
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_repair_that_runs_out_of_disk_leaves_the_bag_as_it_was(tmp_path: Path) -> None:
    path = unclosed(write(tmp_path / "bag"), 60_000)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "from dp_ros.data.bags.repair import repair; repair(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert "is left as it was" in done.stderr
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_synced_messages_survive_a_kill(tmp_path: Path) -> None:
    """The process is killed while it writes; all messages up to its last reported sync are there."""
    path = tmp_path / "bag"
    script = (
        "import sys; sys.path.insert(0, sys.argv[2]); from test_bag_files import *;"
        "writer = BagWriter(sys.argv[1], {});"
        "writer.add_topic('/words', STRING)\n"
        "for i in range(10**9):\n"
        "    writer.write('/words', text(i), i, i)\n"
        "    if i % 100 == 99: writer.sync(); print(i + 1, flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.01 * (os.getpid() % 10))
    reported = 0
    while reported < 1000:
        reported = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    reported = max([reported, *map(int, process.stdout.read().split("\n")[:-1])])
    process.stdout.close()
    found = repair(path)
    assert reported <= found.messages
    assert read(path) == [text(i) for i in range(found.messages)]


def test_bags_are_found_in_their_natural_order(tmp_path: Path) -> None:
    for name in ("episode_10", "episode_9", "episode_100"):
        write(tmp_path / name, 1)
    (tmp_path / "notes.txt").write_text("not a bag")
    (tmp_path / ".hidden").mkdir()
    assert [path.name for path in find_bags([tmp_path])] == ["episode_9", "episode_10", "episode_100"]
    assert [path.name for path in find_bags([tmp_path / "episode_10", tmp_path])] == [
        "episode_10",
        "episode_9",
        "episode_100",
    ]


def test_other_files_than_bags_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in message_of(lambda path: find_bags([path]), tmp_path / "missing")
    assert "holds no bag" in message_of(lambda path: find_bags([path]), tmp_path)
    assert "exists already" in message_of(lambda path: BagWriter(path, {}), tmp_path)
    path = write(tmp_path / "bag")
    (path / "metadata.yaml").write_text("rosbag2_bagfile_information: [")
    assert f"run `dp_ros bag repair {path}`" in message_of(BagReader, path)
    assert repair(path).messages == 300
    (path / "old.db3").write_bytes(b"")
    (path / "metadata.yaml").unlink()
    assert f"try `ros2 bag reindex {path}`" in message_of(BagReader, path)
