"""Noise levels of the forward process and the iterations that a sampler visits, in NumPy: serving needs no torch."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dp_ros.schema import Spacing


def squared_cosine_betas(iterations: int, max_beta: float = 0.999) -> NDArray[np.float64]:
    """beta_k of the squared cosine schedule (Nichol & Dhariwal 2021, eq. 17) -> (K,)."""

    def abar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - abar((k + 1) / iterations) / abar(k / iterations), max_beta) for k in range(iterations)]
    return np.array(betas)


def squared_cosine_abar(iterations: int) -> NDArray[np.float64]:
    """abar_k, the share of the signal's variance that is left after iteration k -> (K,).

    Rounded as in `NoiseSchedule`, with which the weights were trained: the first steps divide by its small root.
    """
    alpha = 1.0 - squared_cosine_betas(iterations).astype(np.float32)
    return np.cumprod(alpha, dtype=np.float64).astype(np.float32).astype(np.float64)


def visited_iterations(trained: int, used: int, spacing: Spacing) -> list[int]:
    """The iterations that a sampler of `used` steps visits, the noisiest first (Lin et al. 2023, table 2).

    leading: every (trained // used)-th from 0. trailing: every (trained / used)-th down from the last, so that the
    first step sees the pure noise that it starts from. linspace: evenly from the last to 0.
    """
    if spacing == "leading":
        stride = trained // used
        return [i * stride for i in reversed(range(used))]
    if spacing == "trailing":
        return [round(trained - i * trained / used) - 1 for i in range(used)]
    return [round(float(k)) for k in np.linspace(trained - 1, 0, used)]
