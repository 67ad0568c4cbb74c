"""The map of a robot's topics: names of the nodes' topics, compressed pictures, and the gripper of the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from dp_ros.resources import share_file
from dp_ros.schema import ConfigError, RuntimeConfig, TopicMap, TopicsFile, load_yaml
from dp_ros.schema.gripper import GripperCommands

REALSENSE = "/camera/camera/color/image_raw"


def test_a_camera_brings_its_compressed_pictures_and_its_lens() -> None:
    assert TopicMap(cameras={"wrist": REALSENSE}).names() == {
        "camera/wrist/image_raw": REALSENSE,
        "camera/wrist/image_raw/compressed": f"{REALSENSE}/compressed",
        "camera/wrist/camera_info": "/camera/camera/color/camera_info",
    }
    compressed = TopicMap(cameras={"wrist": f"{REALSENSE}/compressed"})
    assert compressed.names() == TopicMap(cameras={"wrist": REALSENSE}).names()
    assert compressed.is_compressed("wrist", "raw")
    assert not TopicMap(cameras={"wrist": REALSENSE}).is_compressed("wrist", "raw")
    assert TopicMap().is_compressed("wrist", "compressed")


def test_only_other_names_are_changed_and_a_namespace_holds_for_all() -> None:
    assert TopicMap().names() == {}
    assert TopicMap(ee_pose="tool", command_pose="/target").names() == {
        "ee_pose": "tool",
        "command/ee_pose": "/target",
    }
    names = TopicMap(namespace="arm", ee_pose="/tool", gripper="joints").names()
    assert (names["ee_pose"], names["gripper/state"]) == ("/tool", "/arm/joints")
    assert names["command/ee_pose"] == "/arm/command/ee_pose"


def test_the_gripper_of_the_map_fills_what_the_settings_leave_out_and_a_contradiction_is_refused() -> None:
    topics = TopicMap(gripper_joint="finger", gripper_range=(0.0, 0.04), command_gripper_field="position")
    filled = topics.gripper_of(RuntimeConfig(), "robot.yaml")
    assert (filled.gripper_joint, filled.gripper_range) == ("finger", (0.0, 0.04))
    assert topics.gripper_of(filled, "robot.yaml") == filled
    assert topics.gripper_of(GripperCommands(), "node").command_gripper_field == "position"
    own = RuntimeConfig(gripper_joint="thumb")
    assert TopicMap().gripper_of(own, "robot.yaml") == own
    with pytest.raises(
        ConfigError, match=r"gripper_joint: robot.yaml says 'thumb', and topics_file 'finger'"
    ):
        topics.gripper_of(own, "robot.yaml")


def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path) -> None:
    assert TopicsFile().read() == TopicMap()
    with pytest.raises(ConfigError, match="cannot be read"):
        TopicsFile(topics_file=str(tmp_path / "none.yaml")).read()
    wrong = tmp_path / "topics.yaml"
    wrong.write_text("camera: {wrist: /a}\n")
    with pytest.raises(ConfigError, match="unknown key 'camera'; did you mean 'cameras'"):
        TopicsFile(topics_file=str(wrong)).read()
    wrong.write_text("command_gripper_range: [0.0, 0.0]\n")
    with pytest.raises(ConfigError, match="command_gripper_range 0, 0 is no range"):
        TopicsFile(topics_file=str(wrong)).read()


def test_the_map_of_the_stand_in_robot_is_valid() -> None:
    topics = load_yaml(TopicMap, share_file("config/stand_in.yaml"))
    assert set(topics.names()) >= {"ee_pose", "gripper/state", "command/ee_pose", "command/gripper"}
