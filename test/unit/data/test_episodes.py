"""Dataset on disk: written episodes are read back, a killed run resumes, and a damaged dataset is refused."""

from __future__ import annotations

import dataclasses
import errno
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import Dataset, DatasetError, load

LENGTHS = (5, 40, 3)  # the second spans two chunks of pictures
SETTINGS = {"rate_hz": 80.0, "collect": {"task": "any", "noise": [0.0, 0.3]}}
FLAT = ("ee_pose", "gripper", "action", "command")


def write(path: Path, make_episode: Callable[..., Any], count: int = len(LENGTHS)) -> Path:
    """Begin or resume; two seeds are tried for each episode, so that `tried` differs from the number of episodes."""
    with DatasetWriter(path, SETTINGS) as writer:
        for i in range(writer.episodes, count):
            writer.append(make_episode(i, LENGTHS[i]), tried=2 * (i + 1))
        writer.finish()
    return path


@pytest.fixture
def dataset(tmp_path: Path, make_episode: Callable[..., Any]) -> Path:
    return write(tmp_path / "data", make_episode)


def assert_same(found: Dataset, expected: Dataset) -> None:
    assert found.images.keys() == expected.images.keys()
    for camera in expected.images:
        np.testing.assert_array_equal(found.images[camera], expected.images[camera])
    for name in (*FLAT, "episode_ends"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.attributes == expected.attributes


def refusal(path: Path, cameras: tuple[str, ...] | None = None) -> str:
    with pytest.raises(DatasetError) as caught:
        load(path, cameras)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_written_episodes_are_read_back(dataset: Path, make_episode: Callable[..., Any]) -> None:
    found = load(dataset)
    episodes = [make_episode(i, length) for i, length in enumerate(LENGTHS)]
    assert len(found) == sum(LENGTHS)
    np.testing.assert_array_equal(found.episode_ends, [5, 45, 48])
    for camera, pixels in found.images.items():
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, np.concatenate([e.images[camera] for e in episodes]))
    for name in FLAT:
        expected = np.concatenate([getattr(e, name) for e in episodes])
        np.testing.assert_array_equal(getattr(found, name), expected)
    assert found.attributes.items() >= {**SETTINGS, "tried": 6}.items()
    group = zarr.open_group(dataset, mode="r")
    np.testing.assert_array_equal(group["seed"][:], [0, 1, 2])
    np.testing.assert_array_equal(found.seed, [0, 1, 2])
    np.testing.assert_allclose(group["noise"][:], [0.0, 0.1, 0.2])


def test_only_the_cameras_asked_for_are_read(dataset: Path) -> None:
    assert list(load(dataset, ("right",)).images) == ["right"]
    assert "has no camera 'front'; it has left, right" in refusal(dataset, ("right", "front"))


# Replaces the file that makes a write visible with a kill, at the n-th write after the first episode.
CRASH = """
import dataclasses, os, pathlib, signal, sys
root, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
sys.path.insert(0, sys.argv[3])
import numpy as np, zarr
from dp_ros.data.episode_writer import DatasetWriter
import pickle
settings, episodes = pickle.loads(sys.stdin.buffer.read())
class Episode:
    def __init__(self, fields): self.__dict__.update(fields)
episodes = [Episode(fields) for fields in episodes]
replace = pathlib.Path.replace

def run(path, crash_at):
    written = 0
    def replace_or_die(self, target):
        nonlocal written
        written += 1
        if written > crash_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)
    with DatasetWriter(path, settings) as writer:
        writer.append(episodes[0], tried=2)
        pathlib.Path.replace = replace_or_die
        writer.append(episodes[1], tried=4)
    os._exit(0)

children = []
for n in range(count):  # zarr starts its threads on first use, so it is still safe to fork here
    children.append(os.fork())
    if children[-1] == 0:
        run(root / str(n), n)
for child in children:
    status = os.waitpid(child, 0)[1]
    print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, flush=True)
"""


@pytest.mark.slow
def test_run_killed_at_any_write_resumes_to_the_arrays_of_one_that_was_not(
    tmp_path: Path, make_episode: Callable[..., Any]
) -> None:
    """Every point of an append at which a file becomes visible, from the first to after the last."""
    expected = load(write(tmp_path / "whole", make_episode))
    episodes = [dataclasses.asdict(make_episode(i, LENGTHS[i])) for i in range(2)]
    count = 25
    ended = subprocess.run(
        [sys.executable, "-c", CRASH, str(tmp_path), str(count), str(Path(__file__).parents[3])],
        input=pickle.dumps((SETTINGS, episodes)),
        capture_output=True,
        check=True,
        timeout=300,
    )
    signals = [int(line) for line in ended.stdout.split()]
    assert len(signals) == count
    assert signals[0] == signal.SIGKILL
    assert signals[-1] == 0, "the last crash point must be after the append"
    assert set(signals) == {0, signal.SIGKILL}
    for n, ended_by in enumerate(signals):
        path = tmp_path / str(n)
        with DatasetWriter(path, SETTINGS) as writer:
            # The first episode is never lost; the second counts with its `tried` or not at all.
            assert writer.progress("any") in [(1, 2), (2, 4)], f"killed at write {n}"
            if ended_by == 0:
                assert writer.episodes == 2
        assert "is unfinished" in refusal(path)
        assert_same(load(write(path, make_episode)), expected)


def test_finished_dataset_that_grows_is_unfinished_meanwhile(
    dataset: Path, make_episode: Callable[..., Any]
) -> None:
    with DatasetWriter(dataset, SETTINGS) as writer:
        assert writer.complete
        writer.append(make_episode(7, 4), tried=9)
        assert not writer.complete
    assert "is unfinished" in refusal(dataset)


def test_a_dataset_has_one_writer_at_a_time(dataset: Path, make_episode: Callable[..., Any]) -> None:
    """Two would write into the same rows, and each would cut off what the other has written."""
    with DatasetWriter(dataset, SETTINGS) as first:
        with pytest.raises(DatasetError, match="another process writes this dataset: wait until it ends"):
            DatasetWriter(dataset, SETTINGS)
        first.append(make_episode(7, 4), tried=9)
        first.finish()
    assert len(load(dataset)) == sum(LENGTHS) + 4
    with DatasetWriter(dataset, SETTINGS) as second:
        assert second.episodes == len(LENGTHS) + 1


def test_opening_a_finished_dataset_to_write_leaves_it_finished(dataset: Path) -> None:
    before = load(dataset)
    with DatasetWriter(dataset, SETTINGS) as writer:
        assert (*writer.progress("any"), writer.complete) == (3, 6, True)
    assert_same(load(dataset), before)


def test_resuming_with_other_settings_is_refused(dataset: Path) -> None:
    for settings, says in [
        ({**SETTINGS, "rate_hz": 40.0}, "was begun with rate_hz = 80.0, not 40.0"),
        (
            {**SETTINGS, "collect": {"task": "any", "noise": [0.0]}},
            "was begun with collect.noise = [0.0, 0.3]",
        ),
        ({**SETTINGS, "robot": "ur5"}, "was begun with robot = None, not 'ur5'"),
    ]:
        with pytest.raises(DatasetError, match=r"another --out$") as caught:
            DatasetWriter(dataset, settings)
        assert says in str(caught.value)


def test_episode_whose_arrays_differ_in_length_is_not_written(
    dataset: Path, make_episode: Callable[..., Any]
) -> None:
    episode = make_episode(9, 4)
    with DatasetWriter(dataset, SETTINGS) as writer:
        for broken in ({"gripper": np.zeros(3)}, {"images": {"left": episode.images["left"][:2]}}):
            with pytest.raises(DatasetError, match="differ in length"):
                writer.append(dataclasses.replace(episode, **broken), tried=9)
        with pytest.raises(DatasetError, match="differ in length"):
            writer.append(make_episode(9, 0), tried=9)
    assert len(load(dataset)) == sum(LENGTHS)


def test_full_disk_is_said_in_one_line_and_other_errors_pass(tmp_path: Path) -> None:
    with (
        pytest.raises(DatasetError, match="the disk is full; the 0 finished episodes are kept"),
        DatasetWriter(tmp_path / "a", SETTINGS),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), DatasetWriter(tmp_path / "b", SETTINGS):
        raise PermissionError(errno.EACCES, "no")


def test_unfinished_dataset_is_refused(tmp_path: Path, make_episode: Callable[..., Any]) -> None:
    with DatasetWriter(tmp_path / "data", SETTINGS) as writer:
        writer.append(make_episode(0, 4), tried=1)
    assert "is unfinished; run the command that made it again" in refusal(tmp_path / "data")


@pytest.mark.parametrize("cameras", [None, ("left",)])
def test_dataset_without_episodes_is_refused(tmp_path: Path, cameras: tuple[str, ...] | None) -> None:
    with DatasetWriter(tmp_path / "data", SETTINGS) as writer:
        writer.finish()
    assert "make the dataset again" in refusal(tmp_path / "data", cameras)


def test_other_folders_than_datasets_are_refused(tmp_path: Path) -> None:
    assert "does not exist; make one with `dp_ros collect" in refusal(tmp_path / "none")
    other = tmp_path / "other"
    zarr.create_group(other, attributes={"format": "something-else"})
    file = tmp_path / "file"
    file.write_text("no dataset")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "photo.png").write_text("")
    for path in (other, file, folder):
        assert "is not a dp_ros dataset" in refusal(path)
        with pytest.raises(DatasetError, match="is not a dp_ros dataset"):
            DatasetWriter(path, SETTINGS)
    assert file.read_text() == "no dataset"
    assert [p.name for p in folder.iterdir()] == ["photo.png"]


def test_other_format_version_is_refused(dataset: Path) -> None:
    zarr.open_group(dataset, mode="r+").attrs["version"] = 3
    assert "is of format version 3, this dp_ros reads up to 2" in refusal(dataset)


@pytest.mark.parametrize("name", [*FLAT, "episode_ends", "images"])
def test_missing_array_is_refused(dataset: Path, name: str) -> None:
    del zarr.open_group(dataset, mode="r+")[name]
    message = refusal(dataset)
    assert name in message
    assert "is missing; make the dataset again" in message


@pytest.mark.parametrize("name", FLAT)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_value_that_is_not_finite_is_refused(dataset: Path, name: str, value: float) -> None:
    zarr.open_group(dataset, mode="r+")[name][7] = value
    assert f"'{name}' holds values that are not finite" in refusal(dataset)


@pytest.mark.parametrize("name", ["images/left", "command"])
def test_arrays_that_disagree_on_the_number_of_ticks_are_refused(dataset: Path, name: str) -> None:
    array = zarr.open_group(dataset, mode="r+")[name]
    array.resize((47, *array.shape[1:]))
    assert "disagree on the number of ticks" in refusal(dataset)


@pytest.mark.parametrize("ends", [[5, 45, 47], [45, 5, 48], [5, 5, 48], [0, 45, 48]])
def test_episode_ends_that_do_not_rise_to_the_last_tick_are_refused(dataset: Path, ends: list[int]) -> None:
    zarr.open_group(dataset, mode="r+")["episode_ends"][:] = ends
    assert "disagree on the number of ticks" in refusal(dataset)


def chunk_file(dataset: Path, name: str) -> Path:
    return max((dataset / name / "c").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())


@pytest.mark.parametrize("name", ["images/right", "action", "episode_ends"])
def test_chunk_cut_short_on_disk_is_refused(dataset: Path, name: str) -> None:
    chunk = chunk_file(dataset, name)
    chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
    assert "a chunk cannot be read" in refusal(dataset)


@pytest.mark.parametrize("name", ["images/right", "action"])
def test_chunk_lost_from_disk_is_refused(dataset: Path, name: str) -> None:
    """zarr reads a chunk without a file as zeros: black pictures, and commands to move to the base."""
    chunk_file(dataset, name).unlink()
    assert "a chunk" in refusal(dataset)


@pytest.mark.parametrize("name", ["images/left", "action", "gripper"])
def test_chunk_with_a_changed_bit_is_refused(dataset: Path, name: str) -> None:
    """Compressed numbers would decompress to others: each chunk has a checksum."""
    file = chunk_file(dataset, name)
    content = bytearray(file.read_bytes())
    for at in range(20, len(content), max(1, len(content) // 20)):
        content[at] ^= 4
        file.write_bytes(content)
        assert "a chunk cannot be read" in refusal(dataset)
        content[at] ^= 4
    file.write_bytes(content)
    load(dataset)


@pytest.mark.parametrize("name", ["zarr.json", "action/zarr.json", "images/left/zarr.json"])
@pytest.mark.parametrize("content", ["", '{"zarr_form'])
def test_description_that_a_power_failure_cut_off_is_refused(dataset: Path, name: str, content: str) -> None:
    (dataset / name).write_text(content)
    assert "make the dataset again" in refusal(dataset)
    with pytest.raises(DatasetError, match="make the dataset again"):
        DatasetWriter(dataset, SETTINGS)


def test_chunk_of_nothing_but_zeros_is_data(tmp_path: Path, make_episode: Callable[..., Any]) -> None:
    """A gripper that is closed all the time is not a lost chunk."""
    with DatasetWriter(tmp_path / "data", SETTINGS) as writer:
        writer.append(dataclasses.replace(make_episode(0, 4), gripper=np.zeros(4)), tried=1)
        writer.finish()
    assert not load(tmp_path / "data").gripper.any()


def test_pictures_beyond_this_machines_memory_are_refused_before_they_are_read(
    tmp_path: Path, make_episode: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with DatasetWriter(tmp_path / "data", SETTINGS) as writer:
        writer.append(make_episode(0, 3), tried=1)
        writer.finish()
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 64, "SC_PHYS_PAGES": 2}[name])
    with pytest.raises(DatasetError, match=r"pictures take .* GB of memory, this machine has .*--size"):
        load(tmp_path / "data")
