"""Samplers against those of diffusers, iteration by iteration, on the same noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dp_ros.actions import ACTION_DIM
from dp_ros.policy.noise_levels import visited_iterations
from dp_ros.policy.noise_schedule import NoiseSchedule
from dp_ros.policy.sampler import sample, sampler_steps
from dp_ros.policy.unet import ConditionalUnet1D
from dp_ros.schema import DiffusionConfig, UNetConfig

diffusers = pytest.importorskip("diffusers")

Denoise = Callable[[Tensor, int], Tensor]  # (x_k, k) -> predicted noise
SHAPE = (2, 8, ACTION_DIM)
ATOL = 1e-6  # in double precision: in single, the first steps magnify rounding


def wavy(x: Tensor, k: int) -> Tensor:
    """Stand-in for a network: nonlinear, bounded, and different in every iteration."""
    return 1.5 * torch.tanh(torch.sin(2.0 * x + 0.37 * k) + 0.5 * x.roll(1, dims=1))


def unet() -> Denoise:
    torch.manual_seed(3)
    config = UNetConfig(channels=(16, 32), groups=4, step_embedding_dim=16)
    model = ConditionalUnet1D(SHAPE[-1], 5, config)
    obs = torch.randn(SHAPE[0], 5)
    return lambda x, k: model(x.float(), torch.full((len(x),), k), obs).detach().double()


DENOISERS: dict[str, Callable[[], Denoise]] = {"wavy": lambda: wavy, "unet": unet}


def scheduler(kind: str, K: int, clip: float = 1.0, spacing: str = "leading") -> Any:
    common = {
        "num_train_timesteps": K,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "epsilon",
        "timestep_spacing": spacing,
    }
    if kind == "dpm_solver":  # it clips only together with its dynamic thresholds
        return diffusers.DPMSolverMultistepScheduler(
            **common, final_sigmas_type="zero", lower_order_final=False
        )
    common |= {"clip_sample": True, "clip_sample_range": clip}
    if kind == "ddpm":
        return diffusers.DDPMScheduler(**common, variance_type="fixed_small")
    return diffusers.DDIMScheduler(**common, set_alpha_to_one=True, steps_offset=0)


def theirs(
    kind: str, denoise: Denoise, x: Tensor, K: int, iterations: int, clip: float, spacing: str
) -> list[Tensor]:
    """Every x of diffusers' scheduler, from pure noise to the clean action."""
    reference = scheduler(kind, K, clip, spacing)
    reference.alphas_cumprod = reference.alphas_cumprod.double()
    reference.set_timesteps(iterations)
    generator = torch.Generator().manual_seed(11)
    states = [x]
    for k in reference.timesteps:
        eps = denoise(x, int(k))
        options = {"eta": 0.0} if kind == "ddim" else {}
        x = reference.step(eps, k, x, generator=generator, **options).prev_sample
        states.append(x)
    return states


def ours(
    kind: str, denoise: Denoise, x: Tensor, K: int, iterations: int, clip: float, spacing: str
) -> list[Tensor]:
    config = DiffusionConfig.model_validate(
        {"iterations": K, "sampler": kind, "sampler_iterations": iterations, "clip": clip, "spacing": spacing}
    )
    states: list[Tensor] = []

    def watched(x_k: Tensor, k: int) -> Tensor:
        states.append(x_k)
        return denoise(x_k, k)

    generator = torch.Generator().manual_seed(11)
    last = sample(
        watched,
        x,
        sampler_steps(config),
        clip,
        lambda: torch.randn(SHAPE, generator=generator, dtype=x.dtype),
    )
    return [*states, last]


@pytest.mark.parametrize("K", [2, 50, 100])
def test_forward_process_has_the_betas_of_diffusers(K: int) -> None:
    schedule = NoiseSchedule(DiffusionConfig(iterations=K, sampler_iterations=2))
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
    ("kind", "K", "iterations", "clip", "spacing"),
    [
        ("ddpm", 100, 100, 1.0, "leading"),
        ("ddpm", 20, 20, 2.0, "leading"),
        ("ddim", 100, 100, 1.0, "leading"),
        ("ddim", 100, 10, 1.0, "leading"),
        ("ddim", 100, 16, 1.0, "leading"),
        ("ddim", 100, 7, 1.0, "leading"),
        ("ddim", 50, 8, 0.5, "leading"),
        ("ddim", 100, 1, 1.0, "trailing"),
        ("ddim", 100, 4, 1.0, "trailing"),
        ("ddim", 50, 5, 0.5, "trailing"),
    ],
)
def test_every_iteration_equals_that_of_diffusers(
    kind: str, K: int, iterations: int, clip: float, spacing: str, denoiser: str
) -> None:
    denoise = DENOISERS[denoiser]()
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5)).double()
    mine = ours(kind, denoise, noise, K, iterations, clip, spacing)
    reference = theirs(kind, denoise, noise, K, iterations, clip, spacing)
    assert len(mine) == len(reference) == iterations + 1
    for i, (x, x_reference) in enumerate(zip(mine, reference, strict=True)):
        np.testing.assert_allclose(x, x_reference, rtol=0, atol=ATOL, err_msg=f"after {i} iterations")


@pytest.mark.parametrize("denoiser", DENOISERS)
@pytest.mark.parametrize("iterations", [2, 5, 20])
@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_dpm_solver_equals_that_of_diffusers_where_nothing_is_clipped(
    spacing: str, iterations: int, denoiser: str
) -> None:
    """Diffusers' own spacings round otherwise, so both visit the iterations of ours."""
    K = 100
    visited = visited_iterations(K, iterations, spacing)
    reference = scheduler("dpm_solver", K)
    reference.alphas_cumprod = reference.alphas_cumprod.double()
    reference.set_timesteps(timesteps=visited)
    denoise = DENOISERS[denoiser]()
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5)).double()
    expected = [noise]
    for k in reference.timesteps:
        expected.append(reference.step(denoise(expected[-1], int(k)), k, expected[-1]).prev_sample)
    mine = ours("dpm_solver", denoise, noise, K, iterations, 1e6, spacing)
    assert len(mine) == len(expected)
    for x, x_reference in zip(mine, expected, strict=True):
        np.testing.assert_allclose(x, x_reference, rtol=1e-5, atol=1e-4)


def test_one_iteration_of_dpm_solver_is_ddim() -> None:
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5)).double()
    one, other = (ours(kind, wavy, noise, 100, 1, 1.0, "trailing") for kind in ("dpm_solver", "ddim"))
    torch.testing.assert_close(one[-1], other[-1])


@pytest.mark.parametrize(
    ("used", "spacing", "visited"),
    [
        (4, "leading", [75, 50, 25, 0]),
        (3, "leading", [66, 33, 0]),
        (4, "trailing", [99, 74, 49, 24]),
        (3, "trailing", [99, 66, 32]),
        (1, "trailing", [99]),
        (3, "linspace", [99, 50, 0]),
        (100, "trailing", list(range(99, -1, -1))),
    ],
)
def test_spacings_visit_the_iterations_of_their_definition(
    used: int, spacing: str, visited: list[int]
) -> None:
    assert visited_iterations(100, used, spacing) == visited


@pytest.mark.parametrize(
    ("kind", "iterations", "spacing"),
    [
        ("ddpm", 100, "leading"),
        ("ddim", 100, "leading"),
        ("ddim", 10, "leading"),
        ("ddim", 2, "trailing"),
        ("dpm_solver", 3, "trailing"),
    ],
)
def test_sampler_recovers_the_target_with_a_perfect_denoiser(
    kind: str, iterations: int, spacing: str
) -> None:
    schedule = NoiseSchedule(DiffusionConfig())
    generator = torch.Generator().manual_seed(1)
    target = torch.rand(SHAPE, generator=generator) * 2 - 1

    def perfect(x_k: Tensor, k: int) -> Tensor:
        abar = schedule.abar[k]
        return (x_k - abar.sqrt() * target) / (1 - abar).sqrt()

    found = ours(kind, perfect, torch.randn(SHAPE, generator=generator), 100, iterations, 1.0, spacing)
    torch.testing.assert_close(found[-1], target, rtol=0, atol=1e-3)


def test_ddim_draws_nothing_and_ddpm_only_what_it_is_given() -> None:
    x_K = torch.randn(SHAPE)

    def run(kind: str, seed: int) -> Tensor:
        config = DiffusionConfig.model_validate({"iterations": 10, "sampler": kind, "sampler_iterations": 10})
        generator = torch.Generator().manual_seed(seed)
        return sample(wavy, x_K, sampler_steps(config), 1.0, lambda: torch.randn(SHAPE, generator=generator))

    before = torch.get_rng_state()
    assert torch.equal(run("ddim", 0), run("ddim", 1))
    assert torch.equal(run("ddpm", 0), run("ddpm", 0))
    assert not torch.equal(run("ddpm", 0), run("ddpm", 1))
    assert torch.equal(torch.get_rng_state(), before)
