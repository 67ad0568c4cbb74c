"""Which weights decay, and by how much."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from torch import nn

from dp_ros.schema import TrainConfig


class Trainable(Protocol):
    """A policy: an encoder, and whatever makes actions of its features."""

    encoder: nn.Module

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def no_decay_parameters(self) -> list[nn.Parameter]:
        """The weights behind the encoder that do not decay."""


def parameter_groups(policy: Trainable, config: TrainConfig) -> list[dict[str, Any]]:
    """AdamW's groups, each parameter of `policy` in exactly one: the encoder, what decays behind it, the rest."""
    encoder_decay = config.encoder_weight_decay
    if encoder_decay is None:
        encoder_decay = config.weight_decay
    encoder, spared = list(policy.encoder.parameters()), policy.no_decay_parameters()
    elsewhere = {id(parameter) for parameter in (*encoder, *spared)}
    groups = [
        {"params": encoder, "weight_decay": encoder_decay},
        {
            "params": [parameter for parameter in policy.parameters() if id(parameter) not in elsewhere],
            "weight_decay": config.weight_decay,
        },
        {"params": spared, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
