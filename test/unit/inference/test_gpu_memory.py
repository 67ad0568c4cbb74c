"""A GPU without room for a policy: left alone where nobody asked for it, refused in one line where somebody did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dp_ros.inference import engine as engine_module
from dp_ros.inference import torch_engine
from dp_ros.inference.engine import choose_engine, load_engine
from dp_ros.schema import ConfigError, RuntimeConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("free_mb", "device"), [(100, "cpu"), (8000, "auto")])
def test_gpu_is_taken_only_with_the_memory_for_it(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, free_mb: int, device: str
) -> None:
    monkeypatch.setattr(engine_module, "has_gpu", lambda: True)
    monkeypatch.setattr(engine_module, "free_gpu_bytes", lambda: free_mb * 1_000_000)
    runtime, why = choose_engine(checkpoint, RuntimeConfig(precision="f32", threads=1))
    assert runtime.device == device
    if device == "cpu":
        assert why.startswith("the GPU was not taken: 100 MB of its memory are free, 60")
    else:
        assert (runtime.engine, why) == ("torch", "device is a GPU")


def test_gpu_that_was_asked_for_and_is_full_is_refused(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(checkpoint: Path, device: str) -> None:
        assert device == "cuda"
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch_engine, "load_checkpoint", full)
    with pytest.raises(
        ConfigError, match=r"^device cuda: the GPU has too little free memory.*device to cpu$"
    ):
        load_engine(checkpoint, RuntimeConfig(engine="torch", device="cuda", threads=1))
