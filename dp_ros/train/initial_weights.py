"""Weights of a checkpoint as the first ones of a training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dp_ros.policy.checkpoint import load_checkpoint
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import PolicyConfig
from dp_ros.train.trainer import Build


def build_from(checkpoint: str | Path) -> Build:
    """Build of a policy with the weights and the normalisers of the checkpoint in a folder.

    The statistics of the new dataset do not count, because the weights are of the old ones.
    """

    def build(config: PolicyConfig, stats: Mapping[str, Any]) -> DiffusionPolicy:
        initial = load_checkpoint(checkpoint)
        policy = DiffusionPolicy(config, initial.stats())
        policy.load_state_dict(initial.state_dict())
        return policy

    return build
