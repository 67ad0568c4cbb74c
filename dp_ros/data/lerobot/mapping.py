"""Mapping from the features of a LeRobotDataset to our arrays and cameras."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import Range, to_range
from dp_ros.data.lerobot import LeRobotError
from dp_ros.data.lerobot import layout as lerobot
from dp_ros.data.lerobot.folder import LeRobotFolder
from dp_ros.errors import shown
from dp_ros.schema import ImportConfig

Array = NDArray[np.float64]
_EXPORTED_COMMAND = f"{lerobot.COMMAND}:{','.join(lerobot.VECTOR_NAMES)}"


@dataclass(frozen=True)
class Columns:
    """Selected numbers of one feature."""

    feature: str
    at: tuple[int, ...]

    def of(self, numbers: dict[str, Array]) -> Array:
        """Feature -> (T, D) to (T, len(at))."""
        return numbers[self.feature][:, self.at]


def find_columns(folder: LeRobotFolder, config: ImportConfig, exported_by_us: bool) -> dict[str, Columns]:
    """Our array -> the numbers it is made of. Without executed commands, the actions count as executed."""
    columns = {
        "ee_pose": _find(folder, "--ee-position", config.ee_position),
        "gripper": _find(folder, "--gripper", config.gripper),
        "action": _find(folder, "--action", config.action),
    }
    command = config.command or (_EXPORTED_COMMAND if exported_by_us else None)
    return {**columns, "command": _find(folder, "--command", command) if command else columns["action"]}


def _find(folder: LeRobotFolder, option: str, given: str) -> Columns:
    feature, _, parts = given.partition(":")
    found = folder.features.get(feature)
    if found is None or len(found["shape"]) != 1:
        vectors = ", ".join(key for key, other in folder.features.items() if len(other["shape"]) == 1)
        raise LeRobotError(
            f"{folder.path}: has no numbers '{feature}': name others with {option}, out of {shown(vectors, 500)}"
        )
    size, names = int(found["shape"][0]), _names(found)
    at = []
    for part in parts.split(","):
        index = int(part) if part.isdecimal() else names.index(part) if part in names else size
        if index >= size:
            known = shown(", ".join(names), 500) or f"{size} numbers without names"
            example = ",".join(map(str, range(parts.count(",") + 1)))
            raise LeRobotError(
                f"{folder.path}: '{feature}' has no '{part}', it has {known}: name one of them, "
                f"e.g. {option} {feature}:{example}"
            )
        at.append(index)
    return Columns(feature, tuple(at))


def find_cameras(folder: LeRobotFolder, wanted: tuple[str, ...]) -> dict[str, str]:
    """Our camera name -> feature, for the `wanted` cameras; for all cameras when none is given."""
    known: dict[str, str] = {}
    for feature in folder.image_features():
        camera = camera_name(feature)
        if camera in known:
            raise LeRobotError(
                f"{folder.path}: '{known[camera]}' and '{feature}' are both '{camera}' here: rename one"
            )
        known[camera] = feature
    cameras = {camera: known[camera] for camera in wanted or known if camera in known}
    missing = next((camera for camera in wanted if camera not in known), None)
    if missing or not cameras:
        fault = (
            f"no camera '{missing}'; it has {shown(', '.join(known), 500)}"
            if known
            else "no pictures to learn from"
        )
        raise LeRobotError(f"{folder.path}: has {fault}")
    for camera, feature in cameras.items():
        channels = _channels(folder.features[feature])
        if channels != 3:
            others = [other for other in known if other != camera]
            raise LeRobotError(
                f"{folder.path}: '{feature}' has {channels} channels, not 3: name others with --camera; "
                f"it has {', '.join(others) or 'none'}"
            )
    return cameras


def camera_name(feature: str) -> str:
    """Our name of a feature's camera: "observation.images.wrist.left" -> "wrist_left"."""
    name = feature.removeprefix(lerobot.IMAGES).removeprefix("observation.")
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    return name if name[:1].isalpha() else f"camera_{name}"


def to_our_range(values: Array, given: Range, ours: Range, where: str, option: str) -> Array:
    """Values scaled from the range `given`, which may be falling, to the range `ours`; LeRobotError outside of it."""
    try:
        return to_range(values, given, ours)
    except ValueError:
        raise LeRobotError(
            f"{where} run from {values.min():g} to {values.max():g}, outside {given[0]:g} to {given[1]:g}: "
            f"give the values that mean {ours[0]:g} and {ours[1]:g} with {option} FROM,TO"
        ) from None


def _names(feature: dict[str, Any]) -> list[str]:
    """Names of a feature's numbers, which LeRobot stores as a list, as {"motors": list}, or not at all."""
    names = feature.get("names") or []
    if isinstance(names, dict):
        nested = [value for value in names.values() if isinstance(value, list)]
        names = nested[0] if nested else list(names)
    return [str(name) for name in names]


def _channels(feature: dict[str, Any]) -> int:
    names = _names(feature)
    at = next((i for i, name in enumerate(names) if name.startswith("channel")), -1)
    return int(feature["shape"][at])
