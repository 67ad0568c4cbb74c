"""What a checkpoint's config.json says, read without torch: launch files and the bridge need it too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dp_ros.schema import SCHEMA_VERSION, BridgeConfig, ConfigError, PolicyConfig, parse

CONFIG = "config.json"

# From an older version's config.json to the next version's: version -> migration.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; one line: where, what, and what to do."""


def read_config(folder: str | Path) -> dict[str, Any]:
    """config.json, migrated to this version and checked to be one; no weights are read."""
    folder = Path(folder)
    path = folder / CONFIG
    if not path.is_file():
        what = "has no config.json" if folder.is_dir() else "does not exist"
        raise CheckpointError(
            f"{folder}: {what}, so it is not a checkpoint: give a folder made by `dp_ros train`, e.g. models/NAME"
        )
    try:
        config = json.loads(path.read_text())
        version, _ = config["schema_version"], config["policy"]
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"{path}: is not a checkpoint's config.json: copy the checkpoint anew"
        ) from None
    while version in MIGRATIONS:
        config = MIGRATIONS[version](config)
        version = config["schema_version"]
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path}: schema version {version}, this dp_ros reads {SCHEMA_VERSION}: install a newer dp_ros"
        )
    return dict(config)


def weights_sha256(folder: str | Path) -> str:
    """Which weights are in `folder`, as its config.json says."""
    return str(read_config(folder).get("sha256", {}).get("policy.safetensors", ""))


def check_weights(folder: str | Path, expected_sha256: str) -> None:
    """CheckpointError where `folder` no longer holds the weights that it did when the work on them began."""
    if weights_sha256(folder) != expected_sha256:
        raise CheckpointError(
            f"{folder}: holds other weights than when this began (a training replaced them): "
            "run it anew, on a copy while the training goes on"
        )


def policy_config(folder: str | Path) -> PolicyConfig:
    """What the weights in `folder` mean."""
    try:
        return parse(PolicyConfig, read_config(folder)["policy"], where=str(Path(folder) / CONFIG))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def bridge_for(folder: str | Path, **changes: Any) -> BridgeConfig:
    """The simulated robot whose pictures the weights in `folder` know: its task, cameras, size and markers.

    `changes` are other fields of BridgeConfig; empty strings are ignored. CheckpointError in one line.
    """
    policy, scene = policy_config(folder), read_config(folder).get("scene", {})
    known = {
        **({"task": policy.task} if policy.task else {}),
        "cameras": policy.encoder.cameras,
        "width_px": scene.get("width_px", policy.encoder.width_px),
        "height_px": scene.get("height_px", policy.encoder.height_px),
        "markers": scene.get("markers", False),
    }
    wanted = known | {key: value for key, value in changes.items() if value != ""}
    try:
        return parse(BridgeConfig, wanted, where=str(folder))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
