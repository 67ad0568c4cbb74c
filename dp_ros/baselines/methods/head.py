"""Interface of every method: a distribution over action chunks, given an observation vector."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class ActionHead(nn.Module, ABC):
    """Distribution over chunks. Inputs and outputs are normalised; no state is kept; generators are on the CPU."""

    def __init__(self, T_p: int, action_dim: int) -> None:
        super().__init__()
        self.T_p, self.action_dim = T_p, action_dim

    @property
    def chunk_dim(self) -> int:
        """Numbers in a chunk."""
        return self.T_p * self.action_dim

    @abstractmethod
    def loss(
        self, nactions: Tensor, obs: Tensor, generator: torch.Generator, noise_samples: int = 1
    ) -> Tensor:
        """nactions (B, T_p, D) in [-1, 1]; obs (B, obs_dim) -> a scalar. noise_samples: diffusion targets for each
        window; the other methods ignore it."""

    @abstractmethod
    def sample(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        """obs (B, obs_dim) -> one chunk for each row: (B, T_p, D), in [-1, 1] or slightly outside."""
