"""Diffusion as a head: the U-Net, schedule and sampler of DiffusionPolicy, without its encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dp_ros.baselines.methods.head import ActionHead
from dp_ros.policy.diffusion_policy import denoiser
from dp_ros.policy.noise_schedule import NoiseSchedule
from dp_ros.policy.sampler import sample, sampler_steps
from dp_ros.policy.unet import ConditionalUnet1D
from dp_ros.schema import DiffusionConfig, UNetConfig


class DiffusionHead(ActionHead):
    """Denoising head. Random numbers are drawn in DiffusionPolicy's order, so that both give the same bits."""

    def __init__(
        self, T_p: int, action_dim: int, obs_dim: int, unet: UNetConfig, diffusion: DiffusionConfig
    ) -> None:
        super().__init__(T_p, action_dim)
        self.config = diffusion
        self.network = ConditionalUnet1D(action_dim, obs_dim, unet)
        self.schedule = NoiseSchedule(diffusion)

    def loss(
        self, nactions: Tensor, obs: Tensor, generator: torch.Generator, noise_samples: int = 1
    ) -> Tensor:
        """Mean squared error of the predicted noise (Chi et al. 2023, eq. 5)."""
        obs = obs.repeat_interleave(noise_samples, dim=0)
        nactions = nactions.repeat_interleave(noise_samples, dim=0)
        noise = torch.randn(nactions.shape, generator=generator).to(obs.device)
        k = torch.randint(0, self.schedule.iterations, (len(nactions),), generator=generator).to(obs.device)
        noisy = self.schedule.add_noise(nactions, noise, k)
        return F.mse_loss(self.network(noisy, k, obs).float(), noise)

    def sample(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        def draw() -> Tensor:
            return torch.randn(len(obs), self.T_p, self.action_dim, generator=generator).to(obs.device)

        steps = sampler_steps(self.config)
        return sample(denoiser(self.network, obs, steps), draw(), steps, self.config.clip, draw)
