"""Samplers against those of diffusers, iteration by iteration, on the same noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dp_ros.actions import ACTION_DIM
from dp_ros.policy.noise_schedule import NoiseSchedule
from dp_ros.policy.sampler import Denoise, sample
from dp_ros.policy.unet import ConditionalUnet1D
from dp_ros.schema import DiffusionConfig, UNetConfig

diffusers = pytest.importorskip("diffusers")

SHAPE = (2, 8, ACTION_DIM)
ATOL = 1e-5


def wavy(x: Tensor, k: Tensor) -> Tensor:
    """Stand-in for a network: nonlinear, bounded, and different in every iteration."""
    return 1.5 * torch.tanh(torch.sin(2.0 * x + 0.37 * k[:, None, None]) + 0.5 * x.roll(1, dims=1))


def unet() -> Denoise:
    torch.manual_seed(3)
    model = ConditionalUnet1D(SHAPE[-1], 5, UNetConfig(channels=(16, 32), groups=4, step_embedding_dim=16))
    obs = torch.randn(SHAPE[0], 5)
    return lambda x, k: model(x, k, obs).detach()


DENOISERS: dict[str, Callable[[], Denoise]] = {"wavy": lambda: wavy, "unet": unet}


def scheduler(kind: str, K: int, clip: float = 1.0) -> Any:
    common = {
        "num_train_timesteps": K,
        "beta_schedule": "squaredcos_cap_v2",
        "clip_sample": True,
        "clip_sample_range": clip,
        "prediction_type": "epsilon",
    }
    if kind == "ddpm":
        return diffusers.DDPMScheduler(**common, variance_type="fixed_small")
    return diffusers.DDIMScheduler(**common, set_alpha_to_one=True, steps_offset=0)


def theirs(kind: str, denoise: Denoise, x: Tensor, K: int, iterations: int, clip: float) -> list[Tensor]:
    """Every x of diffusers' scheduler, from pure noise to the clean action."""
    reference = scheduler(kind, K, clip)
    reference.set_timesteps(iterations)
    generator = torch.Generator().manual_seed(11)
    states = [x]
    for k in reference.timesteps:
        eps = denoise(x, k.repeat(len(x)))
        options = {"eta": 0.0} if kind == "ddim" else {}
        x = reference.step(eps, k, x, generator=generator, **options).prev_sample
        states.append(x)
    return states


def ours(kind: str, denoise: Denoise, x: Tensor, K: int, iterations: int, clip: float) -> list[Tensor]:
    config = DiffusionConfig(iterations=K, sampler=kind, sampler_iterations=iterations, clip=clip)
    states: list[Tensor] = []

    def watched(x_k: Tensor, k: Tensor) -> Tensor:
        states.append(x_k)
        return denoise(x_k, k)

    generator = torch.Generator().manual_seed(11)
    last = sample(
        watched,
        x,
        NoiseSchedule(config),
        sampler=kind,
        iterations=iterations,
        clip=clip,
        generator=generator,
    )
    return [*states, last]


@pytest.mark.parametrize("K", [2, 50, 100])
def test_forward_process_has_the_betas_of_diffusers(K: int) -> None:
    schedule = NoiseSchedule(DiffusionConfig(iterations=K, sampler_iterations=1))
    reference = scheduler("ddpm", K)
    torch.testing.assert_close(schedule.beta, reference.betas, rtol=0, atol=1e-7)
    torch.testing.assert_close(schedule.abar, reference.alphas_cumprod, rtol=0, atol=1e-7)


def test_noise_is_added_as_diffusers_adds_it() -> None:
    generator = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(2, 100, 8, ACTION_DIM, generator=generator)
    k = torch.arange(100)
    added = NoiseSchedule(DiffusionConfig()).add_noise(x_0, noise, k)
    reference = scheduler("ddpm", 100).add_noise(x_0, noise, k)
    torch.testing.assert_close(added, reference, rtol=0, atol=1e-6)


@pytest.mark.parametrize("denoiser", DENOISERS)
@pytest.mark.parametrize(
    ("kind", "K", "iterations", "clip"),
    [
        ("ddpm", 100, 100, 1.0),
        ("ddpm", 20, 20, 2.0),
        ("ddim", 100, 100, 1.0),
        ("ddim", 100, 10, 1.0),
        ("ddim", 100, 16, 1.0),
        ("ddim", 100, 7, 1.0),
        ("ddim", 100, 1, 1.0),
        ("ddim", 50, 8, 0.5),
    ],
)
def test_every_iteration_equals_that_of_diffusers(
    kind: str, K: int, iterations: int, clip: float, denoiser: str
) -> None:
    denoise = DENOISERS[denoiser]()
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5))
    mine = ours(kind, denoise, noise, K, iterations, clip)
    reference = theirs(kind, denoise, noise, K, iterations, clip)
    assert len(mine) == len(reference) == iterations + 1
    for i, (x, x_reference) in enumerate(zip(mine, reference, strict=True)):
        np.testing.assert_allclose(x, x_reference, rtol=0, atol=ATOL, err_msg=f"after {i} iterations")


@pytest.mark.parametrize(("kind", "iterations"), [("ddpm", 100), ("ddim", 100), ("ddim", 10), ("ddim", 1)])
def test_sampler_recovers_the_target_with_a_perfect_denoiser(kind: str, iterations: int) -> None:
    config = DiffusionConfig(sampler=kind, sampler_iterations=iterations)
    schedule = NoiseSchedule(config)
    generator = torch.Generator().manual_seed(1)
    target = torch.rand(SHAPE, generator=generator) * 2 - 1

    def perfect(x_k: Tensor, k: Tensor) -> Tensor:
        abar = schedule.abar[k][:, None, None]
        return (x_k - abar.sqrt() * target) / (1 - abar).sqrt()

    x_K = torch.randn(SHAPE, generator=generator)
    found = sample(perfect, x_K, schedule, sampler=kind, iterations=iterations, clip=1.0, generator=generator)
    torch.testing.assert_close(found, target, rtol=0, atol=1e-4)


def test_ddim_draws_nothing_and_ddpm_only_from_its_generator() -> None:
    x_K = torch.randn(SHAPE)
    schedule = NoiseSchedule(DiffusionConfig(iterations=10, sampler_iterations=10))

    def draw(kind: str, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return sample(wavy, x_K, schedule, sampler=kind, iterations=10, clip=1.0, generator=generator)

    before = torch.get_rng_state()
    assert torch.equal(draw("ddim", 0), draw("ddim", 1))
    assert torch.equal(draw("ddpm", 0), draw("ddpm", 0))
    assert not torch.equal(draw("ddpm", 0), draw("ddpm", 1))
    assert torch.equal(torch.get_rng_state(), before)
