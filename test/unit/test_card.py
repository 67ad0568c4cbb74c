"""A model's card: what it says of the training, and the picture of the loss beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dp_ros.evaluation.card import write_card
from dp_ros.policy.checkpoint import save_checkpoint
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import PolicyConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def save(tiny_policy: PolicyConfig, stats: dict[str, Any], tmp_path: Path) -> Any:
    torch.manual_seed(0)
    policy = DiffusionPolicy(tiny_policy, stats)

    def write(**training: Any) -> Path:
        folder = save_checkpoint(policy, tmp_path / "tiny", training={"step": 40, **training})
        write_card(folder, "tiny")
        return folder

    return write


def test_card_tells_and_shows_how_the_training_went(save: Any) -> None:
    history = {"seconds": 740.2, "loss": [[20, 0.8], [40, 0.0625]], "validation_loss": [[40, 0.07]]}
    folder = save(hardware="2 CPU threads", history=history)
    text = (folder / "card.md").read_text()
    assert "12 minutes on 2 CPU threads; last loss 0.062." in text
    assert "![Loss over the steps](curve.png)" in text
    before = (folder / "curve.png").read_bytes()
    assert before.startswith(b"\x89PNG")
    assert len(before) < 100_000
    write_card(folder, "tiny")
    assert (folder / "curve.png").read_bytes() == before, "the same numbers are another picture"
    folder = save(hardware="2 CPU threads", history={"seconds": 1.0, "loss": [[20, 0.8], [40, 0.5]]})
    assert (folder / "curve.png").read_bytes() != before


def test_card_of_a_run_that_kept_no_history_shows_none(save: Any) -> None:
    folder = save()
    assert "curve" not in (folder / "card.md").read_text()
    assert not (folder / "curve.png").exists()
