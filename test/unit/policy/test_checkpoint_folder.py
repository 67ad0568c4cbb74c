"""Finding a checkpoint by the words that people use, and one line that says what a wrong word is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dp_ros.policy.checkpoint_config import read_config
from dp_ros.policy.checkpoint_folder import CheckpointError, checkpoints_in, find_checkpoint, name_of
from dp_ros.resources import share_dir

MODEL = "handle-press-v3-unet"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder and the home folder: a run, a checkpoint, and what is neither."""
    for file in (
        *(
            "run/checkpoint/config.json",
            "run/best/config.json",
            "run/state.safetensors",
            "packed/config.json",
        ),
        *("packed/policy.safetensors", "begun/state.safetensors", "pruned/best/config.json"),
        *("data/zarr.json", "bag/metadata.yaml", "reindexed/a_0.mcap", "bags/a/a_0.mcap", "loose/lone.mcap"),
        *("lerobot/meta/info.json", "act/config.json", "act/model.safetensors", "half/policy.safetensors"),
        *("notes.txt", "folder/notes.txt", f"{MODEL}/notes.txt"),
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def refusal(name: str | Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(name)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("word", "folder"),
    [
        ("run", "run/checkpoint"),
        ("run/", "run/checkpoint"),
        ("./run", "run/checkpoint"),
        ("run/checkpoint", "run/checkpoint"),
        ("run/best", "run/best"),
        ("packed", "packed"),
        ("~/run", "{home}/run/checkpoint"),
        ("~/packed", "{home}/packed"),
        ("{home}/run", "{home}/run/checkpoint"),
        ("models/" + MODEL, "{share}/models/" + MODEL),
        ("drawer-open-v3-unet", "{share}/models/drawer-open-v3-unet"),
    ],
)
@pytest.mark.parametrize("kind", [str, Path])
def test_a_run_a_checkpoint_and_a_shipped_model_are_found(
    place: Path, word: str, folder: str, kind: Callable[[str], str | Path]
) -> None:
    def filled(text: str) -> str:
        return text.format(home=place, share=share_dir())

    assert find_checkpoint(kind(filled(word))) == Path(filled(folder))


def test_a_checkpoint_of_the_present_folder_comes_before_a_shipped_one(place: Path) -> None:
    (place / MODEL / "config.json").touch()
    assert find_checkpoint(MODEL) == Path(MODEL)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        (
            "data",
            "data: is a zarr dataset, not a checkpoint: train with `dp_ros train --data data --out RUN`",
        ),
        ("bag", "bag: is a bag, not a checkpoint: `dp_ros convert`"),
        ("reindexed", "reindexed: is a bag, not a checkpoint"),
        ("bags", "bags: is a folder of bags, not a checkpoint"),
        ("loose/lone.mcap", "lone.mcap: is a file of a bag, not a checkpoint"),
        ("lerobot", "lerobot: is a LeRobot dataset, not a checkpoint: `dp_ros import`"),
        ("act", "act: is a policy of another project, not a checkpoint"),
        ("notes.txt", "notes.txt: is a file, not a checkpoint: give the folder"),
        ("packed/config.json", "packed/config.json: is a file of a checkpoint: give its folder, packed"),
        ("begun", "begun: is a run that has saved no checkpoint yet: train on"),
        ("pruned", "pruned: is a run without its newest checkpoint: give pruned/best"),
        ("half", "half: is a checkpoint that has no config.json: copy the checkpoint again"),
        (".", "is a folder of checkpoints: give one of them: packed, run"),
        ("folder", "folder: is a folder that has no config.json, not a checkpoint: give the folder"),
        ("empty", "empty: is an empty folder, not a checkpoint: give the folder"),
        (MODEL, f"; the shipped model of that name is {share_dir() / 'models' / MODEL}"),
        ("~nobody-of-that-name/run", "~nobody-of-that-name/run: that user has no home folder"),
        ("", "checkpoint is empty: give the folder of a checkpoint, the folder of a run"),
        (" ", "checkpoint is empty"),
    ],
)
def test_what_is_no_checkpoint_is_called_what_it_is(place: Path, word: str, says: str) -> None:
    assert says in refusal(word)


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("handle-press", f"did you mean {MODEL}?"),
        ("models/handle-press-v3-unte", f"did you mean {MODEL}"),
        ("runs/drawer-open", "did you mean drawer-open-v3-transformer or drawer-open-v3-unet?"),
        ("nothing/like/it", "shipped are coffee-push-v3-unet, drawer-open-v3-transformer, "),
        ("../models/" + MODEL, f"did you mean {MODEL}?"),
    ],
)
def test_what_is_missing_names_what_was_looked_for_and_the_nearest_models(
    place: Path, word: str, near: str
) -> None:
    message = refusal(word)
    assert message.startswith(f"{word}: does not exist and is no shipped model")
    assert f"looked for {place / word} with config.json or checkpoint/config.json in it" in message
    assert near in message


def test_a_reader_of_the_folder_itself_says_the_same(place: Path) -> None:
    for name in ("data", "bag", "half", "nowhere"):
        with pytest.raises(CheckpointError) as caught:
            read_config(name)
        assert str(caught.value) == refusal(name)


def test_checkpoints_of_a_folder_are_those_of_its_runs_too(place: Path) -> None:
    found = checkpoints_in(place)
    assert found == [place / "packed", place / "run" / "checkpoint"]
    assert [name_of(folder) for folder in found] == ["packed", "run"]
    assert name_of("run/best") == "run-best"
    assert checkpoints_in(place / "nowhere") == []
