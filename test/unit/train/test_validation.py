"""Validation: split by episode, errors, and the best checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from dp_ros.data.episodes import Dataset
from dp_ros.data.windows import Windows
from dp_ros.policy.checkpoint import load_checkpoint, read_config
from dp_ros.schema import TrainConfig
from dp_ros.train.stopping import TrainingError
from dp_ros.train.trainer import Trainer
from dp_ros.train.validation import Validation, Validator, split_by_episode

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTHS = (12, 9, 8, 10)


@pytest.fixture
def trainer(tmp_path: Path, make_dataset: Callable[..., Dataset]) -> Callable[..., Trainer]:
    def make(config: TrainConfig, run: str = "run", **more: Any) -> Trainer:
        policy = config.policy
        windows = Windows(make_dataset(LENGTHS), policy.horizons, policy.action, policy.encoder)
        return Trainer(config, windows, tmp_path / run, **more)

    return make


def measured(run: Trainer) -> list[Validation]:
    found: list[Validation] = []
    run.run(on_validation=found.append)
    return found


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=40),
    st.floats(0.01, 0.6, exclude_max=True),
    st.integers(0, 5),
)
def test_split_is_by_whole_episodes_and_repeats_itself(lengths: list[int], share: float, seed: int) -> None:
    ends = np.cumsum(lengths)
    if max(1, round(share * len(ends))) >= len(ends):
        return
    rows, held_out = split_by_episode(ends, share, seed)
    again = split_by_episode(ends, share, seed)
    assert sorted([*rows, *held_out]) == list(range(ends[-1]))
    assert all((a == b).all() for a, b in zip((rows, held_out), again, strict=True))
    episode = np.repeat(np.arange(len(ends)), lengths)
    assert not set(episode[rows]) & set(episode[held_out])
    assert len(set(episode[held_out])) == max(1, round(share * len(ends)))


def test_nothing_is_held_out_unless_asked_and_something_is_left_to_train_on() -> None:
    rows, held_out = split_by_episode(np.array([3, 5]), 0.0, seed=0)
    assert (rows.tolist(), held_out.tolist()) == ([0, 1, 2, 3, 4], [])
    with pytest.raises(TrainingError, match="holds out 1 of 1 episodes and leaves none"):
        split_by_episode(np.array([3]), 0.1, seed=0)


def test_held_out_episode_changes_no_weight(
    tmp_path: Path, make_dataset: Callable[..., Dataset], tiny_train: Callable[..., Any]
) -> None:
    """Neither by its pictures nor by its actions, which would enter the statistics."""
    config = tiny_train(steps=2, validation=0.25)
    policy, whole = config.policy, make_dataset(LENGTHS)
    _, held_out = split_by_episode(whole.episode_ends, 0.25, config.seed)
    action, left = whole.action.copy(), whole.images["left"].copy()
    action[held_out], left[held_out] = 9.0, 0
    changed = replace(whole, action=action, command=action, images={**whole.images, "left": left})
    weights = []
    for name, dataset in (("a", whole), ("b", changed)):
        windows = Windows(dataset, policy.horizons, policy.action, policy.encoder)
        Trainer(config, windows, tmp_path / name).run()
        weights.append(load_file(tmp_path / name / "checkpoint" / "policy.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_measurement_counts_distance_and_gripper_along_the_chunk(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of (3, 4, 0) mm and 0.1 in the executed actions, ten times larger in the later ones."""
    run = trainer(tiny_train(validation=0.25))
    assert run.validator is not None
    offset = torch.tensor([0.003, 0.004, 0.0, 0.1]).repeat(8, 1)
    offset[5:] *= 10
    truth = torch.from_numpy(run.windows.actions[run.validator.rows])
    plans = iter((truth + offset).split(run.config.batch_size))
    monkeypatch.setattr(run.ema, "plan", lambda *args: next(plans))
    found = run.validator.measure(run.ema, 7, torch.device("cpu"))
    assert found.position_m == pytest.approx([0.005] * 5 + [0.05] * 3, rel=1e-4)
    assert found.gripper == pytest.approx([0.1] * 5 + [1.0] * 3, rel=1e-4)
    assert found.executed_position_m == pytest.approx(0.005, rel=1e-4)
    half_range = run.ema.action_normalizer.half_range
    assert found.score == pytest.approx(float((offset[0] / half_range).mean()), rel=1e-4)
    assert "error of executed actions 5.00 mm, gripper 0.100" in str(found)


def test_same_policy_is_measured_the_same_and_training_does_not_feel_it(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    often, once = (
        trainer(tiny_train("transformer", steps=4, validation=0.25, validate_every=every), f"{every}")
        for every in (1, 4)
    )
    first, second = measured(often), measured(once)
    assert [v.step for v in first] == [1, 2, 3, 4]
    assert first[-1] == second[-1]
    a, b = (load_file(run.run_dir / "state.safetensors") for run in (often, once))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_validation_windows_are_spread_over_all_that_are_held_out(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    run = trainer(tiny_train(validation=0.25))
    rows = np.arange(100, 300)
    chosen = Validator(tiny_train(validation_windows=5), run.windows, rows).rows
    assert chosen.tolist() == [100, 150, 200, 249, 299]
    assert Validator(tiny_train(validation_windows=999), run.windows, rows).rows.tolist() == rows.tolist()


@pytest.mark.slow
def test_best_is_the_averaged_policy_of_the_lowest_score_and_survives_a_resume(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    """The learning rate spoils the policy after its first steps, so that the best is not the last."""

    def config(**more: Any) -> TrainConfig:
        settings = {"steps": 12, "lr": 0.05, "warmup_steps": 0, "ema_power": 0.2, "checkpoint_every": 4}
        return tiny_train(**{**settings, "validation": 0.25, "validate_every": 2, **more})

    whole = trainer(config(), "whole")
    scores = {v.step: v.score for v in measured(whole)}
    best = min(scores, key=lambda step: scores[step])
    assert best != whole.steps
    kept = read_config(whole.run_dir / "best")["training"]
    assert (kept["step"], kept["validation"]["score"]) == (best, scores[best])
    policy = load_checkpoint(whole.run_dir / "best")
    assert whole.validator.measure(policy, best, torch.device("cpu")).score == pytest.approx(scores[best])

    class Killed(Exception):
        pass

    def kill(validation: Validation) -> None:
        if validation.step == 10:
            raise Killed

    stopped = trainer(config(), "stopped")
    with pytest.raises(Killed):
        stopped.run(on_validation=kill)
    resumed = trainer(config(), "stopped", resume=True)
    assert resumed.step == 8
    assert resumed.best_score == min(scores[step] for step in (2, 4, 6, 8))
    resumed.run()
    a, b = (load_file(run.run_dir / "best" / "policy.safetensors") for run in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)
    again = json.loads((resumed.run_dir / "best" / "config.json").read_text())["training"]
    assert again["validation"] == kept["validation"]
    curve = read_config(resumed.run_dir / "checkpoint")["training"]["history"]["validation_loss"]
    assert [step for step, _ in curve] == [2, 4, 6, 8, 10, 12]


def test_without_validation_there_is_no_best(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    run = trainer(tiny_train(steps=1))
    assert measured(run) == []
    assert not (run.run_dir / "best").exists()
