"""Check of `meta/episodes`: the location of every episode, before anything is read from it.

A wrong location would give an episode the pictures of another one, or end an import half-way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from dp_ros.data.lerobot import LeRobotError
from dp_ros.data.lerobot.info import stored_path
from dp_ros.data.video import duration_s

_COUNTS = ("dataset_from_index", "dataset_to_index")
_PLACE = ("chunk_index", "file_index")
Facts = dict[str, Any]


def whole_episodes(root: Path, rows: Iterable[Mapping[str, Any]]) -> list[Facts]:
    """The rows of `meta/episodes`, sorted by episode, with whole numbers as int; some writers store them as float.

    LeRobotError, with the episode, for a number that is missing or not whole.
    """
    episodes: list[Facts] = []
    for row in rows:
        facts = dict(row)
        facts["episode_index"] = _whole(root, facts, "episode_index", f"row {len(episodes)}")
        where = f"episode {facts['episode_index']}"
        optional = [name for name in _COUNTS if facts.get(name) is not None]
        places = [name for name in facts if name.startswith(("data/", "videos/")) and name.endswith(_PLACE)]
        for name in ("length", *optional, *places):
            facts[name] = _whole(root, facts, name, where)
        if len(optional) == len(_COUNTS) and facts[_COUNTS[1]] - facts[_COUNTS[0]] != facts["length"]:
            raise _fault(
                root,
                where,
                f"has length {facts['length']}, but rows {facts[_COUNTS[0]]} to {facts[_COUNTS[1]]}",
            )
        episodes.append(facts)
    return sorted(episodes, key=lambda facts: int(facts["episode_index"]))


def check_videos(root: Path, path: str, fps: float, episodes: Sequence[Facts], feature: str) -> None:
    """Every episode's span in the videos of one feature: inside its file, as long as the episode, of no other one.

    path: `video_path` of meta/info.json. LeRobotError, with the episode.
    """
    half_s = 0.5 / fps
    spans: dict[str, list[tuple[float, float, int]]] = {}
    for facts in episodes:
        where, prefix = f"episode {facts['episode_index']}", f"videos/{feature}"
        try:
            name = stored_path(
                path, video_key=feature, **{place: facts[f"{prefix}/{place}"] for place in _PLACE}
            )
        except KeyError as error:
            raise _fault(root, where, f"has no {error.args[0]}") from None
        begin_s = _seconds(root, facts, f"{prefix}/from_timestamp", where)
        length_s = facts["length"] / fps
        end_s = begin_s + length_s
        if facts.get(f"{prefix}/to_timestamp") is not None:
            end_s = _seconds(root, facts, f"{prefix}/to_timestamp", where)
        if not abs(end_s - begin_s - length_s) <= half_s:
            raise _fault(
                root,
                where,
                f"has {facts['length']} frames at {fps:g} Hz, but {begin_s:g} to {end_s:g} s of {name}",
            )
        spans.setdefault(name, []).append((begin_s, end_s, facts["episode_index"]))
    for name, found in spans.items():
        found.sort()
        for (_, end_s, before), (begin_s, _, episode) in pairwise(found):
            if begin_s < end_s - half_s:
                raise _fault(root, f"episode {episode}", f"has pictures of episode {before} in {name}")
        if not (root / name).is_file():
            raise _fault(root, f"episode {found[0][2]}", f"is in {name}, which does not exist")
        whole_s = duration_s(root / name)
        if whole_s is not None and found[-1][1] > whole_s + half_s:
            raise _fault(
                root,
                f"episode {found[-1][2]}",
                f"ends at {found[-1][1]:g} s of {name}, which lasts {whole_s:g} s",
            )


def _whole(root: Path, facts: Mapping[str, Any], name: str, where: str) -> int:
    value = facts.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or value < 0:
        raise _fault(root, where, f"has {name} = {value}, not a whole number")
    return value


def _seconds(root: Path, facts: Mapping[str, Any], name: str, where: str) -> float:
    value = facts.get(name)
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise _fault(root, where, f"has {name} = {value}, not a time")
    return float(value)


def _fault(root: Path, where: str, what: str) -> LeRobotError:
    return LeRobotError(
        f"{root}: {where} of meta/episodes {what}: delete that episode with LeRobot's tools, or copy the dataset again"
    )
