"""Denoising network: a 1-D convolutional U-Net over the action chunk, conditioned by FiLM.

Chi et al. 2023, section 3.1 (after Janner et al. 2022); FiLM from Perez et al. 2018.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dp_ros.policy.step_embedding import sinusoids
from dp_ros.schema import UNetConfig


class StepEmbedding(nn.Module):
    """Sinusoidal embedding of the diffusion iteration k, then an MLP."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.mlp = nn.Sequential(nn.Linear(dim, dim * 4), nn.Mish(), nn.Linear(dim * 4, dim))

    def forward(self, k: Tensor) -> Tensor:
        """k (B,) -> (B, dim)."""
        return self.mlp(sinusoids(k, self.dim))


class ConvBlock(nn.Sequential):
    """Conv1d -> GroupNorm -> Mish, length kept."""

    def __init__(self, in_channels: int, out_channels: int, config: UNetConfig) -> None:
        super().__init__(
            nn.Conv1d(in_channels, out_channels, config.kernel_size, padding=config.kernel_size // 2),
            nn.GroupNorm(config.groups, out_channels),
            nn.Mish(),
        )


class ResidualBlock(nn.Module):
    """Two ConvBlocks, with a FiLM scale and shift of the features between them."""

    def __init__(self, in_channels: int, out_channels: int, cond_dim: int, config: UNetConfig) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.first = ConvBlock(in_channels, out_channels, config)
        self.second = ConvBlock(out_channels, out_channels, config)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(cond_dim, 2 * out_channels))
        self.skip = nn.Conv1d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    @property
    def _film_layer(self) -> nn.Linear:
        layer = self.film[1]
        assert isinstance(layer, nn.Linear)
        return layer

    def film_of_step(self, step: Tensor) -> Tensor:
        """The iteration's share of scale and shift: step (B, step_dim), embedded -> (B, 2 * C_out)."""
        return F.linear(F.mish(step), self._film_layer.weight[:, : step.shape[-1]])

    def film_of_obs(self, obs: Tensor) -> Tensor:
        """The observation's share of scale and shift, with the bias: obs (B, obs_dim) -> (B, 2 * C_out)."""
        layer = self._film_layer
        return F.linear(F.mish(obs), layer.weight[:, -obs.shape[-1] :], layer.bias)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """x (B, C_in, T), film (B, 2 * C_out): scale and shift -> (B, C_out, T)."""
        scale, shift = film[..., None].chunk(2, dim=1)
        return self.second(self.first(x) * scale + shift) + self.skip(x)


class ResidualPair(nn.ModuleList):
    """Two ResidualBlocks, one after the other."""

    def __init__(self, in_channels: int, out_channels: int, cond_dim: int, config: UNetConfig) -> None:
        super().__init__(
            [
                ResidualBlock(in_channels, out_channels, cond_dim, config),
                ResidualBlock(out_channels, out_channels, cond_dim, config),
            ]
        )

    def forward(self, x: Tensor, films: Iterator[Tensor]) -> Tensor:
        """x (B, C_in, T), films: of the blocks to come, of which it takes two -> (B, C_out, T)."""
        for block in self:
            x = block(x, next(films))
        return x


class ConditionalUnet1D(nn.Module):
    """Predicted noise in an action chunk, given the observation and the iteration."""

    def __init__(self, action_dim: int, obs_dim: int, config: UNetConfig) -> None:
        super().__init__()
        self.levels = len(config.channels)
        cond_dim = config.step_embedding_dim + obs_dim
        self.embed_step = StepEmbedding(config.step_embedding_dim)

        def pair(in_channels: int, out_channels: int) -> ResidualPair:
            return ResidualPair(in_channels, out_channels, cond_dim, config)

        widths = [action_dim, *config.channels]
        self.down = nn.ModuleList([pair(a, b) for a, b in pairwise(widths)])
        self.downsample = nn.ModuleList(
            [nn.Conv1d(c, c, 3, stride=2, padding=1) for c in config.channels[:-1]]
        )
        self.middle = pair(config.channels[-1], config.channels[-1])
        upward = list(zip(config.channels[:0:-1], config.channels[-2::-1], strict=True))
        self.up = nn.ModuleList([pair(2 * a, b) for a, b in upward])
        self.upsample = nn.ModuleList([nn.ConvTranspose1d(b, b, 4, stride=2, padding=1) for _, b in upward])
        first = config.channels[0]
        self.out = nn.Sequential(ConvBlock(first, first, config), nn.Conv1d(first, action_dim, 1))

    def forward(self, actions: Tensor, k: Tensor, obs: Tensor) -> Tensor:
        """actions (B, T_p, D) noisy and normalised; k (B,); obs (B, obs_dim) -> predicted noise (B, T_p, D).

        The three methods below, one after the other. An engine calls the first two outside its loop.
        """
        return self.denoise(actions, self.embed(k, obs.dtype), self.condition(obs))

    def embed(self, k: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """k (B,) -> (B, F): what every block's FiLM takes from the iteration; a constant for each k."""
        step = self.embed_step(k).to(dtype)
        return torch.cat([block.film_of_step(step) for block in self._blocks()], dim=-1)

    def condition(self, obs: Tensor) -> Tensor:
        """obs (B, obs_dim) -> (B, F): what every block's FiLM takes from the observation; once per plan."""
        return torch.cat([block.film_of_obs(obs) for block in self._blocks()], dim=-1)

    def denoise(self, actions: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """actions (B, T_p, D), step of `embed`, condition of `condition` -> predicted noise (B, T_p, D).

        T_p may be any length: the chunk is padded to a multiple of the strides with copies of its last action, and
        the prediction is cut back to T_p.
        """
        T_p = actions.shape[1]
        multiple = 2 ** (self.levels - 1)
        x = F.pad(actions.transpose(1, 2), (0, -T_p % multiple), mode="replicate")
        films = iter((step + condition).split([2 * block.out_channels for block in self._blocks()], dim=-1))
        skips = []
        for level, blocks in enumerate(self.down):
            x = blocks(x, films)
            skips.append(x)
            if level < self.levels - 1:
                x = self.downsample[level](x)
        x = self.middle(x, films)
        for blocks, upsample in zip(self.up, self.upsample, strict=True):
            x = upsample(blocks(torch.cat([x, skips.pop()], dim=1), films))
        return self.out(x)[..., :T_p].transpose(1, 2)

    def _blocks(self) -> list[ResidualBlock]:
        """All residual blocks, in the order in which `denoise` runs them."""
        return [block for pair in (*self.down, self.middle, *self.up) for block in pair]

    def no_decay_parameters(self) -> list[nn.Parameter]:
        """Parameters without weight decay: none, as in Chi et al.'s code."""
        return []
