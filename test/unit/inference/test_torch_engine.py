"""The reference engine: the checkpoint's policy, with the runtime's sampler and device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dp_ros.actions import ACTION_DIM
from dp_ros.control.planner import PlanRequest
from dp_ros.inference.engine import load_engine, sampler_settings
from dp_ros.policy.checkpoint import load_checkpoint
from dp_ros.policy.sampler import sampler_steps
from dp_ros.schema import ConfigError, DiffusionConfig, RuntimeConfig, override

pytestmark = pytest.mark.usefixtures("one_thread")


def expected_chunk(checkpoint: Path, request: PlanRequest, sampler: dict[str, Any]) -> np.ndarray:
    """The policy's own plan on the centre of the pictures: 36 x 40 px cropped to 32 x 32."""
    images = torch.from_numpy(
        np.stack([np.stack(frame) for frame in request.images])[:, :, 2:34, 4:36].astype(np.float32) / 255
    )
    noise = int(np.random.SeedSequence(request.seed).generate_state(1, np.uint64)[0] >> 1)
    policy, generator = load_checkpoint(checkpoint), torch.Generator().manual_seed(noise)
    plan = policy.plan_from(
        images[None].permute(0, 1, 2, 5, 3, 4),
        torch.from_numpy(request.state)[None].float(),
        lambda: torch.randn(1, 8, ACTION_DIM, generator=generator),
        sampler_steps(override(policy.config.diffusion, sampler)),
    )
    return plan[0].numpy()


@pytest.mark.parametrize(
    ("runtime", "sampler"),
    [
        ({}, {}),
        ({"sampler": "ddpm"}, {"sampler": "ddpm", "sampler_iterations": 20}),
        (
            {"sampler_iterations": 2, "sampler_spacing": "trailing"},
            {"sampler_iterations": 2, "spacing": "trailing"},
        ),
    ],
)
def test_engine_plans_as_the_policy_on_the_centre_of_the_pictures(
    checkpoint: Path,
    make_request: Callable[..., PlanRequest],
    runtime: dict[str, Any],
    sampler: dict[str, Any],
) -> None:
    engine = load_engine(checkpoint, RuntimeConfig(engine="torch", device="cpu", **runtime))
    request = make_request()
    np.testing.assert_allclose(engine(request), expected_chunk(checkpoint, request, sampler), atol=1e-6)


@pytest.mark.parametrize(
    ("runtime", "used"),
    [
        ({}, ("ddim", 10, "leading")),
        ({"sampler_iterations": 25}, ("ddim", 25, "leading")),
        ({"sampler": "ddpm"}, ("ddpm", 100, "leading")),
        ({"sampler": "ddim", "sampler_iterations": 4}, ("ddim", 4, "leading")),
        ({"sampler_iterations": 1, "sampler_spacing": "trailing"}, ("ddim", 1, "trailing")),
    ],
)
def test_runtime_overrides_the_sampler_of_the_checkpoint(
    runtime: dict[str, Any], used: tuple[str, int, str]
) -> None:
    found = sampler_settings(DiffusionConfig(), RuntimeConfig.model_validate(runtime))
    assert (found.sampler, found.sampler_iterations, found.spacing) == used


@pytest.mark.parametrize(
    "runtime",
    [{"sampler_iterations": 101}, {"sampler": "ddpm", "sampler_iterations": 10}, {"sampler_iterations": 1}],
)
def test_sampler_that_was_not_trained_for_is_refused(runtime: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^sampler: "):
        sampler_settings(DiffusionConfig(), RuntimeConfig.model_validate(runtime))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_missing_gpu_is_refused_in_one_line(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="torch sees no GPU; set device to auto or cpu"):
        load_engine(checkpoint, RuntimeConfig(device="cuda"))
