"""What changes from step to step: the learning rate and the EMA decay."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor


def cosine_with_warmup(step: int, steps: int, warmup_steps: int) -> float:
    """Factor of the learning rate: linear from 0 over the warm-up, then half a cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def ema_decay(step: int, power: float, largest: float) -> float:
    """EMA decay after `step` updates: 1 - (1 + step)^-power, so that early weights are soon forgotten."""
    return min(largest, 1.0 - (1.0 + step) ** -power)


@torch.no_grad()
def update_ema(ema: Iterable[Tensor], current: Iterable[Tensor], decay: float) -> None:
    """ema <- decay * ema + (1 - decay) * current, in place."""
    torch._foreach_lerp_(list(ema), list(current), 1.0 - decay)
