"""Settings that all bags of one dataset share: cameras, sizes of pictures, and how the episodes were collected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dp_ros.data.bags.reader import BagError, BagInfo, BagReader
from dp_ros.ros.bags.episode_reader import camera_topics
from dp_ros.schema import ConfigError, ConvertConfig, Size, Target


def common_cameras(paths: Sequence[Path], config: ConvertConfig) -> tuple[str, ...]:
    """The cameras that every bag has that may be converted; BagError where there is none."""
    common: dict[str, None] | None = None
    for path in paths:
        try:
            with BagReader(path) as bag:
                found = camera_topics(bag.info, config.topics)
                outcome = bag.info.outcome or "unknown"
        except BagError:
            continue  # it is refused later, with the reason
        if outcome not in config.outcomes:
            continue
        common = {c: None for c in (common if common is not None else sorted(found)) if c in found}
    if common is not None and not common:
        raise BagError(
            f"{paths[0].parent}: the bags have no camera in common: name one with --camera, or map it"
        )
    return tuple(common or ())


def common_targets(
    recorded: Sequence[tuple[BagInfo, Mapping[str, Size]]], config: ConvertConfig
) -> dict[str, Target]:
    """Camera -> target of its pictures. Without a size in the configuration, it is the recorded one.

    ConfigError where a camera without a size was recorded in several.
    """
    first, sizes = recorded[0]
    for info, others in recorded:
        for camera, (height, width) in others.items():
            if not config.is_sized(camera) and (height, width) != sizes[camera]:
                raise ConfigError(
                    f"{info.path}: camera '{camera}' is {width}x{height} px, in {first.path} it is "
                    f"{sizes[camera][1]}x{sizes[camera][0]}: give --size, or --size {camera}=WIDTHxHEIGHT"
                )
    return {camera: config.target(camera, size) for camera, size in sizes.items()}


def common_settings(
    recorded: Sequence[tuple[BagInfo, dict[str, Any]]], targets: Mapping[str, Target]
) -> dict[str, Any]:
    """Settings of the scripted collection, from each bag's own; task and pictures where the bags differ or have none.

    A size is among them where it is that of all cameras.

    ConfigError where the bags are of several tasks.
    """
    collect = recorded[0][1]
    if collect and all(other == collect for _, other in recorded):
        return collect
    tasks = sorted({info.custom.get("task", "") for info, _ in recorded})
    if len(tasks) > 1:
        named = ", ".join(task or "none" for task in tasks)
        raise ConfigError(
            f"the bags hold several tasks ({named}): convert each by itself, or `dp_ros bag label --task` them"
        )
    settings: dict[str, Any] = {"task": tasks[0], "cameras": list(targets)}
    first, *others = targets.values()
    if all(other.size == first.size for other in others):
        settings |= {"width_px": first.width_px, "height_px": first.height_px}
    return settings


def settings_of(config: ConvertConfig, cameras: Sequence[str], begun: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that a dataset keeps and compares when it grows; `begun`: those that it has.

    Left out: the rate, which is an attribute of its own, and settings with their default value that are newer than
    the dataset. Outcomes decide only which bags there are, so the dataset's stay.
    """
    defaults = ConvertConfig().model_dump(mode="json")
    ours = {**config.model_dump(mode="json"), "cameras": list(cameras)}
    del ours["audit"]["max_turn_rad"]  # changes no row
    if not begun:
        return {key: value for key, value in ours.items() if key != "rate_hz"}
    kept = _without_newer(ours, defaults, begun)
    kept["outcomes"] = begun.get("outcomes", ours["outcomes"])
    if begun.get("topics", {}).get("gripper_joint") == "gripper" and not kept["topics"]["gripper_joint"]:
        kept["topics"]["gripper_joint"] = "gripper"  # the former default, of the same meaning
    return kept


def _without_newer(
    ours: Mapping[str, Any], defaults: Mapping[str, Any], begun: Mapping[str, Any]
) -> dict[str, Any]:
    kept = {}
    for key, value in ours.items():
        if key in begun and isinstance(value, dict) and isinstance(begun[key], dict):
            kept[key] = _without_newer(value, defaults.get(key, {}), begun[key])
        elif key in begun or (value != defaults.get(key) and key != "rate_hz"):
            kept[key] = value
    return kept
