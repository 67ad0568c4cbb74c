"""Several processes that train one policy: what one does by itself; smoke/test_distributed.py starts two."""

from __future__ import annotations

import pytest
import torch

from dp_ros.train.distributed import Ranks
from dp_ros.train.errors import TrainingError


def test_gpu_that_was_asked_for_and_is_not_there_is_refused_before_the_processes_meet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else several processes would train on the CPU without a word."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="torch sees no GPU"):
        Ranks.join("cuda", timeout_s=1.0)
