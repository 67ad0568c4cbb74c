"""Reverse process: noise to an action chunk, as pure functions of their arguments.

`SAMPLERS` is the table of samplers. To add one, write its function, enter it in the table, and add its name to
`SamplerName` in `dp_ros/schema/policy.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from dp_ros.policy.noise_schedule import NoiseSchedule

Denoise = Callable[[Tensor, Tensor], Tensor]  # (x_k (B, T_p, D), k (B,)) -> predicted noise (B, T_p, D)


class Sampler(Protocol):
    """One way to run the reverse process."""

    def __call__(
        self,
        denoise: Denoise,
        x_K: Tensor,
        schedule: NoiseSchedule,
        iterations: int,
        clip: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Noise x_K (B, T_p, D) -> clean, normalised chunk (B, T_p, D), in `iterations` calls of `denoise`.

        The predicted clean action is clipped to [-clip, clip]. Random numbers come from `generator` alone.
        """


def predict_clean(x_k: Tensor, eps: Tensor, abar_k: Tensor, clip: float) -> Tensor:
    """The clean action that x_k and its noise imply (Ho et al. 2020, eq. 15), clipped."""
    return ((x_k - (1.0 - abar_k).sqrt() * eps) / abar_k.sqrt()).clamp(-clip, clip)


def ddpm_step(
    x_k: Tensor, eps: Tensor, k: int, schedule: NoiseSchedule, clip: float, noise: Tensor
) -> Tensor:
    """One ancestral step x_k -> x_{k-1} (Ho et al. 2020, eq. 6 and 7, the smaller variance)."""
    abar_k = schedule.abar[k]
    abar_prev = schedule.abar[k - 1] if k > 0 else torch.ones(())
    alpha_k = abar_k / abar_prev  # not schedule.alpha: its rounding does not cancel that of 1 - abar_k
    beta_k = 1.0 - alpha_k
    x_0 = predict_clean(x_k, eps, abar_k, clip)
    mean = (abar_prev.sqrt() * beta_k * x_0 + alpha_k.sqrt() * (1.0 - abar_prev) * x_k) / (1.0 - abar_k)
    if k == 0:
        return mean
    variance = ((1.0 - abar_prev) / (1.0 - abar_k) * beta_k).clamp(min=1e-20)
    return mean + variance.sqrt() * noise


def ddpm(
    denoise: Denoise,
    x_K: Tensor,
    schedule: NoiseSchedule,
    iterations: int,
    clip: float,
    generator: torch.Generator | None,
) -> Tensor:
    """DDPM (Ho et al. 2020, algorithm 2): every trained iteration, so `iterations` is not used; draws noise."""
    x = x_K
    drawn_on = (
        generator.device if generator else x.device
    )  # a CPU generator gives every device the same noise
    for k in reversed(range(schedule.iterations)):
        noise = torch.randn(x.shape, generator=generator, device=drawn_on, dtype=x.dtype).to(x.device)
        x = ddpm_step(x, denoise(x, _batch(k, x)), k, schedule, clip, noise)
    return x


def ddim_step(x_k: Tensor, eps: Tensor, abar_k: Tensor, abar_prev: Tensor, clip: float) -> Tensor:
    """One DDIM update, eta = 0 (Song et al. 2021, eq. 12)."""
    x_0 = predict_clean(x_k, eps, abar_k, clip)
    return abar_prev.sqrt() * x_0 + (1.0 - abar_prev).sqrt() * eps


def ddim_iterations(trained: int, used: int) -> list[int]:
    """The iterations that DDIM visits, the noisiest first: every (trained // used)-th."""
    stride = trained // used
    return [i * stride for i in reversed(range(used))]


def ddim(
    denoise: Denoise,
    x_K: Tensor,
    schedule: NoiseSchedule,
    iterations: int,
    clip: float,
    generator: torch.Generator | None,
) -> Tensor:
    """DDIM (Song et al. 2021), eta = 0: deterministic given x_K, so `generator` is not used."""
    x = x_K
    visited = ddim_iterations(schedule.iterations, iterations)
    for k, k_prev in zip(visited, [*visited[1:], None], strict=True):
        abar_prev = torch.ones(()) if k_prev is None else schedule.abar[k_prev]
        x = ddim_step(x, denoise(x, _batch(k, x)), schedule.abar[k], abar_prev, clip)
    return x


SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim}  # by SamplerName of the schema


def sample(
    denoise: Denoise,
    x_K: Tensor,
    schedule: NoiseSchedule,
    *,
    sampler: str,
    iterations: int,
    clip: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Run the reverse process with the sampler of that name: see `Sampler`. ValueError for an unknown name."""
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler '{sampler}': choose one of {', '.join(SAMPLERS)}")
    return SAMPLERS[sampler](denoise, x_K, schedule, iterations, clip, generator)


def _batch(k: int, x: Tensor) -> Tensor:
    return torch.full((x.shape[0],), k, device=x.device, dtype=torch.long)
