"""Weights of a checkpoint as the first ones of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dp_ros.actions import OPEN_TO_CLOSED, Array, least_ranges
from dp_ros.policy.checkpoint import load_checkpoint
from dp_ros.policy.checkpoint_config import policy_config
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import ConfigError, PolicyConfig
from dp_ros.train.trainer import Build

TOLERANCE = 0.02  # of a dimension's range: labels further outside it would be lost
_DIFFUSION = ("iterations", "schedule", "prediction")  # the others concern only the sampler


def build_from(checkpoint: str | Path, *, train_encoder: bool = True) -> Build:
    """Build of a policy with the weights and the normalisers of the checkpoint in a folder.

    The statistics of the new dataset do not count, because the weights are of the old ones. train_encoder=False:
    only the network's weights change.
    """

    def build(config: PolicyConfig, stats: Mapping[str, Any]) -> DiffusionPolicy:
        initial = load_checkpoint(checkpoint)
        policy = DiffusionPolicy(config, initial.stats())
        policy.load_state_dict(initial.state_dict())
        policy.encoder.requires_grad_(train_encoder)
        return policy

    return build


def continued_from(checkpoint: str | Path, config: PolicyConfig, *, train_encoder: bool = True) -> Build:
    """`build_from` for a training on other data, as its user chose it.

    CheckpointError where the folder is unusable; ConfigError where `config` gives the weights another meaning and, when
    the policy is built, where the labels of the dataset lie outside the range that the weights can command.
    """
    initial = policy_config(checkpoint)
    if initial.diffusion.distilled_for:
        raise ConfigError(f"{checkpoint}: is a student, which knows a few iterations only: give its teacher")
    faults = list(_differences(config, initial))
    if faults:
        raise ConfigError(f"{checkpoint}: cannot be trained on with these settings: {'; '.join(faults)}")
    build = build_from(checkpoint, train_encoder=train_encoder)

    def checked(config: PolicyConfig, stats: Mapping[str, Any]) -> DiffusionPolicy:
        policy: DiffusionPolicy = build(config, stats)
        least = least_ranges(config.action.position, OPEN_TO_CLOSED)
        _check_range(checkpoint, policy.stats()["action"], stats["action"], least)
        return policy

    return checked


def _check_range(
    checkpoint: str | Path, ours: Mapping[str, list[float]], found: Mapping[str, list[float]], least: Array
) -> None:
    low, high = np.array(ours["low"]), np.array(ours["high"])
    new_low, new_high = np.array(found["low"]), np.array(found["high"])
    # A dimension that hardly varied was widened to `least`, such as a gripper that stayed open: its middle counts.
    still = new_high - new_low <= least * (1 + 1e-6)
    new_low = np.where(still, (new_low + new_high) / 2, new_low)
    new_high = np.where(still, new_low, new_high)
    margin = TOLERANCE * (high - low)
    beyond = (new_low < low - margin) | (new_high > high + margin)
    if beyond.any():
        i = int(np.flatnonzero(beyond)[0])
        raise ConfigError(
            f"{checkpoint}: number {i} of the actions is between {low[i]:.4g} and {high[i]:.4g} in its data, and "
            f"between {new_low[i]:.4g} and {new_high[i]:.4g} in yours: train from scratch, without --init"
        )


def _differences(new: PolicyConfig, old: PolicyConfig) -> Iterator[str]:
    """A line for each setting that gives the weights another meaning."""
    ours, theirs = new.model_dump(mode="json"), old.model_dump(mode="json")
    for config in (ours, theirs):
        config.pop("task")
        config["horizons"] = {key: config["horizons"][key] for key in ("T_o", "T_p")}
        config["diffusion"] = {key: config["diffusion"].get(key) for key in _DIFFUSION}
    for name in dict.fromkeys((*theirs, *ours)):
        one, other = ours.get(name), theirs.get(name)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            key = next(key for key in dict.fromkeys((*other, *one)) if one.get(key) != other.get(key))
            name, one, other = f"{name}.{key}", one.get(key), other.get(key)
        shown = ["the default" if value is None else str(value) for value in (one, other)]
        yield f"policy.{name} is {shown[0]}, its weights were trained with {shown[1]}"
