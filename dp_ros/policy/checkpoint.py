"""Checkpoint: a folder of weights (safetensors), config, statistics and card. It contains no code.

Loading checks format, version, hashes, statistics and shapes. A CheckpointError says in one line what is wrong and
what to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from dp_ros.files import replacing_folder
from dp_ros.policy.checkpoint_config import (
    CONFIG,
    INSTRUCTIONS,
    STATS,
    WEIGHTS,
    CheckpointError,
    meaning_sha256,
    policy_config,
    read_config,
    sha256,
    verify_files,
)
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.instructions import Instructions
from dp_ros.policy.normalizer import StatsError
from dp_ros.schema import SCHEMA_VERSION

CARD = "card.md"
DTYPES = {"f32": torch.float32, "f16": torch.float16}

__all__ = [
    "CheckpointError",
    "load_checkpoint",
    "policy_config",
    "read_config",
    "save_checkpoint",
]


def save_checkpoint(
    policy: DiffusionPolicy,
    folder: str | Path,
    *,
    card: str = "",
    scene: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    dtype: str = "f32",
    instructions: Instructions | None = None,
) -> Path:
    """Write `policy` to `folder` in one rename: a reader finds the whole old checkpoint or the whole new one.

    config.json keeps `scene` (size and markers of the pictures) and `training` (data and settings of the training),
    for serving and evaluation. dtype: of the stored weights, a key of DTYPES. instructions: the sentences that a policy
    with `config.instruction` knows. CheckpointError where `folder` holds
    something else.
    """
    folder = Path(folder)
    if (instructions is None) != (policy.config.instruction is None):
        raise CheckpointError(
            f"{folder}: a policy that is told what to do needs its sentences, and no other policy"
        )
    if folder.exists() and any(folder.iterdir()) and not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: holds files that are not a checkpoint: choose another folder")
    with replacing_folder(folder) as staging:
        weights = {
            name: tensor.detach().cpu().to(DTYPES[dtype]).contiguous()
            for name, tensor in policy.state_dict().items()
        }
        save_file(weights, staging / WEIGHTS)
        if instructions is not None:
            instructions.save(staging / INSTRUCTIONS)
        hashed = (WEIGHTS, STATS, *(() if instructions is None else (INSTRUCTIONS,)))
        (staging / STATS).write_text(json.dumps(policy.stats(), indent=2) + "\n")
        config: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "network": policy.config.network,
            "weights_dtype": dtype,
            "sha256": {name: sha256(staging / name) for name in hashed},
            "policy": policy.config.model_dump(mode="json"),
            "scene": dict(scene or {}),
            "training": dict(training or {}),
        }
        config["sha256"][CONFIG] = meaning_sha256(json.loads(json.dumps(config)))
        (staging / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        (staging / CARD).write_text(card)
        (staging / WEIGHTS).chmod(0o644)  # safetensors gives access to the owner only
    return folder


def load_checkpoint(folder: str | Path, device: str | torch.device = "cpu") -> DiffusionPolicy:
    """Load the policy in `folder`: in eval mode, weights in float32 on `device`. CheckpointError if unusable."""
    folder = Path(folder)
    verify_files(folder)
    try:
        policy = DiffusionPolicy(policy_config(folder), json.loads((folder / STATS).read_text()))
    except StatsError as error:
        raise CheckpointError(f"{folder / STATS}: {error}") from None
    weights = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
    expected = {name: tuple(tensor.shape) for name, tensor in policy.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(set(expected) | set(found)):
        if expected.get(name) != found.get(name):
            raise CheckpointError(
                f"{folder / WEIGHTS}: '{name}' has shape {found.get(name)}, config.json implies "
                f"{expected.get(name)}: the two are of different models"
            )
        if not torch.isfinite(weights[name]).all():
            raise CheckpointError(
                f"{folder / WEIGHTS}: '{name}' has values that are not finite: the training diverged, train again"
            )
    policy.load_state_dict(weights)
    return policy.to(device).eval()
