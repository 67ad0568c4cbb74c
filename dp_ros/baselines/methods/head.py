"""What every method is: a distribution over chunks of actions, given an observation."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class ActionHead(nn.Module, ABC):
    """Everything is normalised. No state is kept; all randomness comes from the (CPU) generator."""

    def __init__(self, T_p: int, action_dim: int) -> None:
        super().__init__()
        self.T_p, self.action_dim = T_p, action_dim

    @property
    def chunk_dim(self) -> int:
        return self.T_p * self.action_dim

    @abstractmethod
    def loss(
        self, nactions: Tensor, obs: Tensor, generator: torch.Generator, noise_samples: int = 1
    ) -> Tensor:
        """nactions (B, T_p, D) in [-1, 1]; obs (B, obs_dim) -> a scalar. `noise_samples`: diffusion targets
        for each window; the others have no use for it."""

    @abstractmethod
    def sample(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        """obs (B, obs_dim) -> one chunk for each, (B, T_p, D) in [-1, 1] or little beyond."""
