"""Statistics of the training pictures: at the end of a training, and by a command for an older checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dp_ros.cli import main
from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import Dataset
from dp_ros.data.reader import StoredEpisode
from dp_ros.data.windows import Windows
from dp_ros.policy.checkpoint import load_checkpoint, save_checkpoint
from dp_ros.policy.checkpoint_config import OOD, ood_stats_of, weights_sha256
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import PolicyConfig, TrainConfig
from dp_ros.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def trainer(tmp_path: Path, make_dataset: Callable[..., Dataset]) -> Callable[..., Trainer]:
    def make(config: TrainConfig, lengths: tuple[int, ...] = (12, 9, 8, 9), **more: Any) -> Trainer:
        policy = config.policy
        windows = Windows(make_dataset(lengths), policy.horizons, policy.action, policy.encoder)
        return Trainer(config, windows, tmp_path / "run", **more)

    return make


def scores(folder: Path, windows: Windows, ticks: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(V, N) of pictures of the dataset, by the reference."""
    policy, stats = load_checkpoint(folder), ood_stats_of(folder)
    assert stats is not None
    found = []
    for view, pictures in enumerate(windows.pictures(ticks)):
        images = torch.from_numpy(pictures).movedim(-1, -3).float() / 255.0
        with torch.inference_mode():
            keypoints = policy.encoder.describe_camera(view, images)[1].numpy()
        found.append(stats.distances(view, keypoints) / stats.limit[view])
    return np.array(found)


def test_training_leaves_statistics_in_the_checkpoints_that_it_leaves(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., TrainConfig]
) -> None:
    run = trainer(tiny_train(steps=4, validation=0.25, validate_every=2))
    checkpoint = run.run()
    for folder in (checkpoint, run.run_dir / "best"):
        seen = scores(folder, run.windows, run.batches._rows)
        np.testing.assert_allclose(seen, 0.0, atol=0.05)  # each is its own nearest
        held_out = np.setdiff1d(np.arange(len(run.windows)), run.batches._rows)
        unseen = scores(folder, run.windows, held_out)
        assert unseen.max() == pytest.approx(1.0, abs=0.1)  # about: the limit is a quantile


def test_a_run_that_is_resumed_when_it_is_finished_keeps_its_statistics(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., TrainConfig]
) -> None:
    checkpoint = trainer(tiny_train(steps=2)).run()
    before = (checkpoint / OOD).read_bytes()
    trainer(tiny_train(steps=2), resume=True).run()
    assert (checkpoint / OOD).read_bytes() == before


def test_training_on_one_episode_leaves_a_checkpoint_without_statistics(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., TrainConfig]
) -> None:
    assert ood_stats_of(trainer(tiny_train(steps=2), (24,)).run()) is None


@pytest.fixture
def dataset(tmp_path: Path, make_episode: Callable[..., Any]) -> Callable[..., Path]:
    def make(episodes: int, size: tuple[int, int] = (36, 40)) -> Path:
        path = tmp_path / f"data-{episodes}-{size[0]}"
        if path.exists():
            return path
        with DatasetWriter(path, {"rate_hz": 80.0}) as writer:
            for seed in range(episodes):
                episode = make_episode(seed, 10, *size)
                writer.append(StoredEpisode(tried=seed + 1, **vars(episode)), seed + 1)
            writer.finish()
        return path

    return make


def test_command_describes_the_pictures_of_an_older_checkpoint(
    dataset: Callable[..., Path],
    tiny_policy: PolicyConfig,
    stats: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    folder = save_checkpoint(DiffusionPolicy(tiny_policy, stats), tmp_path / "old", card="# Old\n")
    weights = weights_sha256(folder)
    assert main(["ood-stats", str(folder), "--data", str(dataset(4))]) == 0
    assert "statistics of 2 cameras" in capsys.readouterr().out
    assert ood_stats_of(folder) is not None
    assert weights_sha256(folder) == weights
    load_checkpoint(folder)
    before = (folder / OOD).read_bytes()
    assert main(["ood-stats", str(folder), "--data", str(dataset(4))]) == 0  # again, to the same end
    assert (folder / OOD).read_bytes() == before
    for data, says in (
        (dataset(1), "one episode"),
        (dataset(3, (40, 40)), "was recorded at 40x40 px"),
        (tmp_path / "none", "does not exist"),
    ):
        capsys.readouterr()
        assert main(["ood-stats", str(folder), "--data", str(data)]) != 0
        line = capsys.readouterr().err.strip()
        assert says in line
        assert "\n" not in line
    assert (folder / OOD).read_bytes() == before
