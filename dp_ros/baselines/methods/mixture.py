"""Explicit policy with a mixture of Gaussians over the whole chunk: a sample commits to one component.

Bishop 1994; LSTM-GMM (Mandlekar et al. 2021) puts the same head on a recurrent network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from dp_ros.baselines.config import MixtureConfig
from dp_ros.baselines.methods.head import ActionHead
from dp_ros.baselines.methods.mlp import matched_mlp


class MixtureHead(ActionHead):
    """Mixture density head, trained by maximum likelihood."""

    def __init__(
        self, T_p: int, action_dim: int, obs_dim: int, config: MixtureConfig, blocks: int, parameters: int
    ) -> None:
        super().__init__(T_p, action_dim)
        self.config = config
        out_dim = config.components * (1 + 2 * self.chunk_dim)
        self.network = matched_mlp((obs_dim,), out_dim, blocks, parameters)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """obs (B, obs_dim) -> logits (B, M), mean and std (B, M, T_p, D)."""
        M, chunk = self.config.components, (self.T_p, self.action_dim)
        logits, mean, raw = self.network(obs).float().split([M, M * self.chunk_dim, M * self.chunk_dim], -1)
        std = self.config.min_std + F.softplus(raw)
        return logits, mean.unflatten(-1, (M, *chunk)), std.unflatten(-1, (M, *chunk))

    def loss(
        self, nactions: Tensor, obs: Tensor, generator: torch.Generator, noise_samples: int = 1
    ) -> Tensor:
        """Negative log-likelihood, in nats per number of the chunk."""
        logits, mean, std = self(obs)
        # Not validated here: a loss that is not finite must reach the trainer, whose message says what to do.
        mixture = MixtureSameFamily(
            Categorical(logits=logits, validate_args=False),
            Independent(Normal(mean, std, validate_args=False), 2, validate_args=False),
            validate_args=False,
        )
        return -mixture.log_prob(nactions).mean() / self.chunk_dim

    def sample(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a component by its weight; its mean plus `sample_noise` times its noise."""
        logits, mean, std = self(obs)
        drawn = torch.multinomial(logits.softmax(-1).cpu(), 1, generator=generator)[:, 0].to(obs.device)
        each = torch.arange(len(obs), device=obs.device)
        noise = torch.randn(mean.shape[:1] + mean.shape[2:], generator=generator).to(obs.device)
        return mean[each, drawn] + self.config.sample_noise * std[each, drawn] * noise
