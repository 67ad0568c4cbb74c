"""Faults of a dataset that a training warns of: leaps, and bags that repeat their samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dp_ros.data.episodes import Dataset
from dp_ros.data.faults import fault_lines

Make = Callable[..., Dataset]


def bag(name: str, pieces: int = 1, **more: Any) -> dict[str, Any]:
    return {"name": name, "pieces": pieces, "repeats": {}, "audit": {"notes": []}, **more}


def with_leap(dataset: Dataset, tick: int, array: str = "action") -> Dataset:
    values = getattr(dataset, array).copy()
    values[tick, 0] += 5.0
    return replace(dataset, **{array: values})


def test_smooth_dataset_has_no_fault(make_dataset: Make) -> None:
    assert fault_lines(make_dataset()) == []
    clean = replace(make_dataset(), attributes={"bags": [bag("a", 2, repeats={"camera left": 0.2})]})
    assert fault_lines(clean) == []


@pytest.mark.parametrize("array", ["action", "command", "ee_pose"])
def test_one_position_far_off_names_its_episode_and_how_to_leave_it_out(
    make_dataset: Make, array: str
) -> None:
    (line,) = fault_lines(with_leap(make_dataset((12, 9)), 15, array))
    assert line.startswith(f"episode 1: {array} leaps by 5")
    assert "at tick 3" in line
    assert "make the dataset again without the episode" in line


def test_distance_between_episodes_is_no_leap(make_dataset: Make) -> None:
    dataset = make_dataset((12, 9))
    action = dataset.action.copy()
    action[12:, :3] += 5.0
    assert fault_lines(replace(dataset, action=action)) == []


def test_bag_of_the_episode_is_named_with_the_command_that_leaves_it_out(make_dataset: Make) -> None:
    """The second bag has two episodes."""
    dataset = replace(make_dataset((5, 6, 7)), attributes={"bags": [bag("first"), bag("second", 2)]})
    (line,) = fault_lines(with_leap(dataset, 14))
    assert line.startswith("bag second: action leaps")
    assert "dp_ros bag label BAGS/second --outcome discarded" in line


def test_leap_of_the_audit_is_told_once_also_where_no_tick_shows_it(make_dataset: Make) -> None:
    note = "command_pose leaps by 5 m at 0.50 s (max_leap_m 0.1): one wrong position stretches the range of all labels"
    bags = [bag("first", audit={"notes": ["gripper: 1 messages cannot be used", note]}), bag("second")]
    dataset = replace(make_dataset((12, 9)), attributes={"bags": bags})
    for each in (dataset, with_leap(dataset, 5)):
        (line,) = fault_lines(each)
        assert line.startswith("bag first: command_pose leaps by 5 m at 0.50 s, ")


def test_limit_is_that_of_the_conversion(make_dataset: Make) -> None:
    settings = {"convert": {"audit": {"max_leap_m": 6.0}}}
    assert fault_lines(with_leap(replace(make_dataset(), attributes=settings), 5)) == []


def test_stream_that_bags_repeat_is_one_line_with_their_names(make_dataset: Make) -> None:
    bags = [bag(f"b{i}", repeats={"camera left": 0.1 * i, "gripper": 0.0}) for i in range(9)]
    (line,) = fault_lines(replace(make_dataset(), attributes={"bags": bags}))
    assert line.startswith(
        "bag b3, b4, b5, b6, b7 and 1 more: up to 80% of the ticks repeat the sample of camera left"
    )
    assert "lower --rate" in line


def test_many_leaps_are_counted(make_dataset: Make) -> None:
    dataset = make_dataset((6,) * 8)
    for episode in range(8):
        dataset = with_leap(dataset, 6 * episode + 3)
    lines = fault_lines(dataset)
    assert len(lines) == 6
    assert lines[-1].startswith("3 more episodes")
    assert np.isfinite(dataset.action).all()
