"""Recording of an episode: bounded in memory, with a count of lost messages, ended by a full disk."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dp_ros.data.bags.reader import BagError, BagReader
from dp_ros.data.bags.recording import Recording
from dp_ros.data.bags.repair import repair
from dp_ros.schema import RecorderConfig

STRING = "std_msgs/msg/String"
MESSAGE = b"\0\1\0\0" + (96).to_bytes(4, "little") + b"x" * 95 + b"\0"


def config(**changes) -> RecorderConfig:
    return RecorderConfig(**{"min_free_mb": 0.0, "sync_s": 0.05, **changes})


def wait_until(done) -> None:
    deadline = time.monotonic() + 120.0
    while not done():
        assert time.monotonic() < deadline, "not within 120 s"
        time.sleep(0.01)


def test_all_that_is_put_is_in_the_bag_in_order(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "bags/one", config(), {"task": "pour"})
    recording.add_topic("/words", STRING)
    for i in range(500):
        assert recording.put("/words", MESSAGE, 1000 + i, 900 + i)
    recording.close({"outcome": "success"})
    assert (recording.written.total(), recording.dropped, recording.problem) == (500, {}, "")
    with BagReader(tmp_path / "bags/one") as bag:
        assert [at for _, at, _ in bag.messages(["/words"])] == list(range(1000, 1500))
        assert bag.info.custom == {"task": "pour", "outcome": "success", "dropped": "{}"}


def test_a_full_queue_drops_counts_and_reports(tmp_path: Path) -> None:
    """Messages larger than the whole queue can never enter it."""
    recording = Recording(tmp_path / "bag", config(queue_mb=0.0002), {})
    recording.add_topic("/words", STRING)
    assert [recording.put("/words", MESSAGE, i, i) for i in range(3)] == [False] * 3
    recording.close({})
    assert recording.dropped == {"/words": 3}
    with BagReader(tmp_path / "bag") as bag:
        assert json.loads(bag.info.custom["dropped"]) == {"/words": 3}


def test_messages_reach_the_disk_without_being_asked(tmp_path: Path) -> None:
    """A power failure costs one sync interval at most, also when messages are few."""
    recording = Recording(tmp_path / "bag", config(), {})
    recording.add_topic("/words", STRING)
    recording.put("/words", MESSAGE, 1, 1)
    (file,) = (tmp_path / "bag").glob("*.mcap")
    wait_until(lambda: MESSAGE in file.read_bytes())
    assert recording.backlog_s == 0.0
    recording.close({})


def test_a_disk_with_too_little_space_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="MB are free on the disk, fewer than") as caught:
        Recording(tmp_path / "bags/one", config(min_free_mb=1e12), {})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bags/one").exists()


def test_a_disk_that_fills_up_ends_the_recording_and_keeps_what_is_on_it(tmp_path: Path) -> None:
    """Files may not exceed 100 kB, as on a full disk; messages synced before are repaired."""
    script = f"""
import resource, signal, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_recording import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
recording = Recording({str(tmp_path / "bag")!r}, config(), {{}})
recording.add_topic("/words", STRING)
for number in range(150):
    assert recording.put("/words", MESSAGE, number, number)
(file,) = Path({str(tmp_path / "bag")!r}).glob("*.mcap")
wait_until(lambda: file.read_bytes().count(MESSAGE) == 150)  # these are synced, however slow the disk is
number = 150
deadline = time.monotonic() + 120
while not recording.problem and time.monotonic() < deadline:
    number += recording.put("/words", MESSAGE, number, number)
    time.sleep(0.0005)
assert not recording.put("/words", MESSAGE, 0, 0)
print(recording.problem)
try:
    recording.close({{}})
except BagError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    problem, ended = done.stdout.strip().splitlines()
    assert problem == f"{tmp_path / 'bag'}: writing failed (File too large)"
    assert f"run `dp_ros bag repair {tmp_path / 'bag'}`" in ended
    kept = repair(tmp_path / "bag").messages
    assert kept > 100
    with BagReader(tmp_path / "bag") as bag:
        assert [at for _, at, _ in bag.messages(["/words"])] == list(range(kept))
