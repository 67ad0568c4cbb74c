"""Linear maps to [-1, 1], fitted on the training data and stored with the weights.

Training widens the range of a dimension that hardly varied (`dp_ros.actions.widen`). Inputs are clipped to
[-INPUT_BOUND, INPUT_BOUND], so that a value far from the trained ones cannot drown the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dp_ros.errors import UserError

MIN_HALF_RANGE = (
    1e-6  # a dimension that varies less is constant: dividing by its range would amplify rounding
)

_LARGEST = 1e38  # float32 ends at 3.4e38
INPUT_BOUND = 2.0  # normalised; twice the trained range, which inputs like the trained ones never reach


class StatsError(UserError):
    """Statistics are missing or cannot be used; the message is one line."""


class LimitsNormalizer(nn.Module):
    """Map of [low, high] of each dimension to [-1, 1]; a constant dimension maps to 0 and back to its constant."""

    centre: Tensor
    half_range: Tensor

    def __init__(self, low: Sequence[float], high: Sequence[float]) -> None:
        super().__init__()
        low_t = torch.tensor(low, dtype=torch.float32, device="cpu")
        high_t = torch.tensor(high, dtype=torch.float32, device="cpu")
        if low_t.shape != high_t.shape or low_t.ndim != 1:
            raise StatsError(f"statistics: low has {low_t.numel()} values and high {high_t.numel()}")
        if not bool(((high_t >= low_t) & torch.isfinite(low_t) & torch.isfinite(high_t)).all()):
            raise StatsError("statistics: a value is not finite or high is below low: compute them again")
        half_range = (high_t - low_t) / 2
        self.register_buffer("centre", (high_t + low_t) / 2, persistent=False)
        self.register_buffer(
            "half_range",
            torch.where(half_range > MIN_HALF_RANGE, half_range, torch.ones_like(half_range)),
            persistent=False,
        )
        self.low, self.high = [float(v) for v in low], [float(v) for v in high]

    def normalise(self, x: Tensor) -> Tensor:
        """x (..., D) in its own units -> (..., D) in [-1, 1]."""
        return (x - self.centre) / self.half_range

    def normalise_input(self, x: Tensor) -> Tensor:
        """x (..., D) in its own units, of the network's input -> (..., D) in [-INPUT_BOUND, INPUT_BOUND]."""
        return self.normalise(x).clamp(-INPUT_BOUND, INPUT_BOUND)

    def unnormalise(self, nx: Tensor) -> Tensor:
        """nx (..., D) in [-1, 1] -> (..., D) in its own units."""
        return nx * self.half_range + self.centre

    def stats(self) -> dict[str, list[float]]:
        """Statistics that make this normaliser again."""
        return {"low": self.low, "high": self.high}

    @classmethod
    def from_stats(cls, stats: Mapping[str, Any], name: str, dim: int) -> LimitsNormalizer:
        """Normaliser from the entry `name` of the statistics; StatsError if it is missing or has not `dim` numbers."""
        limits = stats.get(name)
        if not isinstance(limits, Mapping) or not {"low", "high"} <= set(limits):
            raise StatsError(f"statistics: '{name}' with low and high is missing")
        for side in (limits["low"], limits["high"]):
            if not isinstance(side, list | tuple) or not all(map(_is_number, side)):
                raise StatsError(
                    f"statistics: '{name}' has a value that is not finite, or no number: compute them again"
                )
        if len(limits["low"]) != dim:
            raise StatsError(f"statistics: '{name}' has {len(limits['low'])} dimensions, {dim} are needed")
        return cls(limits["low"], limits["high"])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
