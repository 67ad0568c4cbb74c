"""Check that an evaluation's seeds are not those a policy was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dp_ros.schema import ConfigError


def check_unseen(config: Mapping[str, Any], task: str, seeds: Sequence[int]) -> None:
    """ConfigError where the checkpoint's `config` says that it, its teacher, or the one whose weights it began
    with, was trained on one of the seeds."""
    for data in map(_data, _trainings(config.get("training", {}))):
        if not seeds or not _is_of(data, task):
            continue
        for first, last in _trained(data):
            if any(first <= seed and (last is None or seed <= last) for seed in seeds):
                trained = f"{first} and above" if last is None else f"{first} to {last}"
                raise ConfigError(
                    f"seeds {min(seeds)} to {max(seeds)} overlap the training seeds {trained}: choose another --seed"
                )


def seeds_known(training: Mapping[str, Any], task: str) -> bool:
    """Whether a checkpoint's `training` names the seed of every episode of the task, and so do those it came from."""
    return all(
        not _is_of(data, task) or bool(_trained(data) and not data.get("seeds_unknown"))
        for data in map(_data, _trainings(training))
    )


def _trainings(training: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The training, that of its teacher, that of the weights it began with, and theirs."""
    yield training
    for key in ("teacher", "init"):
        if key in training:
            yield from _trainings(training[key])


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
