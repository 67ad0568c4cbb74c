"""Distributed training, as far as one process shows it; smoke/test_distributed.py starts two."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed

from dp_ros.train.distributed import Ranks
from dp_ros.train.stopping import TrainingError


def test_gpu_that_was_asked_for_and_is_not_there_is_refused_before_the_processes_meet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else several processes would train on the CPU without a word."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="torch sees no GPU"):
        Ranks.join("cuda", timeout_s=1.0)


@pytest.fixture
def alone_in_its_group() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("alone_in_its_group")
def test_error_of_our_own_is_not_blamed_on_another_process() -> None:
    """Here gradients of a type that gloo cannot add; it may be a GPU without memory."""
    parameter = torch.nn.Parameter(torch.zeros(3, dtype=torch.float8_e4m3fn))
    parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(RuntimeError, match="Invalid scalar type") as caught:
        Ranks(0, 2).average([parameter], [1.0])
    assert not isinstance(caught.value, TrainingError)
