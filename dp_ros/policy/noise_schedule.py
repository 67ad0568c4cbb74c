"""Forward process q: the share of noise in an action after k iterations."""

from __future__ import annotations

import torch
from torch import Tensor

from dp_ros.policy.noise_levels import squared_cosine_betas
from dp_ros.schema import DiffusionConfig


class NoiseSchedule:
    """beta, alpha and abar (the running product of alpha) of every iteration, (K,) float32 on the CPU; constants."""

    def __init__(self, config: DiffusionConfig) -> None:
        self.iterations = config.iterations
        self.beta = torch.from_numpy(squared_cosine_betas(config.iterations)).float()
        self.alpha = 1.0 - self.beta
        self.abar = torch.cumprod(self.alpha, dim=0)

    def add_noise(self, x_0: Tensor, noise: Tensor, k: Tensor) -> Tensor:
        """x_k ~ q(x_k | x_0) (Ho et al. 2020, eq. 4). x_0, noise (B, T_p, D); k (B,) -> (B, T_p, D)."""
        abar = self.abar.to(x_0.device)[k][:, None, None]
        return abar.sqrt() * x_0 + (1.0 - abar).sqrt() * noise
