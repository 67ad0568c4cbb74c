"""`dp_ros doctor --checkpoint` beside a small stand-in robot over DDS."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from dp_ros.cli import main

ROBOT = """
import json, sys, threading
import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from dp_ros.ros.messages import conversions, images

given = json.loads(sys.argv[1])
rclpy.init()
node = Node("stand_in")
pictures = node.create_publisher(Image, "camera/gripperPOV/image_raw", qos_profile_sensor_data)
poses = node.create_publisher(PoseStamped, "ee_pose", qos_profile_sensor_data)
grippers = node.create_publisher(JointState, "gripper/state", qos_profile_sensor_data)
now_ns = lambda: node.get_clock().now().nanoseconds
stamp_ns = lambda: now_ns() - round(given.get("late_s", 0.0) * 1e9)
picture = np.random.default_rng(0).integers(0, 256, (*given.get("size", [64, 64]), 3), dtype=np.uint8)
position, commands = np.array([0.0, 0.6, 0.2]), []

def on_command(msg):
    due_ns = conversions.stamp_to_ns(msg.header.stamp) + round(given.get("delay_s", 0.0) * 1e9)
    commands.append((due_ns, conversions.pose_to_position(msg)))
    if len(commands) == 1:
        print("commanded", flush=True)

def look():
    pictures.publish(images.rgb_to_image(picture, stamp_ns(), "wrist"))
    grippers.publish(conversions.gripper_state(1.0, stamp_ns()))

def move():
    for due_ns, wanted in commands:
        if due_ns <= now_ns():
            position[:] = wanted
    pose = [*position * given.get("scale", 1.0), 0.0, 1.0, 0.0, 0.0]
    poses.publish(conversions.vector_to_pose(pose, stamp_ns(), "base_link"))

node.create_subscription(PoseStamped, "command/ee_pose", on_command, 10)
node.create_subscription(JointState, "command/gripper", lambda msg: None, 10)
if given.get("rival"):
    other = Node("rival")
    other.create_publisher(PoseStamped, "command/ee_pose", 10)
node.create_timer(0.04, look)
node.create_timer(0.01, move)
threading.Thread(target=lambda: (sys.stdin.read(), rclpy.try_shutdown()), daemon=True).start()
print("ready", flush=True)
try:
    rclpy.spin(node)
except Exception:
    pass
"""
Doctor = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def doctor(push_checkpoint: Path, ros_environment, tmp_path: Path, monkeypatch, capsys) -> Doctor:
    """doctor(*options, answers="") -> (exit code, its lines), in the test's domain."""
    for name, value in ros_environment.items():
        if name.startswith(("ROS_", "FAST", "AMENT")):
            monkeypatch.setenv(name, value)
    params = tmp_path / "robot.yaml"
    # A busy machine may be late: ages are not the subject.
    box = {"workspace_low_m": [-0.3, 0.4, 0.0], "workspace_high_m": [0.3, 0.9, 0.4], "max_obs_age_s": 2.0}
    params.write_text(yaml.safe_dump({"/**/policy_node": {"ros__parameters": {"gate": box}}}))

    def run(*options: object, answers: str = "") -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
        capsys.readouterr()
        command = ("doctor", "--checkpoint", push_checkpoint, "--params", params, *options)
        code = main([str(each) for each in command])
        written = capsys.readouterr()
        assert "Traceback" not in written.err
        return code, [*written.out.splitlines(), *written.err.splitlines()]

    return run


@pytest.fixture
def robot(tmp_path: Path, start_peer):
    """robot(**options) -> the stand-in robot, once it publishes."""

    def start(**given: object):
        script = tmp_path / "stand_in.py"
        script.write_text(ROBOT)
        peer = start_peer(script, json.dumps(given))
        peer.expect("ready")
        return peer

    return start


def test_a_robot_that_fits_passes_and_its_delay_is_measured_after_two_answers(
    robot, doctor: Doctor, tmp_path: Path
) -> None:
    peer = robot(delay_s=0.3)
    code, lines = doctor("--seconds", 3, "--measure-delay", answers="y\nn\n")
    assert (code, lines[-1]) == (1, "dp_ros: the arm was not moved"), "\n".join(lines)
    code, lines = doctor("--seconds", 3, "--measure-delay", "--json", tmp_path / "out.json", answers="y\ny\n")
    assert code == 0, "\n".join(lines)
    peer.expect("commanded")
    assert not [line for line in lines if line.startswith("ERROR")]
    (delay,) = (line for line in lines if "command delay" in line)
    found = re.search(r"follows (\d+) ms after", delay)
    assert found is not None
    assert 270 <= int(found[1]) <= 1500  # the stand-in's delay; more where the machine is busy
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["passed"] is True
    assert {"level", "where", "what", "remedy"} == set(written["findings"][0])


def test_each_fault_of_a_robot_is_named_in_one_line(robot, doctor: Doctor, tmp_path: Path) -> None:
    robot(scale=1000.0, size=[48, 64], late_s=3.0, rival=True)
    code, lines = doctor("--seconds", 3, "--measure-delay", answers="y\ny\n")
    assert code == 1
    errors = "\n".join(line for line in lines if line.startswith("ERROR"))
    assert "in millimetres" in errors
    assert "64x48 px, aspect 4:3" in errors
    assert re.search(r"stamped 3\.\d", errors)  # 3.0 s, and what a busy machine adds
    assert "behind this machine's" in errors
    assert "rival publishes it, too" in errors
    assert "command delay: not measured, because of the errors above" in errors
