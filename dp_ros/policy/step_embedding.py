"""Sinusoidal embedding of the diffusion iteration, shared by all networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoids(k: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of the iteration (Vaswani et al. 2017, section 3.5). k (B,) -> (B, dim) float32, `dim`
    even: the sines of all frequencies, then their cosines."""
    half = dim // 2
    frequencies = torch.exp(torch.arange(half, device=k.device) * (-math.log(10_000.0) / (half - 1)))
    angles = k[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
