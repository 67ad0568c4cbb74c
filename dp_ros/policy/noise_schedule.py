"""Forward process q: the share of noise in an action after k iterations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dp_ros.schema import DiffusionConfig


def squared_cosine_betas(iterations: int, max_beta: float = 0.999) -> Tensor:
    """beta_k of the squared cosine schedule (Nichol & Dhariwal 2021, eq. 17) -> (K,) float32."""

    def abar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - abar((k + 1) / iterations) / abar(k / iterations), max_beta) for k in range(iterations)]
    return torch.tensor(betas, dtype=torch.float32)


class NoiseSchedule:
    """beta, alpha and abar (the running product of alpha) of every iteration, (K,) float32 on the CPU; constants."""

    def __init__(self, config: DiffusionConfig) -> None:
        self.iterations = config.iterations
        self.beta = squared_cosine_betas(config.iterations)
        self.alpha = 1.0 - self.beta
        self.abar = torch.cumprod(self.alpha, dim=0)

    def add_noise(self, x_0: Tensor, noise: Tensor, k: Tensor) -> Tensor:
        """x_k ~ q(x_k | x_0) (Ho et al. 2020, eq. 4). x_0, noise (B, T_p, D); k (B,) -> (B, T_p, D)."""
        abar = self.abar.to(x_0.device)[k][:, None, None]
        return abar.sqrt() * x_0 + (1.0 - abar).sqrt() * noise
