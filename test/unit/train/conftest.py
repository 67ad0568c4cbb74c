"""A policy that is told which of two tasks to do, its demonstrations and its first training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.schema import TrainConfig, override
from dp_ros.train.run import train

SENTENCES = """
open: {scene: drawer, known: [open it, pull it]}
close: {scene: door, known: [close it, push it, shut it]}
"""


@pytest.fixture
def config(tiny_train: Callable[..., TrainConfig], tmp_path: Path) -> TrainConfig:
    """A policy that is told what to do, by random vectors; its pictures are not cropped."""
    (tmp_path / "mine.yaml").write_text(SENTENCES)
    usual = tiny_train(checkpoint_every=2, log_every=1)
    encoder = usual.policy.encoder
    changes = {
        "policy.instruction": {"embedding_dim": 12, "features": 6},
        "policy.encoder.crop_height_px": encoder.height_px,
        "policy.encoder.crop_width_px": encoder.width_px,
        "instructions": str(tmp_path / "mine.yaml"),
    }
    return override(usual, changes)


@pytest.fixture
def data(tmp_path: Path, make_episode: Callable[..., Any]) -> Path:
    with DatasetWriter(tmp_path / "data", {"rate_hz": 80.0, "collect": {}}) as writer:
        for i, task in enumerate(("open", "close", "open", "close")):
            writer.append(make_episode(i, 9, 36, 40), tried=i + 1, task=task)
        writer.finish()
    return tmp_path / "data"


@pytest.fixture
def checkpoint(config: TrainConfig, data: Path, tmp_path: Path) -> Path:
    found = train(config, data, tmp_path / "first")
    assert found is not None
    return found
