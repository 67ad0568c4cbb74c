"""Positions in bags that no arm has: another unit, relative commands, one command far off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dp_ros.data import episodes
from dp_ros.data.bags.audit import EpisodeAudit
from dp_ros.data.bags.reader import BagError
from dp_ros.data.faults import fault_lines
from dp_ros.ros.bags.check import check
from dp_ros.ros.bags.convert import convert
from dp_ros.ros.bags.episode_reader import read_episode
from dp_ros.schema import AuditConfig, ConvertConfig, TopicMap

HOME_M = np.array([0.1, 0.6, 0.2])
Moved = Callable[[str, int, np.ndarray], np.ndarray]


def audit_of(bag: Path, **limits: float) -> EpisodeAudit:
    return check(read_episode(bag, TopicMap()), AuditConfig(**limits))


def run(bag: Path, out: Path, **changes: object) -> episodes.Dataset:
    convert([bag], out, ConvertConfig(**changes), jobs=1)
    return episodes.load(out)


def is_command(stream: str) -> bool:
    return stream.startswith(("command", "expert"))


IMPLAUSIBLE: dict[str, tuple[Moved, str]] = {
    "commands in millimetres": (
        lambda stream, i, at: (HOME_M + at) * (1000 if is_command(stream) else 1),
        "command_pose: 40 of 40 positions on /command/ee_pose are more than 0.5 m from the measured one, usually",
    ),
    "some commands in millimetres": (
        lambda stream, i, at: (HOME_M + at) * (1000 if is_command(stream) and i % 10 == 0 else 1),
        "command_pose: 4 of 40 positions on /command/ee_pose are more than 0.5 m from the measured one",
    ),
    "commands as differences": (
        lambda stream, i, at: 0.01 * at if is_command(stream) else HOME_M + at,
        "command_pose: 40 of 40 positions .* record absolute positions in metres",
    ),
    "all in millimetres": (
        lambda stream, i, at: 1000 * (HOME_M + at),
        "ee_pose: /ee_pose moves over .* m: is it in millimetres?",
    ),
}


@pytest.mark.parametrize(("moved", "says"), IMPLAUSIBLE.values(), ids=IMPLAUSIBLE.keys())
def test_positions_that_no_arm_has_are_refused(tmp_path: Path, bag_maker, moved: Moved, says: str) -> None:
    bag = bag_maker.episode(tmp_path / "bag", moved=moved)
    with pytest.raises(BagError, match=f"fails the audit: {says}"):
        run(bag, tmp_path / "data")


def test_the_limit_can_be_set(tmp_path: Path, bag_maker) -> None:
    bag = bag_maker.episode(
        tmp_path / "bag", moved=lambda stream, i, at: at + is_command(stream) * np.array([0.0, 0.0, 0.8])
    )
    assert not audit_of(bag).passed
    assert audit_of(bag, max_offset_m=2.0).passed


def test_one_command_far_off_is_named(tmp_path: Path, bag_maker) -> None:
    def moved(stream: str, i: int, at: np.ndarray) -> np.ndarray:
        path = HOME_M + 0.002 * i
        return path + np.array([3.0, 0.0, 0.0]) if (stream, i) == ("command_pose", 60) else path

    audit = audit_of(bag_maker.episode(tmp_path / "bag", ticks=80, moved=moved))
    assert audit.passed
    (note,) = audit.notes
    assert note.startswith("command_pose leaps by 3 m at 0.75 s, and 1 times more (max_leap_m 0.1)")
    (line,) = fault_lines(run(tmp_path / "bag", tmp_path / "data"))  # as a training warns
    assert line.startswith(
        "bag bag: command_pose leaps by 3 m at 0.75 s, and 1 times more, which stretches the range"
    )


def test_a_measured_pose_that_leaps_is_named_and_waypoints_are_not(tmp_path: Path, bag_maker) -> None:
    def glitch(stream: str, i: int, at: np.ndarray) -> np.ndarray:
        return HOME_M + 0.002 * i + (0.3 if (stream, i) == ("ee_pose", 10) else 0.0)

    assert "ee_pose leaps by" in audit_of(bag_maker.episode(tmp_path / "glitch", moved=glitch)).notes[0]
    waypoints = bag_maker.episode(
        tmp_path / "waypoints",
        moved=lambda stream, i, at: HOME_M + 0.15 * (i % 2 if is_command(stream) else 0.5),
    )
    assert audit_of(waypoints).notes == ()
