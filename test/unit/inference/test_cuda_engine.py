"""The CUDA engine: on a CPU it computes what its graphs do; the graphs themselves where there is a GPU."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dp_ros.control.planner import PlanRequest
from dp_ros.inference import engine as engine_module
from dp_ros.inference.cuda_engine import CudaEngine
from dp_ros.inference.engine import choose_engine, load_engine
from dp_ros.inference.self_check import EngineCheckError, Verdict, fixed_requests
from dp_ros.inference.torch_engine import TorchEngine
from dp_ros.schema import ConfigError, RuntimeConfig

pytestmark = pytest.mark.usefixtures("one_thread")
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]
SAMPLERS = [
    {},
    {"sampler": "ddpm"},
    {"sampler": "dpm_solver", "sampler_iterations": 4, "warm_start": 2},
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("precision", "tolerance"), [("f32", 1e-4), ("bf16", 0.25)])
def test_it_plans_as_the_reference_does(
    of_network: Path, stats: dict, sampler: dict[str, Any], device: str, precision: str, tolerance: float
) -> None:
    """Free, with known actions, and begun at a guess."""
    runtime = RuntimeConfig.model_validate({"threads": 1, "device": device, **sampler})
    fast = CudaEngine(of_network, runtime.model_copy(update={"precision": precision}), device)
    reference = TorchEngine(of_network, runtime)
    half_range = (np.array(stats["action"]["high"]) - stats["action"]["low"]) / 2
    errors = []
    for request in fixed_requests(reference.config)[:2]:
        free = reference(request)
        known = np.where(np.arange(len(free))[:, None] < 2, free / 2, np.nan)
        for each in (request, replace(request, committed=known), replace(request, guess=free / 2)):
            errors.append(np.abs((fast(each) - reference(each)) / half_range).max())
    assert max(errors) < tolerance
    assert precision == "f32" or max(errors) > 1e-6


def test_a_frame_is_encoded_once(
    checkpoint: Path, make_request: Callable[..., PlanRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, request = CudaEngine(checkpoint, RuntimeConfig(threads=1), "cpu"), make_request()
    expected = CudaEngine(checkpoint, RuntimeConfig(threads=1), "cpu")(request)
    calls: list[int] = []
    encoders = [
        lambda *inputs, encode=encode: (calls.append(1), encode(*inputs))[1] for encode in engine._encoders
    ]
    monkeypatch.setattr(engine, "_encoders", encoders)
    engine.prefetch(request.images[0])
    assert len(calls) == len(encoders)
    np.testing.assert_array_equal(engine(request), expected)
    assert len(calls) == 2 * len(encoders)  # the newest frame alone was left
    engine(request)
    assert len(calls) == 2 * len(encoders)


def test_it_ends_with_its_last_reference(checkpoint: Path) -> None:
    """Graphs that the garbage collector ends at any time would disturb the recording of others."""
    gc.disable()
    try:
        engine = CudaEngine(checkpoint, RuntimeConfig(threads=1), "cpu")
        lives = weakref.ref(engine)
        del engine
        assert lives() is None
    finally:
        gc.enable()


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "has_gpu", lambda: True)
    monkeypatch.setattr(engine_module, "free_gpu_bytes", lambda: 8_000_000_000)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(engine_module, "_verified", {})  # what passes here must not be believed elsewhere


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(
    ("plan_ms", "chosen", "said"),
    [
        ({"bf16": 1.0, "f32": 2.0}, ("cuda", "bf16"), "a plan takes cuda bf16 1.0 ms and torch 5.0 ms"),
        (
            {"f32": 2.0},
            ("cuda", "f32"),
            "cuda bf16 was not taken: its actions differ; a plan takes cuda f32 2.0 ms",
        ),
        ({"bf16": 1.0, "f32": 1.1}, ("cuda", "f32"), "a plan takes cuda f32 1.1 ms"),  # and costs no accuracy
        ({"bf16": 6.0, "f32": 7.0}, ("torch", "f32"), "a plan takes cuda bf16 6.0 ms and torch 5.0 ms"),
        ({}, ("torch", "f32"), "cuda f32 was not taken: its actions differ"),
    ],
)
def test_auto_takes_it_on_a_gpu_where_it_agrees_and_is_faster(
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    plan_ms: dict[str, float],
    chosen: tuple[str, str],
    said: str,
) -> None:
    def checked(checkpoint: Path, runtime: RuntimeConfig, version: str) -> tuple[Path, Verdict]:
        assert version.endswith(" a GPU")
        if runtime.precision not in plan_ms:
            raise EngineCheckError("its actions differ")
        return checkpoint, Verdict(1e-5, plan_ms[runtime.precision], 5.0)

    monkeypatch.setattr(engine_module, "checked_engine", checked)
    runtime, why = choose_engine(checkpoint, RuntimeConfig(threads=1))
    assert (runtime.engine, runtime.precision) == chosen
    assert runtime.device == "auto"
    assert said in why


def test_it_is_refused_on_a_cpu(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"^engine cuda computes on a GPU, and device is cpu: set device or"
    ):
        load_engine(checkpoint, RuntimeConfig(engine="cuda", device="cpu"))
    with pytest.raises(
        ConfigError, match=r"^engine openvino computes on the CPU, and device is cuda: set device"
    ):
        load_engine(checkpoint, RuntimeConfig(engine="openvino", device="cuda"))
    monkeypatch.setattr(engine_module, "has_gpu", lambda: False)
    for precision in ("auto", "f32"):
        with pytest.raises(ConfigError, match=r"torch sees no GPU; set engine to auto or torch$") as caught:
            load_engine(checkpoint, RuntimeConfig.model_validate({"engine": "cuda", "precision": precision}))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("first", "last", "is_told"),
    [
        ("CUDA out of memory. Tried to allocate 2 GiB", "", True),
        ("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", "", True),
        ("CUDA out of memory", "operation failed due to a previous error during capture", True),
        ("an illegal memory access was encountered", "", False),
        ("operation not permitted when stream is capturing", "", False),
    ],
)
def test_only_a_lack_of_memory_is_called_one(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, first: str, last: str, is_told: bool
) -> None:
    def fail(*arguments: object) -> None:
        try:
            raise RuntimeError(first)
        except RuntimeError:
            if not last:
                raise
            raise RuntimeError(last)  # noqa: B904 - as a recording does that ends after an error

    monkeypatch.setattr(CudaEngine, "_load", fail)
    with pytest.raises(
        ConfigError if is_told else RuntimeError, match="too little free memory" if is_told else first
    ):
        CudaEngine(checkpoint, RuntimeConfig(threads=1), "cpu")
