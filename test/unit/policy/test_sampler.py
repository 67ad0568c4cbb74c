"""The table of samplers: it agrees with the schema, and a new row can be planned with."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from dp_ros.actions import ACTION_DIM, STATE_DIM
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.noise_schedule import NoiseSchedule
from dp_ros.policy.sampler import SAMPLERS, Denoise, sample
from dp_ros.schema import FULL_SAMPLERS, DiffusionConfig, PolicyConfig, RuntimeConfig, SamplerName

pytestmark = pytest.mark.usefixtures("one_thread")

K, SHAPE = 12, (2, 8, ACTION_DIM)


def test_table_and_schema_name_the_same_samplers() -> None:
    assert list(SAMPLERS) == list(get_args(SamplerName))
    assert set(SAMPLERS) >= FULL_SAMPLERS
    for name in SAMPLERS:
        DiffusionConfig.model_validate({"iterations": K, "sampler": name, "sampler_iterations": K})
        RuntimeConfig.model_validate({"sampler": name})


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("iterations", [3, K])
def test_sampler_denoises_once_an_iteration_and_keeps_the_shape(name: str, iterations: int) -> None:
    calls: list[Tensor] = []

    def denoise(x_k: Tensor, k: Tensor) -> Tensor:
        calls.append(k)
        return torch.zeros_like(x_k)

    schedule = NoiseSchedule(DiffusionConfig(iterations=K, sampler_iterations=1))
    generator = torch.Generator().manual_seed(0)
    x_K = torch.randn(SHAPE, generator=generator)
    x_0 = sample(denoise, x_K, schedule, sampler=name, iterations=iterations, clip=1.0, generator=generator)
    assert len(calls) == (K if name in FULL_SAMPLERS else iterations)
    assert all(k.shape == (2,) and k.dtype == torch.long for k in calls)
    assert x_0.shape == SHAPE
    assert x_0.abs().max() <= 1.0 + 1e-6


def test_unknown_sampler_is_refused_with_the_known_ones() -> None:
    schedule = NoiseSchedule(DiffusionConfig())
    with pytest.raises(ValueError, match="unknown sampler 'euler': choose one of ddpm, ddim"):
        sample(lambda x, k: x, torch.zeros(SHAPE), schedule, sampler="euler", iterations=10, clip=1.0)


def test_policy_plans_with_a_sampler_that_is_only_in_the_table(
    tiny_policy: PolicyConfig, stats: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One denoising of pure noise; a chunk of 0 is the middle of each action's range."""

    def centre(
        denoise: Denoise,
        x_K: Tensor,
        schedule: NoiseSchedule,
        iterations: int,
        clip: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        assert (schedule.iterations, iterations, clip) == (20, 3, 1.0)
        predicted = denoise(x_K, torch.zeros(len(x_K), dtype=torch.long))
        assert predicted.shape == x_K.shape
        return 0.0 * predicted

    monkeypatch.setitem(SAMPLERS, "centre", centre)
    policy = DiffusionPolicy(tiny_policy, stats).eval()
    images, state = torch.rand(1, 2, 2, 3, 32, 32), torch.zeros(1, 2, STATE_DIM)
    plan = policy.plan(images, state, torch.Generator(), sampler="centre", iterations=3)
    middle = (torch.tensor(stats["action"]["low"]) + torch.tensor(stats["action"]["high"])) / 2
    torch.testing.assert_close(plan, middle.expand(1, 8, ACTION_DIM))
