"""Faults of a dataset that a training survives but learns from: leaps of a position, and repeated samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from dp_ros.actions import POSITION
from dp_ros.data.bags.pose_audit import is_leap, leap_steps
from dp_ros.data.episodes import Dataset
from dp_ros.schema import AuditConfig

MANY_REPEATS = 0.2  # streams with more of their samples repeated are named
_SHOWN = 5  # episodes or bags; the others are counted


def fault_lines(dataset: Dataset) -> list[str]:
    """One line for each episode or bag with a leap, and for each stream that many bags repeat; each with the remedy."""
    return [*_leaps(dataset), *_repeats(dataset.attributes.get("bags", []))]


def _leaps(dataset: Dataset) -> Iterator[str]:
    """A leap is in the rows, or in the audit of the bag, whose samples are more than the rows."""
    found = dict(_noted_leaps(dataset.attributes.get("bags", [])))
    for episode, bag, line in _leaps_of_rows(dataset):
        found.setdefault(f"bag {bag}" if bag else f"episode {episode}", line)
    for place, line in list(found.items())[:_SHOWN]:
        name = place.removeprefix("bag ")
        remedy = (
            f"label the bag with `dp_ros bag label BAGS/{name} --outcome discarded` and convert into another --out"
            if place.startswith("bag ")
            else "make the dataset again without the episode"
        )
        yield f"{place}: {line}, which stretches the range of all labels; to leave it out, {remedy}"
    if len(found) > _SHOWN:
        yield f"{len(found) - _SHOWN} more episodes leap in the same way"


def _noted_leaps(bags: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(place, line) of each bag whose audit notes a leap."""
    for bag in bags:
        for note in bag.get("audit", {}).get("notes", []):
            if is_leap(note):
                yield f"bag {bag['name']}", note.partition(" (max_leap_m")[0]


def _leaps_of_rows(dataset: Dataset) -> Iterator[tuple[int, str, str]]:
    """(episode, its bag or "", line) of the first leap of each episode."""
    attributes = dataset.attributes
    audit = attributes.get("convert", {}).get("audit", {})
    max_leap_m = audit.get("max_leap_m", AuditConfig().max_leap_m)
    bags = [bag["name"] for bag in attributes.get("bags", []) for _ in range(bag.get("pieces", 1))]
    streams = {
        "action": POSITION.of(dataset.action),
        "command": POSITION.of(dataset.command),
        "ee_pose": dataset.ee_pose,
    }
    for episode, (begin, end) in enumerate(pairwise([0, *dataset.episode_ends.tolist()])):
        for name, positions in streams.items():
            steps_m = np.linalg.norm(np.diff(positions[begin:end], axis=0), axis=1)
            leaps = leap_steps(steps_m, max_leap_m)
            if len(leaps):
                line = f"{name} leaps by {steps_m[leaps[0]]:.3g} m at tick {leaps[0] + 1}"
                yield episode, bags[episode] if episode < len(bags) else "", line
                break


def _repeats(bags: list[Mapping[str, Any]]) -> Iterator[str]:
    """One line for each stream: the bags in which many ticks repeat its sample, and the largest share."""
    streams = dict.fromkeys(name for bag in bags for name in bag.get("repeats", {}))
    for stream in streams:
        shares = {
            bag["name"]: share
            for bag in bags
            if (share := bag.get("repeats", {}).get(stream, 0.0)) > MANY_REPEATS
        }
        if shares:
            named = ", ".join(list(shares)[:_SHOWN])
            more = f" and {len(shares) - _SHOWN} more" if len(shares) > _SHOWN else ""
            yield (
                f"bag {named}{more}: up to {max(shares.values()):.0%} of the ticks repeat the sample of {stream}, so "
                "the policy would learn to stand still; convert into another --out with a lower --rate, or without "
                "the bag"
            )
