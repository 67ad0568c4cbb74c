"""Trainings of policies that are told what to do, and trainings that begin with the weights of another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.evaluation.card import card_text
from dp_ros.policy.checkpoint import load_checkpoint, read_config, save_checkpoint
from dp_ros.policy.checkpoint_config import instructions_of, weights_sha256
from dp_ros.schema import ConfigError, InstructionError, TrainConfig, override
from dp_ros.train.initial_weights import continued_from
from dp_ros.train.run import make_trainer
from dp_ros.train.stopping import TrainingError

pytestmark = pytest.mark.usefixtures("one_thread", "random_sentence_encoder")
SENTENCES = (
    "open: {known: [open it, pull it]}\nclose: {known: [close it, push it, shut it], held_out: [put it to]}\n"
)


@pytest.fixture
def config(tiny_train: Callable[..., TrainConfig], tmp_path: Path) -> TrainConfig:
    """A policy that is told what to do; sentences are encoded as random vectors."""
    (tmp_path / "mine.yaml").write_text(SENTENCES)
    told = {"policy.instruction": {"embedding_dim": 12, "features": 6}}
    return override(tiny_train(validation=0.3), {**told, "instructions": str(tmp_path / "mine.yaml")})


@pytest.fixture
def write(tmp_path: Path, make_episode: Callable[..., Any]) -> Callable[..., Path]:
    def make(name: str, *tasks: str) -> Path:
        with DatasetWriter(tmp_path / name, {"rate_hz": 80.0, "collect": {}}) as writer:
            for i, task in enumerate(tasks):
                writer.append(make_episode(i, 9, 36, 40), tried=i + 1, task=task)
            writer.finish()
        return tmp_path / name

    return make


def test_training_keeps_the_sentences_of_its_tasks_and_is_the_same_from_disk(
    config: TrainConfig, write: Callable[..., Path], tmp_path: Path
) -> None:
    data = [write("a", "open", "open"), write("b", "close", "close")]
    whole = make_trainer(config, data, tmp_path / "whole")
    checkpoint = whole.run()
    kept = instructions_of(checkpoint)
    assert kept is not None
    assert kept.tasks == ("open", "close")
    assert read_config(checkpoint)["training"]["data"]["tasks"] == ["open", "close"]
    streamed = make_trainer(override(config, {"memory_gb": 0.0}), data, tmp_path / "streamed")
    assert (whole.windows.streamed, streamed.windows.streamed) == (False, True)
    streamed.run()
    for name, weight in whole.policy.state_dict().items():
        assert torch.equal(weight, streamed.policy.state_dict()[name]), name


def test_windows_draw_known_sentences_of_their_own_task(
    config: TrainConfig, write: Callable[..., Path], tmp_path: Path
) -> None:
    trainer = make_trainer(config, write("a", "open", "open", "close", "close"), tmp_path / "run")
    known = trainer.instructions
    assert known is not None
    drawn: dict[int, set[str]] = {0: set(), 1: set()}
    for step in range(40):
        vectors, rows = trainer.batches.instruction(step)[0], trainer.batches.runs(step)[:, 0]
        assert vectors is not None
        for vector, task in zip(vectors, trainer.windows.task[rows], strict=True):
            (row,) = np.flatnonzero((known.embeddings == vector).all(1))
            drawn[int(task)].add(known.sentences[row].text)
    assert drawn == {0: {"open it", "pull it"}, 1: {"close it", "push it", "shut it"}}


def test_dataset_of_a_task_without_a_sentence_is_refused(
    config: TrainConfig, write: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(InstructionError, match=r"task stack has no instruction in .*mine.yaml: add"):
        make_trainer(config, write("a", "open", "stack"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_begins_with_the_weights_and_statistics_of_a_checkpoint(
    config: TrainConfig, write: Callable[..., Path], tmp_path: Path
) -> None:
    data = write("a", "open", "open", "close", "close")
    checkpoint = make_trainer(config, data, tmp_path / "first").run()
    before = load_checkpoint(checkpoint)
    tuned = make_trainer(config, write("b", "open", "open"), tmp_path / "tuned", init=checkpoint)
    assert tuned.policy.stats() == before.stats()
    for model in (tuned.policy, tuned.ema):
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, before.state_dict()[name]), name
    tuned.run()
    assert not torch.equal(next(tuned.policy.parameters()), next(before.parameters()))
    folder = tmp_path / "tuned" / "checkpoint"
    assert instructions_of(folder).tasks == ("open",)  # type: ignore[union-attr]
    begun = read_config(folder)["training"]["init"]
    assert (begun["name"], begun["weights_sha256"]) == ("first", weights_sha256(checkpoint))
    assert begun["seconds"] == read_config(checkpoint)["training"]["history"]["seconds"]
    assert "CPU" in begun["hardware"]
    first = (
        f"Begun with the weights of first (sha256 {begun['weights_sha256']}) after {begun['step']} steps ("
    )
    assert first in card_text(folder, "tuned")
    with pytest.raises(TrainingError, match="or from another teacher or --init"):
        make_trainer(config, tmp_path / "b", tmp_path / "tuned", resume=True)


def test_a_student_is_no_beginning(config: TrainConfig, write: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = make_trainer(config, write("a", "open", "close"), tmp_path / "r").run()
    assert checkpoint is not None
    policy = load_checkpoint(checkpoint)
    policy.config = override(
        policy.config, {"diffusion.prediction": "sample", "diffusion.distilled_for": [0, 1]}
    )
    save_checkpoint(policy, checkpoint, instructions=instructions_of(checkpoint))
    with pytest.raises(
        ConfigError, match="is a student, which knows a few iterations only: give its teacher"
    ):
        continued_from(checkpoint, config.policy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"horizons": {"T_o": 2, "T_p": 12, "T_a": 4}},
            "policy.horizons.T_p is 12, its weights were trained with 8",
        ),
        ({"encoder.width": 32}, "policy.encoder.width is 32, its weights were trained with the default"),
        ({"unet.channels": (16, 64)}, "policy.unet.channels is"),
    ],
)
def test_checkpoint_of_another_policy_is_refused(
    config: TrainConfig, write: Callable[..., Path], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    checkpoint = make_trainer(config, write("a", "open", "close"), tmp_path / "first").run()
    with pytest.raises(ConfigError) as caught:
        continued_from(checkpoint, override(config.policy, change))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_outside_the_checkpoints_range_are_refused(
    config: TrainConfig, write: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = make_trainer(config, write("a", "open", "close"), tmp_path / "r").run()
    found = load_checkpoint(checkpoint).stats()
    build = continued_from(checkpoint, config.policy)
    assert build(config.policy, found).stats() == found
    wider = {**found, "action": {**found["action"], "high": [h + 1.0 for h in found["action"]["high"]]}}
    with pytest.raises(ConfigError, match=r"number 0 of the actions is between .* in its data, and between"):
        build(config.policy, wider)


def test_a_gripper_that_stayed_open_is_within_the_checkpoints_range(
    config: TrainConfig, write: Callable[..., Path], tmp_path: Path
) -> None:
    """Its limits were widened about -1, the end of the range that the checkpoint knows."""
    checkpoint = make_trainer(config, write("a", "open", "close"), tmp_path / "r").run()
    found = load_checkpoint(checkpoint).stats()["action"]
    build = continued_from(checkpoint, config.policy)
    low, high = found["low"][-1], found["high"][-1]
    for middle, fits in ((low, True), (high, True), (low - 0.1 * (high - low), False)):
        still = {
            "low": [*found["low"][:-1], middle - 0.05],
            "high": [*found["high"][:-1], middle + 0.05],
        }
        if fits:
            build(config.policy, {**load_checkpoint(checkpoint).stats(), "action": still})
        else:
            with pytest.raises(ConfigError, match="number 3 of the actions"):
                build(config.policy, {**load_checkpoint(checkpoint).stats(), "action": still})
