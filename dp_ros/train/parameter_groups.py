"""Which weights decay, and by how much."""

from __future__ import annotations

from typing import Any

from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import TrainConfig


def parameter_groups(policy: DiffusionPolicy, config: TrainConfig) -> list[dict[str, Any]]:
    """AdamW's groups, each parameter of `policy` in exactly one: the encoder, what decays of the network, the rest."""
    encoder_decay = config.encoder_weight_decay
    if encoder_decay is None:
        encoder_decay = config.weight_decay
    spared = policy.network.undecayed()
    spared_ids = {id(parameter) for parameter in spared}
    decayed = [parameter for parameter in policy.network.parameters() if id(parameter) not in spared_ids]
    groups = [
        {"params": list(policy.encoder.parameters()), "weight_decay": encoder_decay},
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
