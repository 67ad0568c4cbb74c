"""Demonstrations that stand still: the audit tells the share, and conversion can shorten the stops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dp_ros.data import episodes
from dp_ros.data.bags.still import rows_to_keep
from dp_ros.ros.bags.check import check
from dp_ros.ros.bags.convert import convert
from dp_ros.ros.bags.episode_reader import read_episode
from dp_ros.schema import AuditConfig, ConvertConfig, TopicMap

TICKS, RATE_HZ = 600, 80.0


def stop(begin: int, end: int) -> Callable[[str, int, np.ndarray], np.ndarray]:
    """An arm that moves by 1.5 mm a tick, and stands still from tick `begin` to `end`."""
    return lambda stream, i, at: np.array([0.0, 0.6, 0.0015 * (min(i, begin) + max(0, i - end))])


@pytest.fixture
def bag(request, tmp_path: Path, bag_maker) -> Path:
    return make(bag_maker, tmp_path / "bag", *request.param)


def make(bag_maker, path: Path, begin: int, end: int) -> Path:
    """The gripper stands still all the time: its messages are replaced."""
    from test.conftest import BEGIN_NS

    extra = []
    for i in range(TICKS):
        at = BEGIN_NS + i * 12_500_000
        extra.append(("/gripper/state", at + 1, bag_maker.joints(at, position=[0.5])))
        extra.append(("/command/gripper", at + 1, bag_maker.joints(at, effort=[0.0])))
    return bag_maker.episode(
        path,
        ticks=TICKS,
        size=(16, 16),
        moved=stop(begin, end),
        dropped=lambda stream, i: "gripper" in stream,
        extra=extra,
    )


def run(bag: Path, out: Path, **changes: float) -> episodes.Dataset:
    convert([bag], out, ConvertConfig(**changes), jobs=1)
    return episodes.load(out)


@pytest.mark.parametrize("bag", [(100, 400)], indirect=True)
def test_the_audit_tells_the_share_of_standing_still(bag: Path) -> None:
    audit = check(read_episode(bag, TopicMap()), AuditConfig())
    assert audit.passed
    assert audit.notes[0].startswith("50% of the commands stand still (3.7 of 7.5 s): --set trim_still_s=0.5")


@pytest.mark.parametrize("bag", [(100, 150)], indirect=True)
def test_a_short_stop_is_not_noted(bag: Path) -> None:
    assert check(read_episode(bag, TopicMap()), AuditConfig()).notes == ()


@pytest.mark.parametrize(
    ("bag", "ends"),
    [((100, 400), [120, 340]), ((0, 400), [240]), ((300, 600), [340])],
    indirect=["bag"],
    ids=["in the middle", "at the begin", "at the end"],
)
def test_stops_are_shortened_next_to_motion(tmp_path: Path, bag: Path, ends: list[int]) -> None:
    """Half a second, 40 ticks, is kept; a cut ends an episode, because no window may span it."""
    result = convert([bag], tmp_path / "data", ConvertConfig(trim_still_s=0.5), jobs=1)
    assert result.sparse == []
    found = episodes.load(tmp_path / "data")
    assert found.episode_ends.tolist() == pytest.approx(ends, abs=2)
    assert len(run(bag, tmp_path / "whole")) == TICKS
    steps = np.diff(found.ee_pose[:, 2])
    assert (steps > 0).sum() == pytest.approx(TICKS - 300 if len(ends) == 2 else ends[0] - 40, abs=2)


def test_a_gripper_that_moves_is_not_standing_still() -> None:
    rows = np.zeros((100, 8))
    rows[:, 3] = np.linspace(0, 1, 100)
    assert rows_to_keep(rows, 5).all()
    rows[:, 3] = 0.0
    assert rows_to_keep(rows, 5).sum() == 5
