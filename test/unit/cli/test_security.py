"""`dp_ros security`: who may command the arm, and that the file is one of `ros2 security`."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from dp_ros.cli import main
from dp_ros.cli.errors import USAGE

COMMANDS = {"command/ee_pose", "command/gripper", "command/twist"}


def written(path: Path, *options: str) -> dict[str, dict[str, set[str]]]:
    """Enclave -> role -> names, of the file that the command writes."""
    assert main(["security", str(path), *options]) == 0
    root = ElementTree.parse(path).getroot()
    assert (root.tag, root.attrib) == ("policy", {"version": "0.2.0"})
    found = {}
    for enclave in root.iter("enclave"):
        roles: dict[str, set[str]] = {}
        for listed in enclave.findall("profiles/profile/*"):
            ((role, allowed),) = listed.attrib.items()
            assert allowed == "ALLOW"
            roles[role] = {str(each.text) for each in listed}
        found[enclave.attrib["path"]] = roles
    return found


def test_only_policy_watchdog_and_teleoperation_publish_commands(tmp_path: Path) -> None:
    found = written(tmp_path / "policy.xml")
    commanders = {path for path, roles in found.items() if COMMANDS & roles["publish"]}
    assert commanders == {"/dp_ros/policy_node", "/dp_ros/policy_watchdog", "/dp_ros/teleop_node"}
    assert found["/dp_ros/policy_watchdog"]["publish"] >= COMMANDS
    assert not [path for path, roles in found.items() if any("*" in name for name in roles["publish"])]
    assert found["/dp_ros/robot"]["subscribe"] >= COMMANDS
    pictures = {"camera/gripperPOV/image_raw", "camera/behindGripper/image_raw"}
    assert found["/dp_ros/policy_node"]["subscribe"] >= pictures
    assert {path for path, roles in found.items() if "emergency_stop" in roles["publish"]} == {
        "/dp_ros/people"
    }
    assert {path for path, roles in found.items() if "request" in roles} == {"/dp_ros/people"}


def test_topics_and_namespace_are_the_robots(tmp_path: Path) -> None:
    topics = tmp_path / "topics.yaml"
    topics.write_text("command_pose: /servo/target_pose\ncameras: {gripperPOV: /realsense/color/image_raw}\n")
    found = written(tmp_path / "policy.xml", "--topics-file", str(topics), "--namespace", "/left")
    node = found["/dp_ros/left/policy_node"]
    assert "/servo/target_pose" in node["publish"]
    assert "command/ee_pose" not in node["publish"]
    assert "/realsense/color/image_raw" in node["subscribe"]


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "policy.xml"
    taken.write_text("mine")
    assert main(["security", str(taken)]) == USAGE
    assert "exists: choose another file" in capsys.readouterr().err
    assert taken.read_text() == "mine"
