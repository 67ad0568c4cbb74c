"""Sentences that windows are told in training: their own task's, means of these, and those of another scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dp_ros.actions import GRIPPER, POSITION, PositionKind, decode_positions, gripper_of, hold
from dp_ros.data.episodes import Dataset
from dp_ros.data.windows import Windows
from dp_ros.policy.instructions import Instructions, Sentence
from dp_ros.schema import Horizons, TrainConfig, override
from dp_ros.train.batches import Batches
from dp_ros.train.idle_settings import idle_settings
from dp_ros.train.stopping import TrainingError
from dp_ros.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
TASKS = ("open", "close", "press", "mine")
TEXTS = {
    "open": ["open it", "pull it"],
    "close": ["close it"],
    "press": ["press it", "hit it"],
    "mine": ["do it"],
}
SCENES = {"open": "drawer", "close": "drawer", "press": "button"}  # that of `mine` is not known


@pytest.fixture(scope="module")
def told() -> Instructions:
    sentences = tuple(Sentence(text, task) for task, texts in TEXTS.items() for text in texts)
    held_out = Sentence("push it from above", "press", kind="held_out")
    vectors = np.random.default_rng(0).normal(size=(len(sentences) + 1, 12)).astype(np.float32)
    return Instructions(
        (*sentences, held_out), vectors / np.linalg.norm(vectors, axis=1, keepdims=True), SCENES
    )


def setting(
    make_dataset: Callable[..., Dataset], tiny_train: Callable[..., TrainConfig], **changes: Any
) -> tuple[TrainConfig, Windows]:
    dataset = replace(make_dataset((12, 12, 12, 12)), tasks=TASKS, task=np.arange(4))
    told = {"policy.instruction": {"embedding_dim": 12, "features": 6}}
    config = override(tiny_train(**changes), told)
    return config, Windows(dataset, config.policy.horizons, config.policy.action, config.policy.encoder)


@pytest.fixture
def batches(
    make_dataset: Callable[..., Dataset], tiny_train: Callable[..., TrainConfig], told: Instructions
) -> Callable[..., Batches]:
    def make(**changes: Any) -> Batches:
        config, windows = setting(make_dataset, tiny_train, batch_size=24)
        config = override(config, changes)
        return Batches(config, windows, np.arange(len(windows)), instructions=told)

    return make


def _texts(told: Instructions, vectors: np.ndarray) -> list[str]:
    rows = [np.flatnonzero((told.embeddings == vector).all(1)) for vector in vectors]
    return [told.sentences[row[0]].text if len(row) else "" for row in rows]


def test_a_share_of_the_windows_is_told_another_scenes_task_and_learns_to_stay(
    batches: Callable[..., Batches], told: Instructions
) -> None:
    misled, usual = batches(mismatched=0.4), batches()
    elsewhere: dict[str, set[str]] = {task: set() for task in TASKS}
    count = 0
    for step in range(40):
        batch, plain = misled.tensors(step, CPU), usual.tensors(step, CPU)
        assert batch.instruction is not None
        tasks = [TASKS[task] for task in usual._windows.task[usual.runs(step)[:, 0]]]
        for i, (task, text) in enumerate(zip(tasks, _texts(told, batch.instruction.numpy()), strict=True)):
            if text in TEXTS[task]:
                torch.testing.assert_close(batch.actions[i], plain.actions[i], rtol=0, atol=0)
                continue
            elsewhere[task].add(text)
            count += 1
            assert (batch.actions[i, :, POSITION.slice] == 0).all()
            assert (batch.actions[i, :, GRIPPER.start] == plain.actions[i, 0, GRIPPER.start]).all()
    assert elsewhere["open"] == elsewhere["close"] == {"press it", "hit it"}
    assert elsewhere["press"] == {"open it", "pull it", "close it"}
    assert elsewhere["mine"] == set()
    assert 0.3 < count / (40 * 24 * 3 / 4) < 0.5


def test_a_share_of_the_windows_is_told_a_mean_of_its_sentences(
    batches: Callable[..., Batches], told: Instructions
) -> None:
    mixed = batches(mixed_sentences=0.5)
    own = {task: told.embeddings[told.rows(task)] for task in TASKS}
    means, windows = 0, 0
    for step in range(20):
        drawn = mixed.instruction(step)
        assert drawn is not None
        vectors, is_wrong = drawn
        assert not is_wrong.any()
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
        for vector, task in zip(vectors, mixed._windows.task[mixed.runs(step)[:, 0]], strict=True):
            table = own[TASKS[task]]
            weights, *_ = np.linalg.lstsq(table.T, vector, rcond=None)
            np.testing.assert_allclose(
                weights @ table, vector, atol=1e-5
            )  # within the span of its own sentences
            assert (weights > -1e-5).all()
            if len(table) > 1:
                windows += 1
                means += not _texts(told, vector[None])[0]
    assert 0.35 < means / windows < 0.65


@pytest.mark.parametrize("kind", ["absolute", "relative", "delta"])
def test_a_chunk_that_holds_leads_to_the_measured_position(kind: PositionKind) -> None:
    rng = np.random.default_rng(0)
    horizons = Horizons(T_o=2, T_p=6, T_a=3)
    state, actions = (
        rng.normal(size=(5, 2, 4)).astype(np.float32),
        rng.normal(size=(5, 6, 4)).astype(np.float32),
    )
    chunks = hold(actions, state, horizons, kind)
    here_m = state[:, -1, POSITION.slice].astype(np.float64)
    decoded = decode_positions(chunks[..., POSITION.slice], here_m, horizons, kind)
    np.testing.assert_allclose(decoded, np.repeat(here_m[:, None], 6, axis=1), atol=1e-6)
    np.testing.assert_array_equal(gripper_of(chunks), np.repeat(gripper_of(actions)[:, :1], 6, axis=1))


def test_a_run_that_was_told_other_sentences_is_not_resumed(
    make_dataset: Callable[..., Dataset],
    tiny_train: Callable[..., TrainConfig],
    told: Instructions,
    tmp_path: Path,
) -> None:
    config, windows = setting(make_dataset, tiny_train, steps=1)

    def trainer(sentences: Instructions, **options: Any) -> Trainer:
        make_batches = partial(Batches, instructions=sentences)
        return Trainer(
            config, windows, tmp_path / "run", make_batches=make_batches, instructions=sentences, **options
        )

    trainer(told).run()
    others = replace(told, sentences=(Sentence("move it", "open"), *told.sentences[1:]))
    with pytest.raises(TrainingError, match="was told other sentences"):
        trainer(others, resume=True)
    assert trainer(told, resume=True).step == 1


def test_views_of_an_encoder_that_is_trained_are_told_of(tiny_train: Callable[..., TrainConfig]) -> None:
    config = override(tiny_train(), {"views": 3})
    assert list(idle_settings(config, None)) == ["views has no effect: it needs train_encoder=false"]
    assert not list(idle_settings(override(config, {"train_encoder": False}), None))


def test_settings_about_sentences_that_change_nothing_are_told_of(
    tiny_train: Callable[..., TrainConfig], told: Instructions
) -> None:
    config = override(tiny_train(), {"mismatched": 0.1, "mixed_sentences": 0.5})
    assert not list(idle_settings(config, told))
    assert not list(idle_settings(tiny_train(), None))
    assert list(idle_settings(config, None)) == [
        f"{name} has no effect without policy.instruction" for name in ("mismatched", "mixed_sentences")
    ]

    def of(*tasks: str) -> list[str]:
        rows = [i for i, sentence in enumerate(told.sentences) if sentence.task in tasks]
        some = Instructions(tuple(told.sentences[i] for i in rows), told.embeddings[rows], told.scenes)
        return [line.split()[0] for line in idle_settings(config, some)]

    assert of("open", "close") == ["mismatched"]
    assert of("close", "press") == []
    assert of("close", "mine") == ["mismatched", "mixed_sentences"]
