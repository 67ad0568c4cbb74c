"""Engines of a policy that is told what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dp_ros.control.planner import PlanRequest
from dp_ros.inference.cuda_engine import CudaEngine
from dp_ros.inference.engine import Engine, load_engine
from dp_ros.inference.self_check import fixed_requests
from dp_ros.policy.checkpoint import save_checkpoint
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.instructions import Instructions, Sentence
from dp_ros.schema import InstructionError, PolicyConfig, RuntimeConfig, override

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]
DIM = 12
SENTENCES = np.eye(DIM, dtype=np.float32)[:2]


@pytest.fixture(scope="module")
def told(tiny_policy: PolicyConfig, stats: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow encoder, and FiLM that already has an effect."""
    torch.manual_seed(0)
    config = override(
        tiny_policy, {"encoder.width": 32, "instruction": {"embedding_dim": DIM, "features": 6}}
    )
    policy = DiffusionPolicy(config, stats)
    for camera in policy.encoder.cameras:
        torch.nn.init.normal_(camera.film.weight, std=0.2)
    sentences = Instructions((Sentence("open it", "open"), Sentence("close it", "close")), SENTENCES)
    folder = tmp_path_factory.mktemp("models") / "told"
    return save_checkpoint(policy, folder, instructions=sentences)


def load(engine: str, told: Path) -> Engine:
    """On the CPU, also the one that records graphs on a GPU."""
    runtime = RuntimeConfig(engine=engine, device="cpu", threads=1, precision="f32")
    return CudaEngine(told, runtime, "cpu") if engine == "cuda" else load_engine(told, runtime)


@pytest.mark.parametrize("engine", ["torch", "openvino", "cuda"])
def test_engines_follow_the_instruction(
    told: Path, engine: str, make_request: Callable[..., PlanRequest]
) -> None:
    plan, request = load(engine, told), make_request()
    one, other = (replace(request, instruction=sentence) for sentence in SENTENCES)
    first = plan(one)
    second = plan(other)
    assert np.abs(second - first).max() > 1e-6
    np.testing.assert_array_equal(
        load(engine, told)(other), second
    )  # nothing of the first instruction is left
    plan.prefetch(request.images[1])  # under the other instruction
    np.testing.assert_array_equal(plan(one), first)
    with pytest.raises(InstructionError, match="no instruction"):
        plan(request)


@pytest.mark.parametrize("engine", ["openvino", "cuda"])
def test_engines_agree_with_the_reference(told: Path, engine: str, stats: dict[str, Any]) -> None:
    fast, reference = (load(name, told) for name in (engine, "torch"))
    half_range = (np.array(stats["action"]["high"]) - stats["action"]["low"]) / 2
    for request in fixed_requests(reference.config):
        assert np.abs((fast(request) - reference(request)) / half_range).max() < 1e-4
