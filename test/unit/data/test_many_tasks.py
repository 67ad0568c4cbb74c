"""Several tasks in one dataset, several datasets in one training, and pictures that stay on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import FRAMES_PER_READ, DatasetError, load, open_dataset, read_layout
from dp_ros.data.merged import load_merged, merged_layout, short_name
from dp_ros.data.reader import DatasetReader
from dp_ros.data.stream import StreamedPictures
from dp_ros.data.windows import Windows
from dp_ros.schema import PolicyConfig

SETTINGS: dict[str, Any] = {"rate_hz": 80.0, "collect": {"noise": [0.0]}}
CAMERAS = ("left", "right")


@pytest.fixture
def write(tmp_path: Path, make_episode: Callable[..., Any]) -> Callable[..., Path]:
    """A finished dataset; `episodes` are (task, length, seed)."""

    def make(
        name: str, *episodes: tuple[str, int, int], settings: dict[str, Any] = SETTINGS, **size: int
    ) -> Path:
        with DatasetWriter(tmp_path / name, settings) as writer:
            for i, (task, length, seed) in enumerate(episodes):
                writer.append(make_episode(seed, length, **size), tried=i + 1, task=task)
            writer.finish()
        return tmp_path / name

    return make


def as_version_1(path: Path, task: str) -> None:
    """Turn a dataset of one task into one that an older dp_ros wrote."""
    group = zarr.open_group(path, mode="r+")
    attributes: dict[str, Any] = dict(group.attrs)
    del attributes["tasks"], group["task"]
    attributes |= {"version": 1, "collect": {"task": task, **attributes["collect"]}}
    group.attrs.put(attributes)


def test_each_episode_has_its_task(write: Callable[..., Path]) -> None:
    path = write("d", ("open", 5, 0), ("close", 4, 1), ("open", 3, 2))
    found = load(path)
    assert found.tasks == ("open", "close")
    assert found.task_of_episode.tolist() == [0, 1, 0]
    assert [episode.task for episode in DatasetReader(path)] == ["open", "close", "open"]
    assert (read_layout(path).tasks, read_layout(path).task) == (("open", "close"), "")
    assert "task" not in found.attributes["collect"]


def test_progress_counts_each_task_alone(
    write: Callable[..., Path], make_episode: Callable[..., Any]
) -> None:
    path = write("d", ("open", 5, 0), ("close", 4, 1))
    with DatasetWriter(path, SETTINGS) as writer:
        assert (writer.progress("open"), writer.progress("close"), writer.progress("push")) == (
            (1, 1),
            (1, 2),
            (0, 0),
        )
        writer.append(make_episode(2, 3), tried=7, task="push")
        assert writer.progress("push") == (1, 7)
        writer.finish()
    assert read_layout(path).tasks == ("open", "close", "push")


def test_dataset_of_version_1_loads_and_grows(
    write: Callable[..., Path], make_episode: Callable[..., Any]
) -> None:
    path, same = write("d", ("open", 5, 0)), write("same", ("open", 5, 0))
    as_version_1(path, "open")
    old, new = load(path), load(same)
    assert (old.tasks, read_layout(path).task) == (("open",), "open")
    assert old.attributes["collect"] == new.attributes["collect"] == {"task": "open", "noise": [0.0]}
    np.testing.assert_array_equal(old.images["left"], new.images["left"])
    with (
        pytest.raises(DatasetError, match="was begun with rate_hz"),
        DatasetWriter(path, {**SETTINGS, "rate_hz": 9.0}),
    ):
        pass
    assert zarr.open_group(path, mode="r").attrs["version"] == 1, "a refused writer changed the dataset"
    with DatasetWriter(path, SETTINGS) as writer:
        assert writer.progress("open") == (1, 1)
        writer.append(make_episode(1, 4), tried=1, task="close")
        writer.finish()
    grown = load(path)
    assert (grown.tasks, grown.task_of_episode.tolist()) == (("open", "close"), [0, 1])


def test_episode_of_a_task_without_a_name_is_refused(write: Callable[..., Path]) -> None:
    path = write("d", ("open", 5, 0), ("close", 4, 1))
    zarr.open_group(path, mode="r+").attrs["tasks"] = ["open"]
    with pytest.raises(DatasetError, match="episodes of 2 tasks, 1 have a name"):
        load(path)


@pytest.mark.parametrize("per_read", [1, FRAMES_PER_READ, 32])
def test_streamed_crops_are_those_of_memory(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, per_read: int
) -> None:
    """32: a file is one chunk, as in version 1."""
    monkeypatch.setattr("dp_ros.data.episode_writer.FRAMES_PER_READ", per_read)
    path = write("d", ("open", 45, 0), ("open", 30, 1))
    pixels, streamed = load(path).images["left"], open_dataset(path).images["left"]
    rng = np.random.default_rng(0)
    ticks, corners = rng.integers(0, 75, 60), rng.integers(0, 3, (60, 2))
    crops = streamed.crops(ticks, corners, (5, 4))
    assert streamed.shape == pixels.shape
    for crop, tick, (top, left) in zip(crops, ticks, corners, strict=True):
        np.testing.assert_array_equal(crop, pixels[tick, top : top + 5, left : left + 4])


def test_damaged_picture_is_one_line_when_it_is_read(write: Callable[..., Path]) -> None:
    path = write("d", ("open", 8, 0))
    file = path / "images" / "left" / "c" / "0" / "0" / "0" / "0"
    content = bytearray(file.read_bytes())
    content[60] ^= 0xFF
    file.write_bytes(content)
    streamed = open_dataset(path).images["left"]
    with pytest.raises(DatasetError, match=r"d: a chunk cannot be read .*; make the dataset again"):
        streamed.crops(np.arange(4), np.zeros((4, 2), dtype=np.int64), (5, 4))


def test_windows_of_several_datasets_are_the_same_in_memory_and_on_disk(
    write: Callable[..., Path], tiny_policy: PolicyConfig
) -> None:
    size = {"height_px": 36, "width_px": 40}
    paths = [write("a", ("open", 12, 0), **size), write("b", ("close", 9, 1), ("open", 8, 2), **size)]
    made = [load_merged(paths, CAMERAS, limit)[0] for limit in (1e9, 0)]
    assert made[0].tasks == ("open", "close")
    assert isinstance(made[1].images["left"], StreamedPictures)
    windows = [Windows(each, tiny_policy.horizons, tiny_policy.action, tiny_policy.encoder) for each in made]
    assert [each.streamed for each in windows] == [False, True]
    assert windows[0].task.tolist() == [0] * 12 + [1] * 9 + [0] * 8
    rows = np.array([0, 28, 13, 12, 11, 20])
    batches = [each.batch(rows, np.random.default_rng(0)) for each in windows]
    for one, other in zip(*batches, strict=True):
        np.testing.assert_array_equal(one, other)


def test_several_datasets_keep_how_each_was_collected(write: Callable[..., Path]) -> None:
    other = {**SETTINGS, "collect": {**SETTINGS["collect"], "first_seed": 70}}
    paths = [write("a", ("open", 6, 0), ("close", 5, 1)), write("b", ("open", 7, 0), settings=other)]
    attributes = load_merged(paths, CAMERAS, 1e9)[0].attributes
    assert attributes["collect"] == SETTINGS["collect"]
    assert attributes["parts"] == [
        {**SETTINGS["collect"], "tasks": ["open", "close"], "episodes": 2},
        {**other["collect"], "task": "open", "tasks": ["open"], "episodes": 1},
    ]


def test_statistics_are_over_all_datasets(write: Callable[..., Path], tiny_policy: PolicyConfig) -> None:
    size = {"height_px": 36, "width_px": 40}
    paths = [write("a", ("open", 12, 0), **size), write("b", ("close", 9, 1), **size)]
    parts = [*([path] for path in paths), paths]
    limits = [
        Windows(
            load_merged(part, CAMERAS, 0)[0], tiny_policy.horizons, tiny_policy.action, tiny_policy.encoder
        ).stats()["state"]
        for part in parts
    ]
    assert limits[2]["low"] == np.minimum(limits[0]["low"], limits[1]["low"]).tolist()
    assert limits[2]["high"] == np.maximum(limits[0]["high"], limits[1]["high"]).tolist()


@pytest.mark.parametrize(
    ("settings", "size", "said"),
    [
        ({**SETTINGS, "rate_hz": 20.0}, {}, r"b: was recorded at 20.0 Hz, .*a at 80.0 Hz: train on datasets"),
        (SETTINGS, {"height_px": 9}, r"b: camera left is 6x9 px, in .*a 6x8 px: train on datasets"),
        (
            {**SETTINGS, "collect": {"noise": [0.0], "markers": True}},
            {},
            r"b: draws markers, unlike .*a: train on datasets",
        ),
    ],
    ids=["rate", "size", "markers"],
)
def test_datasets_that_were_made_differently_are_refused(
    write: Callable[..., Path], settings: dict[str, Any], size: dict[str, int], said: str
) -> None:
    one, other = write("a", ("open", 5, 0)), write("b", ("open", 5, 0), settings=settings, **size)
    with pytest.raises(DatasetError, match=said) as caught:
        merged_layout([one, other])
    assert "\n" not in str(caught.value)


def test_dataset_given_twice_is_refused(write: Callable[..., Path]) -> None:
    path = write("a", ("open", 5, 0))
    with pytest.raises(DatasetError, match="is given twice"):
        merged_layout([path, path])


def test_many_datasets_are_named_in_a_few_words() -> None:
    assert short_name(["A"]) == "A"
    assert short_name(["A", Path("B"), "C"]) == "A, B, C"
    assert short_name([f"runs/{i}" for i in range(20)]) == "runs/0 and 19 more"
