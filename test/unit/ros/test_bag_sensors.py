"""Sensors that deliver messages without content: black, frozen and tiny pictures, a frozen pose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp_ros.data.bags.audit import EpisodeAudit
from dp_ros.data.bags.reader import BagError
from dp_ros.ros.bags.check import check
from dp_ros.ros.bags.convert import convert
from dp_ros.ros.bags.episode_reader import read_episode
from dp_ros.schema import AuditConfig, ConvertConfig, TopicMap

TICKS = 200  # 2.5 s


def audit_of(bag_maker, path: Path, **episode: Any) -> EpisodeAudit:
    bag_maker.episode(path, ticks=TICKS, size=(24, 24), **episode)
    return check(read_episode(path, TopicMap()), AuditConfig())


@pytest.mark.parametrize("level", [0, 128])
@pytest.mark.parametrize("compressed", [False, True])
def test_pictures_that_show_nothing_fail(tmp_path: Path, bag_maker, level: int, compressed: bool) -> None:
    flat = lambda camera, i, rgb: np.full_like(rgb, level) + (rgb > 250)  # noqa: E731
    audit = audit_of(bag_maker, tmp_path / "bag", edited=flat, compressed=compressed)
    assert audit.reasons == (
        "camera left: 200 of 200 pictures show nothing (contrast below min_contrast 5): was it covered?",
    )
    with pytest.raises(BagError, match="pictures show nothing"):
        convert([tmp_path / "bag"], tmp_path / "data", ConvertConfig(), jobs=1)


def test_few_black_pictures_are_noted(tmp_path: Path, bag_maker) -> None:
    audit = audit_of(bag_maker, tmp_path / "bag", edited=lambda camera, i, rgb: rgb * (i not in (7, 8)))
    assert audit.passed
    assert audit.notes[0].startswith("camera left: 2 of 200 pictures show nothing")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_frozen_camera_fails_while_the_arm_moves(tmp_path: Path, bag_maker, compressed: bool) -> None:
    pictures = bag_maker.values(0, TICKS, ("left",), (24, 24))["left"]
    frozen = lambda camera, i, rgb: pictures[min(i, 60)]  # noqa: E731
    (reason,) = audit_of(bag_maker, tmp_path / "bag", edited=frozen, compressed=compressed).reasons
    assert reason.startswith("camera left: shows the same picture for 1.74 s while the arm moves by")
    resting = audit_of(
        bag_maker, tmp_path / "rest", edited=frozen, moved=lambda stream, i, at: np.array([0.0, 0.6, 0.2])
    )
    assert resting.passed


@pytest.mark.parametrize("size", [(1, 1), (15, 40)])
def test_pictures_too_small_for_a_policy_fail(tmp_path: Path, bag_maker, size: tuple[int, int]) -> None:
    path = bag_maker.episode(tmp_path / "bag", size=size)
    (reason,) = check(read_episode(path, TopicMap()), AuditConfig()).reasons
    assert reason == f"camera left: its pictures are {size[1]}x{size[0]} px, a policy needs 16x16"


def test_a_frozen_pose_fails_while_commands_move(tmp_path: Path, bag_maker) -> None:
    def frozen(stream: str, i: int, at: np.ndarray) -> np.ndarray:
        return np.array([0.0, 0.0, 0.1]) if stream == "ee_pose" and i >= 50 else at

    (reason,) = audit_of(bag_maker, tmp_path / "bag", moved=frozen).reasons
    assert reason.startswith("ee_pose: stays the same for 1.86 s while command_pose moves by")
    assert audit_of(bag_maker, tmp_path / "rest", moved=lambda stream, i, at: np.zeros(3)).passed
