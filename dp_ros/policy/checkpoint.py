"""Checkpoint: a folder of weights (safetensors), config, statistics and card. It contains no code.

Loading checks format, version, hashes, statistics and shapes. A CheckpointError says in one line what is wrong and
what to do.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dp_ros.files import replacing_folder
from dp_ros.policy.checkpoint_config import (
    CONFIG,
    INSTRUCTIONS,
    OOD,
    SEAL,
    STATS,
    WEIGHTS,
    CheckpointError,
    meaning_sha256,
    policy_config,
    read_config,
    read_stats,
    sealed,
    sha256,
    verify_files,
)
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.instructions import Instructions
from dp_ros.policy.normalizer import StatsError
from dp_ros.policy.ood import OodStats
from dp_ros.schema import SCHEMA_VERSION, PolicyConfig

CARD = "card.md"
_ATTEMPTS = 3  # a training saves minutes apart
DTYPES = {"f32": torch.float32, "f16": torch.float16}

__all__ = [
    "CheckpointError",
    "add_ood_stats",
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
    ood: OodStats | None = None,
) -> Path:
    """Write `policy` to `folder` in one rename: a reader finds the whole old checkpoint or the whole new one.

    config.json keeps `scene` (size and markers of the pictures) and `training` (data and settings of the training),
    for serving and evaluation. dtype: of the stored weights, a key of DTYPES. instructions: the sentences that a policy
    with `config.instruction` knows. ood: statistics of the training pictures. CheckpointError where
    `folder` holds something else.
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
        if ood is not None:
            ood.save(staging / OOD)
        (staging / STATS).write_text(json.dumps(policy.stats(), indent=2) + "\n")
        hashed = [name for name in (WEIGHTS, STATS, INSTRUCTIONS, OOD) if (staging / name).exists()]
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
        config = sealed(json.loads(json.dumps(config)))
        (staging / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        (staging / CARD).write_text(card)
        (staging / WEIGHTS).chmod(0o644)  # safetensors gives access to the owner only
    return folder


def add_ood_stats(folder: str | Path, stats: OodStats) -> None:
    """Add statistics of the training pictures to a checkpoint, or replace them, in one rename.

    All other files and their hashes stay as they are. CheckpointError where the checkpoint is damaged.
    """
    folder = Path(folder)
    config = read_config(folder)
    with replacing_folder(folder) as staging:
        shutil.copytree(folder, staging, dirs_exist_ok=True)
        stats.save(staging / OOD)
        config["sha256"][OOD] = sha256(staging / OOD)
        config = sealed(config) if SEAL in config else config
        (staging / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        verify_files(staging)  # a training may have replaced the folder meanwhile


def load_checkpoint(folder: str | Path, device: str | torch.device = "cpu") -> DiffusionPolicy:
    """Load the policy in `folder`: in eval mode, weights in float32 on `device`. CheckpointError if unusable.

    Where a training replaces the checkpoint meanwhile, it is read again: never the weights of one with the meaning of
    another.
    """
    folder = Path(folder)
    for _ in range(_ATTEMPTS):
        before = _identity(folder)
        try:
            policy = _load(folder)
        except (CheckpointError, OSError):
            if _identity(folder) == before:
                raise
            continue
        if _identity(folder) == before:
            return policy.to(device).eval()
    raise CheckpointError(f"{folder}: is replaced while it is read: run the command again, on a copy of it")


def _identity(folder: Path) -> list[tuple[str, int, int, int]]:
    """Name, inode, size and time of each file: another list means that the folder was replaced."""
    facts = [(path.name, path.stat()) for path in sorted(folder.glob("*")) if path.is_file()]
    return [(name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in facts]


def _load(folder: Path) -> DiffusionPolicy:
    verify_files(folder)
    config, stats = policy_config(folder), read_stats(folder)
    _check_shapes(folder, config, stats)
    policy = DiffusionPolicy(config, stats)
    policy.load_state_dict(_finite_weights(folder / WEIGHTS))
    return policy


class _NothingDrawn(TorchFunctionMode):
    """No initial weights are drawn. For tensors without memory, torch would import its compiler for that: seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, nn.init.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _check_shapes(folder: Path, config: PolicyConfig, stats: dict[str, Any]) -> None:
    """CheckpointError unless the tensors in the file are those of the config. It takes no memory for either."""
    try:
        with torch.device("meta"), _NothingDrawn():
            meant = DiffusionPolicy(config, stats).state_dict()
    except StatsError as error:
        raise CheckpointError(f"{folder / STATS}: {error}") from None
    expected = {name: tuple(tensor.shape) for name, tensor in meant.items()}
    try:
        with safe_open(str(folder / WEIGHTS), framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        why = " ".join(str(error).split())
        raise CheckpointError(
            f"{folder / WEIGHTS}: is not a file of weights ({why}): copy the checkpoint again"
        ) from None
    for name in sorted(set(expected) | set(found)):
        if expected.get(name) != found.get(name):
            raise CheckpointError(
                f"{folder / WEIGHTS}: '{name}' has shape {found.get(name)}, config.json implies "
                f"{expected.get(name)}: the two are of different models"
            )


def _finite_weights(path: Path) -> dict[str, Tensor]:
    weights = {name: tensor.float() for name, tensor in load_file(path).items()}
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{path}: '{name}' has values that are not finite: the training diverged, train again"
            )
    return weights
