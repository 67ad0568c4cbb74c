"""Sensors that deliver messages without content: black, frozen and tiny pictures, a frozen pose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dp_ros.data.bags.audit import EpisodeAudit
from dp_ros.data.bags.reader import BagError
from dp_ros.ros.bags.check import check
from dp_ros.ros.bags.convert import convert
from dp_ros.ros.bags.episode_reader import read_episode
from dp_ros.schema import AuditConfig, ConvertConfig, TopicMap

TICKS = 200  # 2.5 s
BEGIN_NS, PERIOD_NS = 1_700_000_000_000_000_000, 12_500_000  # of the bag maker
QOS = {
    "history": "keep_last", "depth": 10, "reliability": "best_effort", "durability": "volatile",
    "deadline": {"sec": 0, "nsec": 0}, "lifespan": {"sec": 0, "nsec": 0}, "liveliness": "automatic",
    "liveliness_lease_duration": {"sec": 0, "nsec": 0}, "avoid_ros_namespace_conventions": False,
}  # fmt: skip


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


def test_pictures_of_two_cameras_on_one_topic_fail(tmp_path: Path, bag_maker) -> None:
    """Two drivers with the same name: every second picture is of the other one."""
    others = []
    for i in range(TICKS):
        at = BEGIN_NS + i * PERIOD_NS + PERIOD_NS // 2
        kind, msg = bag_maker.image(at, np.full((24, 24, 3), (0, i, 255 - i), np.uint8))
        msg.header = bag_maker.header(at, "right_optical_frame")
        others.append(("/camera/left/image_raw", at + 1, (kind, msg)))
    reasons = audit_of(bag_maker, tmp_path / "bag", extra=others).reasons
    both = "'base_link' and 'right_optical_frame'"
    assert (
        f"camera left: its pictures are in frames {both}: do several cameras publish on its topic?" in reasons
    )


@pytest.mark.parametrize("publishers", [1, 2])
@pytest.mark.parametrize("topic", ["/camera/left/image_raw", "/ee_pose", "/gripper/state"])
def test_a_sensor_with_several_publishers_is_noted(
    tmp_path: Path, bag_maker, topic: str, publishers: int
) -> None:
    """A recorder keeps the QoS profile of each. The joint states of a gripper may have several."""
    bag = bag_maker.episode(tmp_path / "bag", ticks=TICKS, size=(24, 24))
    metadata = yaml.safe_load((bag / "metadata.yaml").read_text())
    for each in metadata["rosbag2_bagfile_information"]["topics_with_message_count"]:
        if each["topic_metadata"]["name"] == topic:
            each["topic_metadata"]["offered_qos_profiles"] = [QOS] * publishers
    (bag / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    audit = check(read_episode(bag, TopicMap()), AuditConfig())
    name = {"/camera/left/image_raw": "camera left", "/ee_pose": "ee_pose"}.get(topic)
    note = f"{name} had 2 publishers when it was recorded: their messages are mixed"
    assert audit.passed
    assert audit.notes == ((note,) if name and publishers == 2 else ())
