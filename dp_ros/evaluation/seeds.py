"""Check that an evaluation's seeds are not those a policy was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dp_ros.schema import ConfigError


def check_unseen(config: Mapping[str, Any], task: str, seeds: Sequence[int]) -> None:
    """ConfigError where the checkpoint's `config` says that it, or its teacher, was trained on one of the seeds."""
    training = config.get("training", {})
    for data in (_data(training), _data(training.get("teacher", {}))):
        if not seeds or not _is_of(data, task):
            continue
        for first, last in _trained(data):
            if any(first <= seed and (last is None or seed <= last) for seed in seeds):
                trained = f"{first} and above" if last is None else f"{first} to {last}"
                raise ConfigError(
                    f"seeds {min(seeds)} to {max(seeds)} overlap the training seeds {trained}: choose another --seed"
                )


def seeds_known(training: Mapping[str, Any], task: str) -> bool:
    """Whether a checkpoint's `training` names the seed of every episode of the task, of its teacher, too."""
    trainings = [training, training["teacher"]] if "teacher" in training else [training]
    return all(
        not _is_of(data, task) or bool(_trained(data) and not data.get("seeds_unknown"))
        for data in map(_data, trainings)
    )


def _is_of(data: Mapping[str, Any], task: str) -> bool:
    """Whether the policy may have been trained on the task."""
    return task in data.get("tasks", [data.get("task", task)])


def _data(training: Mapping[str, Any]) -> Mapping[str, Any]:
    data: Mapping[str, Any] = training.get("data", {})
    return data


def _trained(data: Mapping[str, Any]) -> list[tuple[int, int | None]]:
    """First and last of each range of seeds; last is None where the range has no end."""
    ranges: list[tuple[int, int | None]] = [(first, last) for first, last in data.get("seeds", ())]
    first = data.get("first_seed")
    if first is not None and "tried" in data:
        ranges.append((first, first + data["tried"] - 1))
    elif first is not None and not ranges:
        ranges.append((first, None))  # their number is not kept, so all that follow may have been seen
    return ranges
