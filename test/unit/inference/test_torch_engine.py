"""The reference engine: the checkpoint's policy, asked by the controller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dp_ros.control.planner import PlanRequest
from dp_ros.inference.torch_engine import TorchEngine, sampler_settings
from dp_ros.policy.checkpoint import load_checkpoint, save_checkpoint
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import ConfigError, DiffusionConfig, PolicyConfig, RuntimeConfig

pytestmark = pytest.mark.usefixtures("one_thread")
ON_CPU = RuntimeConfig(device="cpu")


@pytest.fixture(scope="module")
def checkpoint(
    tiny_policy: PolicyConfig, stats: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    torch.manual_seed(0)
    return save_checkpoint(DiffusionPolicy(tiny_policy, stats), tmp_path_factory.mktemp("models") / "tiny")


def request(seed: tuple[int, ...] = (0, 3)) -> PlanRequest:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 2, 36, 40, 3), dtype=np.uint8)
    return PlanRequest(images, rng.random((2, 4)), np.zeros(3), stamp_ns=0, seed=seed)


def test_engine_plans_as_the_policy_on_the_middle_of_the_picture(checkpoint: Path) -> None:
    asked = request()
    images = torch.from_numpy(asked.images[:, :, 2:34, 4:36].astype(np.float32) / 255)
    noise = int(np.random.SeedSequence((0, 3)).generate_state(1, np.uint64)[0] >> 1)
    expected = load_checkpoint(checkpoint).plan(
        images[None].permute(0, 1, 2, 5, 3, 4),
        torch.from_numpy(asked.state)[None].float(),
        torch.Generator().manual_seed(noise),
    )
    found = TorchEngine(checkpoint, ON_CPU)(asked)
    assert (found.shape, found.dtype) == ((8, 4), np.float64)
    np.testing.assert_allclose(found, expected[0].numpy(), atol=1e-6)


def test_answer_follows_from_the_request_alone(checkpoint: Path) -> None:
    engine = TorchEngine(checkpoint, ON_CPU)
    first = engine(request())
    other = engine(request(seed=(0, 4)))
    np.testing.assert_array_equal(engine(request()), first)
    assert (other != first).any()


@pytest.mark.parametrize(
    ("runtime", "used"),
    [
        ({}, ("ddim", 10)),
        ({"sampler_iterations": 25}, ("ddim", 25)),
        ({"sampler": "ddpm"}, ("ddpm", 100)),
        ({"sampler": "ddim", "sampler_iterations": 4}, ("ddim", 4)),
    ],
)
def test_runtime_overrides_the_sampler_of_the_checkpoint(
    runtime: dict[str, Any], used: tuple[str, int]
) -> None:
    assert sampler_settings(DiffusionConfig(), RuntimeConfig.model_validate(runtime)) == used


@pytest.mark.parametrize(
    "runtime", [{"sampler_iterations": 101}, {"sampler": "ddpm", "sampler_iterations": 10}]
)
def test_sampler_that_was_not_trained_for_is_refused(runtime: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^sampler: "):
        sampler_settings(DiffusionConfig(), RuntimeConfig.model_validate(runtime))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_gpu_that_is_not_there_is_said_in_one_line(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="torch sees no GPU; set device to auto or cpu"):
        TorchEngine(checkpoint, RuntimeConfig(device="cuda"))
