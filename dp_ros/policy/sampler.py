"""Reverse process: noise to an action chunk, as a list of linear updates.

Every sampler here is a list of `SamplerStep`, computed once from the schedule. One loop applies them to NumPy arrays
and to tensors, so all engines share it. To add a sampler, write a function that gives its steps, enter it in
`SAMPLERS`, and add its name to `SamplerName` in `dp_ros/schema/policy.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dp_ros.policy.noise_levels import squared_cosine_abar, visited_iterations
from dp_ros.schema import DiffusionConfig, Prediction


class ArrayLike(Protocol):
    """The operations that the loop needs; NumPy arrays and tensors have them."""

    def __add__(self, other: Any, /) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...
    def __mul__(self, other: Any, /) -> Any: ...
    def clip(self, low: float, high: float, /) -> Any: ...


A = TypeVar("A", bound=ArrayLike)


@dataclass(frozen=True)
class SamplerStep:
    """One update: the network is called at iteration k, then x is replaced by

    x * x_k + clean * x_0 + eps * predicted noise + clean_before * x_0 of the step before + noise * drawn noise.

    A network with the prediction "epsilon" gives the noise, and x_0 = (x_k - sigma * noise) / alpha (Ho et al. 2020,
    eq. 15), clipped. One with "sample" gives x_0, which is clipped, and noise = (x_k - alpha * x_0) / sigma.
    """

    k: int
    alpha: float
    sigma: float
    x: float = 0.0
    clean: float = 0.0
    eps: float = 0.0
    clean_before: float = 0.0
    noise: float = 0.0
    prediction: Prediction = "epsilon"

    def update(
        self, x: A, predicted: A, before: Any, clip: float, draw: Callable[[], A] | None = None
    ) -> tuple[A, A]:
        """(x of the next step, x_0), from x, the network's output for it, and x_0 of the step before.

        ValueError where the step adds noise and `draw` is missing.
        """
        clean: Any
        eps: Any
        following: Any
        if self.prediction == "sample":
            clean = predicted.clip(-clip, clip)
            eps = (x - clean * self.alpha) * (1.0 / self.sigma) if self.eps else None
        else:
            eps = predicted
            clean = ((x - eps * self.sigma) * (1.0 / self.alpha)).clip(-clip, clip)
        following = clean * self.clean
        if self.x:
            following = following + x * self.x
        if self.eps:
            following = following + eps * self.eps
        if self.clean_before:
            following = following + before * self.clean_before
        if self.noise:
            if draw is None:
                raise ValueError("this sampler adds noise in its steps: `draw` is missing")
            following = following + draw() * self.noise
        return following, clean


@dataclass(frozen=True)
class Known(Generic[A]):
    """Actions of a chunk that are given before it is sampled."""

    clean: A  # (B, T_p, D) normalised; 0 where free
    kept: A  # (B, T_p, D): 1 where given, 0 where free
    noised: bool = (
        True  # the network gets them at its noise level; False: clean, as training with a `prefix` shows them
    )

    @classmethod
    def of(
        cls,
        committed: NDArray[Any],
        centre: NDArray[np.float32],
        half_range: NDArray[np.float32],
        prefix: int = 0,
    ) -> Known[NDArray[np.float32]]:
        """committed (T_p, D) in metres and [-1, 1], NaN where free; centre and half_range (D,) of the normaliser.

        prefix: of the checkpoint. With one, at most so many first actions are given, each whole, and clean.
        """
        clean = ((committed - centre) / half_range).astype(np.float32)[None]
        kept = np.isfinite(clean)
        if prefix:
            kept[:] = kept.all(axis=-1, keepdims=True)
            kept[:, prefix:] = False
        return Known(np.where(kept, clean, 0).astype(np.float32), kept.astype(np.float32), not prefix)


Levels = NDArray[np.float64]  # abar_k (K,)
MakeSteps = Callable[[Levels, Sequence[int]], list[SamplerStep]]  # iterations visited, the noisiest first


def _levels(abar: Levels, visited: Sequence[int]) -> list[tuple[int, float, float]]:
    """(k, abar_k, abar of the next iteration visited); after the last one the action is clean."""
    after = [*(float(abar[k]) for k in visited[1:]), 1.0]
    return [(k, float(abar[k]), next_abar) for k, next_abar in zip(visited, after, strict=True)]


def ddpm(abar: Levels, visited: Sequence[int]) -> list[SamplerStep]:
    """DDPM (Ho et al. 2020, eq. 6 and 7, the smaller variance), over every trained iteration or some of them."""
    steps = []
    for k, abar_k, abar_next in _levels(abar, visited):
        alpha_k = abar_k / abar_next
        beta_k = 1.0 - alpha_k
        steps.append(
            SamplerStep(
                k, math.sqrt(abar_k), math.sqrt(1.0 - abar_k),
                x=math.sqrt(alpha_k) * (1.0 - abar_next) / (1.0 - abar_k),
                clean=math.sqrt(abar_next) * beta_k / (1.0 - abar_k),
                noise=math.sqrt((1.0 - abar_next) / (1.0 - abar_k) * beta_k),
            )
        )  # fmt: skip
    return steps


def ddim(abar: Levels, visited: Sequence[int]) -> list[SamplerStep]:
    """DDIM, eta = 0 (Song et al. 2021, eq. 12): deterministic given the first noise."""
    return [
        SamplerStep(
            k, math.sqrt(abar_k), math.sqrt(1.0 - abar_k),
            clean=math.sqrt(abar_next), eps=math.sqrt(1.0 - abar_next),
        )
        for k, abar_k, abar_next in _levels(abar, visited)
    ]  # fmt: skip


def dpm_solver(abar: Levels, visited: Sequence[int]) -> list[SamplerStep]:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): second order by the clean action of the step before.

    The first and the last step are of first order, which is DDIM: the last one ends at infinite log-SNR.
    """
    steps: list[SamplerStep] = []
    lam_before = math.nan
    for i, (k, abar_k, abar_next) in enumerate(_levels(abar, visited)):
        alpha, sigma = math.sqrt(abar_k), math.sqrt(1.0 - abar_k)
        alpha_next, sigma_next = math.sqrt(abar_next), math.sqrt(1.0 - abar_next)
        lam = math.log(alpha / sigma)
        if sigma_next == 0.0:
            steps.append(SamplerStep(k, alpha, sigma, clean=1.0))
            break
        h = math.log(alpha_next / sigma_next) - lam
        gain = -alpha_next * math.expm1(-h)
        second = 0.0 if i == 0 else h / (2.0 * (lam - lam_before))  # 1 / (2 r)
        steps.append(
            SamplerStep(
                k, alpha, sigma,
                x=sigma_next / sigma, clean=gain * (1.0 + second), clean_before=-gain * second,
            )
        )  # fmt: skip
        lam_before = lam
    return steps


SAMPLERS: dict[str, MakeSteps] = {"ddpm": ddpm, "ddim": ddim, "dpm_solver": dpm_solver}  # by SamplerName


def sampler_steps(config: DiffusionConfig) -> list[SamplerStep]:
    """The steps of the sampler that `config` names. ValueError for an unknown name."""
    if config.sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler '{config.sampler}': choose one of {', '.join(SAMPLERS)}")
    visited = visited_iterations(config.iterations, config.sampler_iterations, config.spacing)
    steps = SAMPLERS[config.sampler](squared_cosine_abar(config.iterations), visited)
    return [replace(step, prediction=config.prediction) for step in steps]


def sample(
    denoise: Callable[[A, int], A],
    x_K: A,
    steps: Sequence[SamplerStep],
    clip: float,
    draw: Callable[[], A] | None = None,
    known: Known[A] | None = None,
    guess: A | None = None,
) -> A:
    """Noise x_K (B, T_p, D) -> clean, normalised chunk (B, T_p, D), in one call of `denoise` a step.

    denoise: (x_k (B, T_p, D), k) -> the network's output (B, T_p, D). The clean action is clipped to [-clip, clip].
    draw: standard normal noise like x_K, for samplers that add some; without it they are refused with a ValueError.

    known: actions that the chunk must contain. They replace what was sampled, before each call at its noise level with
    the noise of x_K, and in the end clean (inpainting: Lugmayr et al. 2022; Janner et al. 2022; for chunks in real time
    Black et al. 2025, who guide by a gradient instead). Where training showed them clean, so does each call (Black et
    al. 2025b). The other actions follow, because the network denoises all of them together.

    guess: a clean chunk (B, T_p, D), normalised, to begin at in place of pure noise: noised to the level of the first
    step (SDEdit, Meng et al. 2022). `steps` are then the last ones of a sampler.
    """
    x: Any = x_K
    before: Any = None
    if guess is not None:
        before = guess.clip(-clip, clip)
        x = before * steps[0].alpha + x_K * steps[0].sigma
    for step in steps:
        if known is not None:
            given = known.clean * step.alpha + x_K * step.sigma if known.noised else known.clean
            x = _replaced(x, known, given)
        x, before = step.update(x, denoise(x, step.k), before, clip, draw)
    return x if known is None else _replaced(x, known, known.clean)


def _replaced(x: Any, known: Known[Any], value: Any) -> Any:
    """`value` where actions are known, x elsewhere."""
    return x * (known.kept * -1.0 + 1.0) + value * known.kept
