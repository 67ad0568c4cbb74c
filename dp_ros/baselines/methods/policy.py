"""Policy made of any method's head and DiffusionPolicy's encoder and normalisers, with the same signature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dp_ros.actions import STATE_DIM
from dp_ros.baselines.config import HeadsConfig, Method
from dp_ros.baselines.methods.diffusion import DiffusionHead
from dp_ros.baselines.methods.head import ActionHead
from dp_ros.baselines.methods.implicit import ImplicitHead
from dp_ros.baselines.methods.mixture import MixtureHead
from dp_ros.baselines.methods.mlp import count_parameters
from dp_ros.baselines.methods.regression import RegressionHead
from dp_ros.policy.encoder import ObservationEncoder, Pictures
from dp_ros.policy.normalizer import LimitsNormalizer
from dp_ros.policy.unet import ConditionalUnet1D
from dp_ros.schema import DiffusionConfig, PolicyConfig, UNetConfig


class ChunkPolicy(nn.Module):
    """Policy of any method: a window of frames in, an action chunk out."""

    def __init__(
        self, encoder: nn.Module, head: ActionHead, state_dim: int, stats: Mapping[str, Any]
    ) -> None:
        """encoder: (images, normalised state) -> observation vector (B, obs_dim), the input of `head`."""
        super().__init__()
        self.encoder, self.head = encoder, head
        self.action_normalizer = LimitsNormalizer.from_stats(stats, "action", head.action_dim)
        self.state_normalizer = LimitsNormalizer.from_stats(stats, "state", state_dim)

    def encode(self, images: Pictures | None, state: Tensor) -> Tensor:
        """images as in DiffusionPolicy.encode; state (B, T_o, D_s) -> (B, obs_dim)."""
        return self.encoder(images, self.state_normalizer.normalise_input(state))

    def no_decay_parameters(self) -> list[nn.Parameter]:
        """Parameters without weight decay: none."""
        return []

    def loss(
        self,
        images: Pictures | None,
        state: Tensor,
        actions: Tensor,
        generator: torch.Generator,
        noise_samples: int = 1,
    ) -> Tensor:
        """images and state as in `encode`, actions (B, T_p, D) in their own units -> the method's own loss."""
        nactions = self.action_normalizer.normalise(actions)
        return self.head.loss(nactions, self.encode(images, state), generator, noise_samples)

    @torch.inference_mode()
    def plan(self, images: Pictures | None, state: Tensor, generator: torch.Generator) -> Tensor:
        """One chunk for each window: (B, T_p, D) in its own units. `generator` is a CPU generator."""
        return self.action_normalizer.unnormalise(self.head.sample(self.encode(images, state), generator))


class StateEncoder(nn.Module):
    """Encoder for a task without cameras: the normalised state itself."""

    def forward(self, images: Pictures | None, nstate: Tensor) -> Tensor:
        """nstate (B, T_o, D_s) -> (B, T_o * D_s)."""
        return nstate.flatten(1)


def make_head(
    method: Method,
    *,
    T_p: int,
    action_dim: int,
    obs_dim: int,
    unet: UNetConfig,
    diffusion: DiffusionConfig,
    heads: HeadsConfig,
) -> ActionHead:
    """Head of the method. The baselines get as many weights as the U-Net, up to the rounding of their width."""
    if method == "diffusion":
        return DiffusionHead(T_p, action_dim, obs_dim, unet, diffusion)
    with torch.device("meta"):
        size = count_parameters(ConditionalUnet1D(action_dim, obs_dim, unet))
    if method == "regression":
        return RegressionHead(T_p, action_dim, obs_dim, heads.blocks, size)
    if method == "mixture":
        return MixtureHead(T_p, action_dim, obs_dim, heads.mixture, heads.blocks, size)
    return ImplicitHead(T_p, action_dim, obs_dim, heads.implicit, heads.blocks, size)


def camera_policy(
    config: PolicyConfig, stats: Mapping[str, Any], method: Method, heads: HeadsConfig
) -> ChunkPolicy:
    """Policy of the method for the arm's cameras: the counterpart of DiffusionPolicy(config, stats)."""
    encoder = ObservationEncoder(config.encoder, config.horizons.T_o)
    head = make_head(
        method,
        T_p=config.horizons.T_p,
        action_dim=config.action.dim,
        obs_dim=encoder.out_dim,
        unet=config.unet,
        diffusion=config.diffusion,
        heads=heads,
    )
    return ChunkPolicy(encoder, head, STATE_DIM, stats)
