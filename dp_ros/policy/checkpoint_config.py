"""Content of a checkpoint's config.json, read without torch, because launch files and the bridge need it too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dp_ros.documents import read_json
from dp_ros.policy.checkpoint_folder import CONFIG, CheckpointError, is_checkpoint, why_not
from dp_ros.policy.instructions import Instructions, load_instructions
from dp_ros.policy.ood import OodError, OodStats, load_ood_stats
from dp_ros.schema import SCHEMA_VERSION, BridgeConfig, ConfigError, InstructionError, PolicyConfig, parse

__all__ = [
    "CONFIG",
    "INSTRUCTIONS",
    "OOD",
    "SEAL",
    "STATS",
    "WEIGHTS",
    "CheckpointError",
    "bridge_for",
    "check_weights",
    "instructions_of",
    "meaning_sha256",
    "ood_stats_of",
    "policy_config",
    "read_config",
    "read_stats",
    "sealed",
    "sha256",
    "verify_files",
    "weights_sha256",
]

WEIGHTS, STATS, INSTRUCTIONS = "policy.safetensors", "stats.json", "instructions.safetensors"
OOD = "ood.safetensors"  # statistics of the training pictures; a checkpoint need not have them
SEAL = "config_sha256"  # of all other entries of config.json; older checkpoints have none
_ENTRIES = {"schema_version", "network", "weights_dtype", "sha256", "policy", "scene", "training", SEAL}
_HASHED = {CONFIG, WEIGHTS, STATS, INSTRUCTIONS, OOD}


def meaning_sha256(config: dict[str, Any]) -> str:
    """Hash of the parts of config.json that give the weights their meaning: `policy` and `scene`."""
    meaning = {name: config.get(name, {}) for name in ("policy", "scene")}
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()


def sealed(config: dict[str, Any]) -> dict[str, Any]:
    """config.json with a hash of all its entries, so that a changed one is found."""
    return {**config, SEAL: _seal(config)}


def _seal(config: dict[str, Any]) -> str:
    rest = {name: value for name, value in config.items() if name != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _add_meaning_hash(config: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had no hash of `policy` and `scene`: take them as they are."""
    sha256 = {**config["sha256"], CONFIG: meaning_sha256(config)}
    return {**config, "schema_version": 2, "sha256": sha256}


# Version of config.json -> function that makes the next version of it.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _add_meaning_hash}


def read_config(folder: str | Path) -> dict[str, Any]:
    """Read and check config.json, migrated to this version; reads no weights. CheckpointError if unusable."""
    folder = Path(folder)
    path = folder / CONFIG
    if not is_checkpoint(folder):
        raise CheckpointError(f"{folder}: {why_not(folder)}")
    try:
        config = read_json(path)
        version = config["schema_version"]
        is_config = isinstance(version, int) and all(
            isinstance(config.get(name, {}), dict) for name in ("policy", "sha256", "scene", "training")
        )
        is_config = is_config and {"policy", "sha256"} <= set(config)
    except (ValueError, KeyError, TypeError, AttributeError):
        is_config = False
    if not is_config:
        raise CheckpointError(f"{path}: is not a checkpoint's config.json: copy the checkpoint again")
    is_damaged = SEAL in config and config[SEAL] != _seal(config)
    while version in MIGRATIONS:
        config = MIGRATIONS[version](config)
        version = config["schema_version"]
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path}: schema version {version}, this dp_ros reads {SCHEMA_VERSION}: install a newer dp_ros"
        )
    if config["sha256"].get(CONFIG) != meaning_sha256(config):
        raise CheckpointError(
            f"{path}: policy or scene was changed after the weights were written: copy the checkpoint again"
        )
    unknown = sorted(set(config) - _ENTRIES) or sorted(set(config["sha256"]) - _HASHED)
    if unknown or is_damaged:
        what = f"has an unknown entry '{unknown[0]}'" if unknown else "was changed after it was written"
        raise CheckpointError(f"{path}: {what}: copy the checkpoint again")
    return dict(config)


def weights_sha256(folder: str | Path) -> str:
    """Hash of the weights in `folder`, as config.json states it."""
    return str(read_config(folder).get("sha256", {}).get("policy.safetensors", ""))


def check_weights(folder: str | Path, expected_sha256: str) -> None:
    """CheckpointError if the weights in `folder` are no longer those with `expected_sha256`."""
    if weights_sha256(folder) != expected_sha256:
        raise CheckpointError(
            f"{folder}: holds other weights than when this began (a training replaced them): "
            "run the command again, on a copy of the folder while the training continues"
        )


def policy_config(folder: str | Path) -> PolicyConfig:
    """Meaning of the weights in `folder`. CheckpointError if config.json does not state it."""
    try:
        return parse(PolicyConfig, read_config(folder)["policy"], where=str(Path(folder) / CONFIG))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def bridge_for(folder: str | Path, **changes: Any) -> BridgeConfig:
    """Settings of the simulated robot that the weights in `folder` were trained on: task, cameras, size, markers.

    The task of a policy that knows several is the first one.
    In real time, the arm has a latency of one control period. A command for an observation takes the time of drawing,
    transport and decision. Without the latency, some would move the arm in this tick and some in the next, as the
    processor is free.
    `changes` are other fields of BridgeConfig; an empty string changes nothing. CheckpointError if they do not fit.
    """
    policy, scene = policy_config(folder), read_config(folder).get("scene", {})
    height_px, width_px = policy.encoder.largest_size()
    instructions = instructions_of(folder)
    task = instructions.tasks[0] if instructions else policy.task
    known = {
        **({"task": task} if task else {}),
        "cameras": policy.encoder.cameras,
        "width_px": scene.get("width_px", width_px),
        "height_px": scene.get("height_px", height_px),
        "markers": scene.get("markers", False),
        "command_delay_s": 1.0 / policy.rate_hz if changes.get("mode") == "realtime" else 0.0,
    }
    wanted = known | {key: value for key, value in changes.items() if value != ""}
    try:
        return parse(BridgeConfig, wanted, where=str(folder))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def read_stats(folder: str | Path) -> dict[str, Any]:
    """Content of stats.json, unchecked. CheckpointError where it is not a JSON object."""
    path = Path(folder) / STATS
    try:
        stats = read_json(path)
    except ValueError as error:
        raise CheckpointError(f"{path}: is not JSON ({error}): copy the checkpoint again") from None
    if not isinstance(stats, dict):
        raise CheckpointError(f"{path}: is not a JSON object: copy the checkpoint again")
    return stats


def instructions_of(folder: str | Path) -> Instructions | None:
    """The sentences that the weights in `folder` know; None where they do one thing. CheckpointError if damaged."""
    config = read_config(folder)
    if not config["policy"].get("instruction"):
        return None
    path = Path(folder) / INSTRUCTIONS
    if not path.is_file() or sha256(path) != config["sha256"].get(INSTRUCTIONS):
        raise CheckpointError(
            f"{folder}: {INSTRUCTIONS} is not the file that config.json describes: copy the checkpoint again"
        )
    try:
        instructions = load_instructions(path)
    except InstructionError as error:
        raise CheckpointError(str(error)) from None
    dim = policy_config(folder).instruction
    if dim and instructions.embeddings.shape[1] != dim.embedding_dim:
        raise CheckpointError(
            f"{path}: has embeddings of length {instructions.embeddings.shape[1]}, config.json says "
            f"{dim.embedding_dim}: copy the checkpoint again"
        )
    return instructions


def ood_stats_of(folder: str | Path) -> OodStats | None:
    """Statistics of the training pictures; None where the checkpoint has none. CheckpointError if damaged."""
    config = read_config(folder)
    if OOD not in config["sha256"]:
        return None
    path = Path(folder) / OOD
    if not path.is_file() or sha256(path) != config["sha256"][OOD]:
        raise CheckpointError(
            f"{folder}: {OOD} is not the file that config.json describes: copy the checkpoint again, or make it with "
            "`dp_ros ood-stats`"
        )
    try:
        stats, encoder = load_ood_stats(path), policy_config(folder).encoder
    except OodError as error:
        raise CheckpointError(str(error)) from None
    wanted = len(encoder.cameras), 2 * encoder.keypoints
    if stats.shape != wanted:
        raise CheckpointError(
            f"{path}: is of {stats.shape[0]} cameras with {stats.shape[1]} coordinates, the policy has "
            f"{wanted[0]} with {wanted[1]}: make it with `dp_ros ood-stats`"
        )
    return stats


def serving_beside(bridge: BridgeConfig) -> dict[str, Any]:
    """Settings of RuntimeConfig that a policy must have to command this simulated robot."""
    return {"mode": bridge.mode, "command_delay_s": bridge.command_delay_s}


def verify_files(folder: str | Path) -> None:
    """Compare weights, statistics and sentences with the hashes in config.json. CheckpointError where they differ."""
    folder = Path(folder)
    config = read_config(folder)
    told = (INSTRUCTIONS,) if config["policy"].get("instruction") else ()
    ood = (OOD,) if OOD in config["sha256"] else ()
    for name in (WEIGHTS, STATS, *told, *ood):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: {name} is missing: copy the checkpoint again")
        if sha256(folder / name) != config.get("sha256", {}).get(name):
            raise CheckpointError(
                f"{folder}: {name} is not the file that config.json describes: copy the checkpoint again"
            )


def sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
