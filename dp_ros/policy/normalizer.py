"""Linear maps to [-1, 1], fitted on the training data and stored with the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class StatsError(ValueError):
    """Statistics that are missing or cannot be used; one line."""


class LimitsNormalizer(nn.Module):
    """Maps [low, high] of each dimension to [-1, 1]; a constant dimension maps to 0 and back to its constant."""

    def __init__(self, low: Sequence[float], high: Sequence[float]) -> None:
        super().__init__()
        low_t = torch.tensor(low, dtype=torch.float32)
        high_t = torch.tensor(high, dtype=torch.float32)
        if low_t.shape != high_t.shape or low_t.ndim != 1:
            raise StatsError(f"statistics: low has {low_t.numel()} values and high {high_t.numel()}")
        if not bool(((high_t >= low_t) & torch.isfinite(low_t) & torch.isfinite(high_t)).all()):
            raise StatsError("statistics: a value is not finite or high is below low: fit them anew")
        half_range = (high_t - low_t) / 2
        self.register_buffer("centre", (high_t + low_t) / 2, persistent=False)
        self.register_buffer(
            "half_range", torch.where(half_range > 1e-6, half_range, torch.ones(())), persistent=False
        )
        self.low, self.high = [float(v) for v in low], [float(v) for v in high]

    def normalise(self, x: Tensor) -> Tensor:
        """x (..., D) in its own units -> (..., D) in [-1, 1]."""
        return (x - self.centre) / self.half_range

    def unnormalise(self, nx: Tensor) -> Tensor:
        """nx (..., D) in [-1, 1] -> (..., D) in its own units."""
        return nx * self.half_range + self.centre

    def stats(self) -> dict[str, list[float]]:
        return {"low": self.low, "high": self.high}

    @classmethod
    def from_stats(cls, stats: Mapping[str, Any], name: str, dim: int) -> LimitsNormalizer:
        """Fails with one line when `name` is missing or does not have `dim` dimensions."""
        part = stats.get(name)
        if not isinstance(part, Mapping) or not {"low", "high"} <= set(part):
            raise StatsError(f"statistics: '{name}' with low and high is missing")
        if len(part["low"]) != dim:
            raise StatsError(f"statistics: '{name}' has {len(part['low'])} dimensions, {dim} are needed")
        return cls(part["low"], part["high"])
