"""A GPU without room for a policy: left alone where nobody asked for it, refused in one line where somebody did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dp_ros.inference import engine as engine_module
from dp_ros.inference import torch_engine
from dp_ros.inference.engine import choose_engine, load_engine
from dp_ros.inference.self_check import Verdict
from dp_ros.schema import ConfigError, RuntimeConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("free_mb", "device"), [(100, "cpu"), (8000, "auto")])
def test_gpu_is_taken_only_with_the_memory_for_it(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, free_mb: int, device: str
) -> None:
    def checked(checkpoint: Path, runtime: RuntimeConfig, version: str) -> tuple[Path, Verdict]:
        return checkpoint, Verdict(1e-6, 1.0, 2.0)

    monkeypatch.setattr(engine_module, "has_gpu", lambda: True)
    monkeypatch.setattr(engine_module, "free_gpu_bytes", lambda: free_mb * 1_000_000)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(engine_module, "checked_engine", checked)
    monkeypatch.setattr(engine_module, "_verified", {})  # what passes here must not be believed elsewhere
    runtime, why = choose_engine(checkpoint, RuntimeConfig(precision="f32", threads=1))
    assert runtime.device == device
    if device == "cpu":
        assert runtime.engine == "openvino"
        assert why.startswith("the GPU was not taken: 100 MB of its memory are free, 60")
    else:
        assert runtime.engine == "cuda"
        assert why.startswith("a plan takes cuda f32 1.0 ms and torch 2.0 ms")


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
