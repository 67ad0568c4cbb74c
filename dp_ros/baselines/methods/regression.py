"""Explicit policy with a squared error: its one chunk for an observation is the mean of the demonstrated ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dp_ros.baselines.methods.head import ActionHead
from dp_ros.baselines.methods.mlp import matched_mlp


class RegressionHead(ActionHead):
    """Behavioural cloning by least squares (Pomerleau 1989); deterministic."""

    def __init__(self, T_p: int, action_dim: int, obs_dim: int, blocks: int, parameters: int) -> None:
        super().__init__(T_p, action_dim)
        self.network = matched_mlp((obs_dim,), self.chunk_dim, blocks, parameters)

    def forward(self, obs: Tensor) -> Tensor:
        """obs (B, obs_dim) -> (B, T_p, D)."""
        return self.network(obs).float().unflatten(-1, (self.T_p, self.action_dim))

    def loss(
        self, nactions: Tensor, obs: Tensor, generator: torch.Generator, noise_samples: int = 1
    ) -> Tensor:
        return F.mse_loss(self(obs), nactions)

    def sample(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        return self(obs)
