"""A policy served with a robot's own topic names and units, in the shadow and for real."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from geometry_msgs.msg import PoseStamped
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool, String

from dp_ros.ros.bags.recorder_topics import required_topics, wanted_topics
from dp_ros.ros.messages.commands import gripper_to_joint_state
from dp_ros.ros.messages.conversions import make_header, position_to_pose
from dp_ros.ros.messages.gripper_reader import GripperCommandReader
from dp_ros.ros.messages.images import rgb_to_image
from dp_ros.schema import RecorderConfig, TopicMap
from dp_ros.schema.gripper import GripperCommands

TOPICS = {
    "cameras": {"gripperPOV": "/camera/camera/color/image_raw"},
    "ee_pose": "/tool_pose",
    "gripper": "/joint_states",
    "gripper_joint": "finger_joint",
    "gripper_range": [0.0, 0.04],
    "command_pose": "/servo/target_pose",
    "command_gripper": "/gripper/command",
    "command_gripper_joint": "finger_joint",
    "command_gripper_field": "position",
    "command_gripper_range": [0.04, 0.0],
}
COMMANDS = ("/servo/target_pose", "/gripper/command", "/command/ee_pose", "/command/gripper")
NODE = "dp_ros.ros.nodes.policy_node"


@pytest.fixture
def topics_file(tmp_path: Path) -> Path:
    path = tmp_path / "topics.yaml"
    path.write_text(yaml.safe_dump(TOPICS))
    return path


@pytest.fixture
def parameters(make_checkpoint, topics_file: Path) -> dict:
    gate = {"max_obs_age_s": 0.5, "max_skew_s": 0.5, "max_pose_age_s": 0.0}  # a busy machine is no subject
    return {
        "checkpoint": str(make_checkpoint("topics", rate_hz=20.0)),
        "topics_file": str(topics_file),
        "threads": 1,
        "gate": gate,
        "autostart": True,
    }


@pytest.fixture
def robot(client) -> Callable[[], None]:
    """Publishes one sample of everything, under the robot's names; the arm stands still."""
    create = client.node.create_publisher
    pictures = create(Image, TOPICS["cameras"]["gripperPOV"], qos_profile_sensor_data)
    poses = create(PoseStamped, TOPICS["ee_pose"], qos_profile_sensor_data)
    joints = create(JointState, TOPICS["gripper"], 10)
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    due_s = 0.0

    def publish() -> None:
        nonlocal due_s
        if time.monotonic() < due_s:
            return
        due_s, now_ns = time.monotonic() + 0.02, time.time_ns()
        pictures.publish(rgb_to_image(rgb, now_ns, "color_optical"))
        poses.publish(position_to_pose((0.0, 0.6, 0.2), (0.0, 1.0, 0.0, 0.0), now_ns, "arm_base"))
        joints.publish(
            JointState(header=make_header(now_ns), name=["j1", "finger_joint"], position=[3.0, 0.02])
        )

    return publish


def test_in_the_shadow_no_command_can_leave_and_everything_else_is_there(
    client, start_node, robot, parameters, topics_file
) -> None:
    """The arm stands still, and another node commands it: neither is in the shadow's way."""
    rival = client.node.create_publisher(PoseStamped, "/servo/target_pose", 10)
    commands = [
        client.listen(kind, topic)
        for topic, kind in zip(COMMANDS, (PoseStamped, JointState) * 2, strict=True)
    ]
    beats = client.listen(Bool, "policy/heartbeat")
    poses = client.listen(PoseStamped, "policy/shadow/ee_pose")
    grippers = client.listen(JointState, "policy/shadow/gripper")
    verdicts = client.listen(String, "policy/verdict")
    node = start_node(NODE, parameters | {"shadow": True})
    client.watched.append(node)
    client.wait_for(lambda: len(poses) > 60 and grippers, "commands of the shadow", meanwhile=robot)
    ours = [topic for topic in COMMANDS if publishers_of_node(client, topic)]
    assert ours == []
    assert not publishers_of_node(client, "policy/heartbeat")
    assert not any(commands)
    assert not beats
    said = {msg.data for msg in verdicts}
    assert said & {"pass", "limited_speed", "limited_acceleration"}
    assert not said & {"hold_far", "hold_frozen", "hold_other_commander"}
    assert poses[-1].header.frame_id == "arm_base"
    assert "shadow: nothing is commanded" in node.log
    client.node.destroy_publisher(rival)
    node.close()
    assert not any(commands)


def test_a_shadow_that_is_remapped_to_a_command_topic_does_not_start(start_node, parameters) -> None:
    node = start_node(NODE, parameters | {"shadow": True}, "-r", "policy/shadow/ee_pose:=/servo/target_pose")
    assert node.wait() == 1
    assert "shadow: policy/shadow/ee_pose is remapped to /servo/target_pose, a topic of commands" in node.log


def test_commands_go_to_the_robots_topics_in_its_units(client, start_node, robot, parameters) -> None:
    """A compressed camera too: the map's topic says so, whatever `image_transport` is."""
    poses = client.listen(PoseStamped, "/servo/target_pose")
    grippers = client.listen(JointState, "/gripper/command")
    node = start_node(NODE, parameters)
    client.watched.append(node)
    client.wait_for(lambda: poses and grippers, "commands", meanwhile=robot)
    assert list(grippers[-1].name) == ["finger_joint"]
    assert not grippers[-1].effort
    assert 0.0 <= grippers[-1].position[0] <= 0.04
    assert grippers[-1].header.stamp in [msg.header.stamp for msg in poses]
    assert not client.node.count_publishers("/command/ee_pose")


def test_the_map_decides_whether_pictures_are_compressed(
    client, start_node, robot, parameters, topics_file: Path
) -> None:
    topics_file.write_text(
        yaml.safe_dump(TOPICS | {"cameras": {"gripperPOV": "/camera/camera/color/image_raw/compressed"}})
    )
    client.watched.append(start_node(NODE, parameters))
    topic = "/camera/camera/color/image_raw/compressed"
    infos = client.wait_for(lambda: client.node.get_subscriptions_info_by_topic(topic), "its subscription")
    assert [info.topic_type for info in infos] == [f"sensor_msgs/msg/{CompressedImage.__name__}"]


def publishers_of_node(client, topic: str) -> list[str]:
    infos = client.node.get_publishers_info_by_topic(topic)
    return [info.node_name for info in infos if info.node_name == "policy_node"]


def test_the_recorder_asks_for_the_robots_topics() -> None:
    topics = TopicMap.model_validate(TOPICS)
    required = required_topics(RecorderConfig(), topics)
    assert required == ["/camera/camera/color/image_raw", "/tool_pose", "/joint_states"]
    wanted = wanted_topics(RecorderConfig(topics=("tf",)), topics)
    assert {"/camera/camera/color/camera_info", "/servo/target_pose", "/gripper/command", "tf"} <= set(wanted)
    assert not {"ee_pose", "gripper/state", "command/ee_pose", "command/gripper"} & set(wanted)
    compressed = RecorderConfig(image_transport="compressed")
    assert required_topics(compressed, topics)[0] == "/camera/camera/color/image_raw/compressed"
    assert required_topics(RecorderConfig(), TopicMap()) == [
        "camera/gripperPOV/image_raw",
        "ee_pose",
        "gripper/state",
    ]
    assert required_topics(RecorderConfig(cameras=("left",)), topics)[0] == "camera/left/image_raw"


@pytest.mark.parametrize(("value", "width_m"), [(-1.0, 0.04), (0.0, 0.02), (1.0, 0.0)])
def test_gripper_commands_survive_the_way_to_the_robot_and_back(value: float, width_m: float) -> None:
    topics = TopicMap.model_validate(TOPICS)
    message = gripper_to_joint_state(value, 7, topics.gripper_of(GripperCommands(), ""))
    assert (list(message.name), list(message.effort)) == (["finger_joint"], [])
    assert list(message.position) == pytest.approx([width_m])
    reader = GripperCommandReader("finger_joint", "position", (0.04, 0.0))
    assert reader.read(message) == pytest.approx(value)
    ours = gripper_to_joint_state(value, 7, GripperCommands())
    assert (list(ours.name), list(ours.effort), list(ours.position)) == (["gripper"], [value], [])
