"""Trainings in which some tasks shall be done as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dp_ros.policy.checkpoint import load_checkpoint, read_config
from dp_ros.schema import ConfigError, TrainConfig, override
from dp_ros.train.run import make_trainer, train

pytestmark = pytest.mark.usefixtures("one_thread", "random_sentence_encoder")
CPU = torch.device("cpu")
KEPT = {"train_encoder": False, "kept_tasks": ["close"], "noise_samples": 2}


@pytest.mark.parametrize("prefix", [0, 2])
def test_windows_of_kept_tasks_are_labelled_by_the_weights_before(
    config: TrainConfig, data: Path, checkpoint: Path, tmp_path: Path, prefix: int
) -> None:
    kept = override(config, KEPT | {"policy.diffusion.prefix": prefix})
    trainer = make_trainer(kept, data, tmp_path / "run", init=checkpoint)
    trainer.batches.prepare(CPU)
    before, seen = load_checkpoint(checkpoint), set()
    for step in range(4):
        batch, rows = trainer.batches.tensors(step, CPU), trainer.batches.runs(step).ravel()
        is_kept = [trainer.windows.tasks[task] == "close" for task in trainer.windows.task[rows]]
        seen.update(is_kept)

        def check(
            noisy: Tensor,
            k: Tensor,
            obs: Tensor,
            wanted: Tensor,
            batch: Any = batch,
            kept: list[bool] = is_kept,
        ) -> Tensor:
            found: Tensor = batch.relabel(noisy, k, obs, wanted)
            with torch.no_grad():
                predicted = before.network(noisy, k, obs)
            expected = torch.where(torch.tensor(np.repeat(kept, 2))[:, None, None], predicted, wanted)
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
            return found

        trainer.policy.loss(
            batch.images,
            batch.state,
            batch.actions,
            torch.Generator(),
            2,
            instruction=batch.instruction,
            executed=batch.executed,
            relabel=check,
        )
    assert seen == {True, False}


def test_a_kept_task_changes_less(config: TrainConfig, data: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Plans of the windows of "close" stay nearer to those before than in a training on its demonstrations."""
    before = load_checkpoint(checkpoint)
    trainer = make_trainer(override(config, KEPT), data, tmp_path / "unused", init=checkpoint)
    windows = trainer.windows
    rows = np.flatnonzero(windows.task == windows.tasks.index("close"))
    trainer.batches.prepare(CPU)
    pixels, state, _ = windows.centred(rows)
    images = [torch.from_numpy(each).movedim(-1, -3).float() / 255.0 for each in pixels]
    assert trainer.instructions is not None
    told = torch.from_numpy(trainer.instructions.embeddings[trainer.instructions.rows("close")[:1]])

    def plans(policy: Any) -> Tensor:
        told_all = told.expand(len(rows), -1)
        found: Tensor = policy.plan(
            images, torch.from_numpy(state), torch.Generator().manual_seed(0), instruction=told_all
        )
        return found

    moved = {}
    for name, tasks in (("kept", ["close"]), ("learned", [])):
        changes = KEPT | {"kept_tasks": tasks, "steps": 30, "lr": 1e-3, "ema_max": 0.5, "log_every": 30}
        changes["checkpoint_every"] = 30
        run = train(override(config, changes), data, tmp_path / name, init=checkpoint)
        assert run is not None
        assert read_config(run)["training"]["config"].get("kept_tasks", []) == tasks
        moved[name] = (plans(load_checkpoint(run)) - plans(before)).square().mean().item()
    assert moved["kept"] < 0.5 * moved["learned"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kept_tasks": ["clos"]}, "names clos, which the dataset lacks: did you mean close"),
        ({"kept_tasks": ["reach"]}, "names reach, which the dataset lacks; it has open, close"),
        ({"kept_tasks": ["open", "close"]}, "names all tasks of the dataset"),
        ({"train_encoder": True}, "give dp_ros train --init, and set train_encoder=false"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    config: TrainConfig, data: Path, checkpoint: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(override(config, KEPT | changes), data, tmp_path / "run", init=checkpoint)
    assert not (tmp_path / "run").exists()


def test_without_a_checkpoint_nothing_can_be_kept(config: TrainConfig, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give dp_ros train --init"):
        train(override(config, {"kept_tasks": ["close"]}), data, tmp_path / "run")
