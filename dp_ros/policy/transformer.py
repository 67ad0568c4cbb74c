"""Denoising network: a time-series diffusion transformer over the action chunk.

Chi et al. 2023, section 3.2 (after Shafiullah et al. 2022). The memory has one token for the diffusion iteration and
one for each observed frame. Each noisy action is a token that attends to the actions before it and to the memory.
Layers normalise their inputs (Xiong et al. 2020): without that, training can collapse.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dp_ros.policy.step_embedding import sinusoids
from dp_ros.schema import Horizons, TransformerConfig


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2), with dropout of the attention weights."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        width = config.embedding_dim
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, key_value: Tensor, sees: Tensor) -> Tensor:
        """Queries from x (B, T, E); keys and values (B, S, 2 * E) of the layer `key_value`; allowed where the mask
        `sees` (T, S) is True -> (B, T, E)."""
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = key_value.unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        answer = F.scaled_dot_product_attention(query, key, value, attn_mask=sees, dropout_p=dropout)
        return self.project(answer.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Self-attention, attention to the memory, and a feed-forward network, each with a residual connection."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.embedding_dim
        self.norm_actions, self.to_actions = nn.LayerNorm(width), Attention(config)
        self.norm_memory, self.to_memory = nn.LayerNorm(width), Attention(config)
        self.norm_feed = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(4 * width, width)
        )
        self.drop = nn.Dropout(config.dropout)

    def keys_and_values(self, memory: Tensor) -> Tensor:
        """memory (B, S, E) -> (B, S, 2 * E), as `forward` takes them."""
        return self.to_memory.key_value(memory)

    def forward(self, x: Tensor, memory: Tensor, sees_actions: Tensor, sees_memory: Tensor) -> Tensor:
        """x (B, T_p, E), memory (B, 1 + T_o, 2 * E): its keys and values in this layer -> (B, T_p, E)."""
        nx = self.norm_actions(x)
        x = x + self.drop(self.to_actions(nx, self.to_actions.key_value(nx), sees_actions))
        x = x + self.drop(self.to_memory(self.norm_memory(x), memory, sees_memory))
        return x + self.drop(self.feed(self.norm_feed(x)))


class ConditionalTransformer(nn.Module):
    """Predicted noise in an action chunk, given the observation and the iteration; the U-Net's signature."""

    def __init__(self, action_dim: int, obs_dim: int, horizons: Horizons, config: TransformerConfig) -> None:
        super().__init__()
        T_o, T_p, width = horizons.T_o, horizons.T_p, config.embedding_dim
        self.T_o = T_o
        self.embed_frame = nn.Linear(obs_dim // T_o, width)
        self.embed_action = nn.Linear(action_dim, width)
        self.memory_position = nn.Parameter(torch.empty(1 + T_o, width))
        self.action_position = nn.Parameter(torch.empty(T_p, width))
        self.drop = nn.Dropout(config.embedding_dropout)
        self.remember = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.layers = nn.ModuleList([DecoderLayer(config) for _ in range(config.layers)])
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, action_dim))
        # Action t has the time of frame t. It attends to the iteration, and to actions and frames up to its own time.
        # Every executed action (t >= T_o - 1) attends to all frames.
        # On the CPU also where the weights have no memory: torch would import its compiler to work these out.
        sees_actions, sees_frames = (
            torch.ones(T_p, times, dtype=torch.bool, device="cpu").tril() for times in (T_p, T_o)
        )
        sees_memory = F.pad(sees_frames, (1, 0), value=True)
        self.register_buffer("sees_actions", sees_actions, persistent=False)
        self.register_buffer("sees_memory", sees_memory, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Initial weights of Chi et al.'s code, after GPT-2: small weights, zero biases, LayerNorm ones and zeros."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for position in (self.memory_position, self.action_position):
            nn.init.normal_(position, std=0.02)

    def forward(self, actions: Tensor, k: Tensor, obs: Tensor) -> Tensor:
        """actions (B, T_p, D) noisy and normalised; k (B,); obs (B, obs_dim), the features of one frame after another
        -> predicted noise (B, T_p, D).

        The three methods below, one after the other. An engine calls the first two outside its loop.
        """
        return self.denoise(actions, self.embed(k, obs.dtype), self.condition(obs))

    def embed(self, k: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """k (B,) -> (B, layers, 1, 2 * E): keys and values of the iteration's token; a constant for each k."""
        token = sinusoids(k, self.memory_position.shape[1])[:, None].to(dtype)
        return self._keys_and_values(token, self.memory_position[:1])

    def condition(self, obs: Tensor) -> Tensor:
        """obs (B, obs_dim) -> (B, layers, T_o, 2 * E): keys and values of the frames' tokens; once per plan."""
        return self._keys_and_values(
            self.embed_frame(obs.unflatten(1, (self.T_o, -1))), self.memory_position[1:]
        )

    def _keys_and_values(self, tokens: Tensor, position: Tensor) -> Tensor:
        """tokens (B, S, E) of the memory -> (B, layers, S, 2 * E)."""
        memory = self.remember(self.drop(tokens + position))
        return torch.stack([layer.keys_and_values(memory) for layer in self._decoder()], dim=1)

    def _decoder(self) -> list[DecoderLayer]:
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]

    def denoise(self, actions: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """actions (B, T_p, D), step of `embed`, condition of `condition` -> predicted noise (B, T_p, D)."""
        memory = torch.cat([step.expand(len(condition), -1, -1, -1), condition], dim=2)
        x = self.drop(self.embed_action(actions) + self.action_position)
        for i, layer in enumerate(self._decoder()):
            x = layer(x, memory[:, i], self.sees_actions, self.sees_memory)
        return self.out(x)

    def no_decay_parameters(self) -> list[nn.Parameter]:
        """Parameters without weight decay: biases, norms and positions, all but the matrices of linear layers."""
        decayed = {id(module.weight) for module in self.modules() if isinstance(module, nn.Linear)}
        return [parameter for parameter in self.parameters() if id(parameter) not in decayed]
