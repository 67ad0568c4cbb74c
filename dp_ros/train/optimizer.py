"""Optimiser of every training here: AdamW and its parameter groups, learning rate, gradient limit, EMA.

The settings are `dp_ros.schema.OptimizerConfig`'s.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from dp_ros.schema import OptimizerConfig


class Trainable(Protocol):
    """A torch module: an encoder, and a network that makes actions of its features."""

    encoder: nn.Module

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def no_decay_parameters(self) -> list[nn.Parameter]:
        """The network's weights that do not decay."""

    def eval(self) -> Any: ...

    def requires_grad_(self, requires_grad: bool = True) -> Any: ...


Policy = TypeVar("Policy", bound=Trainable)


class Optimizer(Generic[Policy]):
    """Updates a policy and its EMA. Learning rate and EMA decay follow from the number of updates so far."""

    def __init__(
        self,
        policy: Policy,
        config: OptimizerConfig,
        steps: int,
        encoder_weight_decay: float | None = None,
    ) -> None:
        """`steps`: length of the whole training. `encoder_weight_decay`: None for `config.weight_decay`."""
        self._config, self._steps = config, steps
        self.policy, self.ema = policy, copy.deepcopy(policy)
        self.ema.eval()
        self.ema.requires_grad_(False)
        self.adamw = torch.optim.AdamW(
            parameter_groups(policy, config.weight_decay, encoder_weight_decay),
            lr=config.lr,
            betas=config.betas,
            fused=True,
        )
        self.step = 0
        self.updating = False  # while True, weights, EMA and step are not of one update and must not be saved

    @property
    def lr(self) -> float:
        """Learning rate of the next update."""
        return self._config.lr * cosine_with_warmup(self.step, self._steps, self._config.warmup_steps)

    def clip_gradient(self) -> float:
        """Scale the gradient down to norm `gradient_clip`; returns the norm it had."""
        limit = self._config.gradient_clip
        return float(nn.utils.clip_grad_norm_(self.policy.parameters(), limit, foreach=True).item())

    def update(self) -> None:
        """One step of AdamW with the present gradient, which is then cleared, and one of the EMA."""
        self.updating = True
        for group in self.adamw.param_groups:
            group["lr"] = self.lr
        self.adamw.step()
        self.adamw.zero_grad()
        decay = ema_decay(self.step, self._config.ema_power, self._config.ema_max)
        update_ema(self.ema.parameters(), self.policy.parameters(), decay)
        self.step += 1
        self.updating = False


def parameter_groups(
    policy: Trainable, weight_decay: float, encoder_weight_decay: float | None = None
) -> list[dict[str, Any]]:
    """AdamW's groups, each parameter in exactly one: encoder, network that decays, network that does not."""
    if encoder_weight_decay is None:
        encoder_weight_decay = weight_decay
    encoder, spared = list(policy.encoder.parameters()), policy.no_decay_parameters()
    elsewhere = {id(parameter) for parameter in (*encoder, *spared)}
    decaying = [parameter for parameter in policy.parameters() if id(parameter) not in elsewhere]
    groups = [
        {"params": encoder, "weight_decay": encoder_weight_decay},
        {"params": decaying, "weight_decay": weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def cosine_with_warmup(step: int, steps: int, warmup_steps: int) -> float:
    """Factor of the learning rate: linear from 0 over the warm-up, then half a cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def ema_decay(step: int, power: float, largest: float) -> float:
    """EMA decay after `step` updates: 1 - (1 + step)^-power, so that early weights are soon forgotten."""
    return float(min(largest, 1.0 - (1.0 + step) ** -power))


@torch.no_grad()
def update_ema(ema: Iterable[Tensor], current: Iterable[Tensor], decay: float) -> None:
    """ema <- decay * ema + (1 - decay) * current, in place."""
    torch._foreach_lerp_(list(ema), list(current), 1.0 - decay)
