"""Bridge and policy on the simulated clock: neither waits for the other."""

import itertools
import json

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from std_msgs.msg import String
from std_srvs.srv import Trigger

from dp_ros.control.safety import Command
from dp_ros.ros.messages import conversions

pytestmark = pytest.mark.sim


def test_the_policy_moves_the_arm_in_real_time_and_the_arm_stops_when_the_policy_dies(
    start_node, client, push_checkpoint
):
    robot = {
        "task": "tiny-push",
        "cameras": ["gripperPOV"],
        "width_px": 64,
        "height_px": 64,
        "mode": "realtime",
        "max_steps": 120,
        "autostart": True,
    }
    served = {"checkpoint": str(push_checkpoint), "mode": "realtime", "use_sim_time": True, "threads": 1}
    bridge = start_node("dp_ros.ros.nodes.metaworld_bridge", robot)
    policy = start_node("dp_ros.ros.nodes.policy_node", {**served, "autostart": True})
    client.watched = [bridge, policy]
    verdicts = client.listen(String, "policy/verdict")
    results = client.listen(String, "episode/result")
    poses = client.listen(PoseStamped, "ee_pose", best_effort=True)
    client.wait_for(lambda: verdicts, "the policy decides", 60.0)
    assert client.call(Trigger, "episode/reset", Trigger.Request()).success
    verdicts.clear()
    poses.clear()
    client.wait_for(lambda: sum(not msg.data.startswith("hold") for msg in verdicts) > 20, "the arm moves")
    assert np.ptp(positions(poses), axis=0).max() > 0.02
    policy.process.kill()
    client.watched = [bridge]
    client.wait_for(lambda: results, "the end of the episode")
    assert np.ptp(positions(poses)[-20:], axis=0).max() < 0.001
    assert json.loads(results[-1].data)["steps"] <= 120


def positions(poses) -> np.ndarray:
    return np.array([(m.pose.position.x, m.pose.position.y, m.pose.position.z) for m in poses])


def test_the_end_of_a_recorded_episode_resets_the_scene(start_node, client):
    """Success does not: the person says when an episode is over, and no jump in time is part of it."""
    from std_msgs.msg import Int64

    from dp_ros.ros.node import qos

    robot = {
        "task": "tiny-push",
        "cameras": ["gripperPOV"],
        "width_px": 32,
        "height_px": 32,
        "mode": "realtime",
        "max_steps": 100_000,
        "keep_steps": 100_000,
        "follow_recorder": True,
        "expert": True,
        "autostart": True,
    }
    client.watched = [start_node("dp_ros.ros.nodes.metaworld_bridge", robot)]
    words = client.node.create_publisher(String, "record/command", qos.RELIABLE)
    seeds = client.listen(Int64, "episode/seed")
    results = client.listen(String, "episode/result")
    poses = client.listen(PoseStamped, "ee_pose", best_effort=True)
    client.wait_for(words.get_subscription_count, "the bridge listens")
    assert client.call(Trigger, "episode/reset", Trigger.Request()).success
    client.wait_for(lambda: len(poses) > 60, "an episode of 50 ticks and more")  # the expert needs 25
    words.publish(String(data="start"))
    client.wait_for(lambda: len(poses) > 70, "more of it")
    assert [msg.data for msg in seeds] == [0]
    for i, word in enumerate(("success", "failure", "discard")):
        words.publish(String(data=word))
        client.wait_for(lambda i=i: len(seeds) == i + 2 and len(results) == i + 1, "the next scene")
        assert json.loads(results[i].data)["seed"] == i
    assert [json.loads(msg.data)["success"] for msg in results] == [True, False, False]


def test_without_a_command_the_arm_rests_with_its_gripper_open(start_node, client):
    """Commands that are not finite are none; the gripper was half-closed before the first command."""
    from sensor_msgs.msg import JointState

    from dp_ros.ros.messages.commands import command_to_messages
    from dp_ros.ros.node import qos

    robot = {
        "task": "tiny-push",
        "cameras": ["gripperPOV"],
        "width_px": 16,
        "height_px": 16,
        "mode": "realtime",
        "max_steps": 30,
        "autostart": True,
    }
    client.watched = [start_node("dp_ros.ros.nodes.metaworld_bridge", robot)]
    pose = client.node.create_publisher(PoseStamped, "command/ee_pose", qos.RELIABLE)
    gripper = client.node.create_publisher(JointState, "command/gripper", qos.RELIABLE)
    openings = client.listen(JointState, "gripper/state", best_effort=True)
    poses = client.listen(PoseStamped, "ee_pose", best_effort=True)
    results = client.listen(String, "episode/result")
    client.wait_for(lambda: pose.get_subscription_count() and gripper.get_subscription_count(), "the bridge")
    assert client.call(Trigger, "episode/reset", Trigger.Request()).success
    poses.clear()
    client.wait_for(lambda: len(poses) > 4, "the episode runs")
    cases = itertools.product((float("nan"), float("inf")), (0, 1))
    for (bad, half), seen in zip(
        cases, poses[-4:], strict=True
    ):  # a stamp each: halves of one stamp are paired
        stamp_ns = conversions.stamp_to_ns(seen.header.stamp)
        command = Command(stamp_ns, np.array([0.0, 0.6, 0.1]), 1.0, np.array([0, 1.0, 0, 0]))
        messages = command_to_messages(command, "base_link")
        if half == 0:
            messages[0].pose.position.y = bad
        else:
            messages[1].effort = [bad]
        pose.publish(messages[0])
        gripper.publish(messages[1])
    client.wait_for(lambda: results, "the end of the episode")
    assert json.loads(results[-1].data)["steps"] == 30
    stamps_ns = np.array([conversions.stamp_to_ns(msg.header.stamp) for msg in poses])
    episode = poses[
        int(np.flatnonzero(np.diff(stamps_ns, prepend=0) > 1e9)[-1]) :
    ]  # poses before the reset may be late
    assert len(episode) >= 25
    assert np.ptp(positions(episode), axis=0).max() < 1e-6
    assert {msg.position[0] for msg in openings} == {1.0}


@pytest.mark.parametrize("mode", ["realtime", "lockstep"])
def test_a_bridge_that_cannot_draw_ends_with_the_variable_that_keeps_it_from_it(
    start_node, monkeypatch, mode
):
    monkeypatch.setenv("MUJOCO_GL", "elg")
    robot = {"task": "tiny-push", "cameras": ["gripperPOV"], "mode": mode, "autostart": True}
    bridge = start_node("dp_ros.ros.nodes.metaworld_bridge", robot)
    assert bridge.wait() == 1
    assert bridge.log.splitlines() == [
        "metaworld_bridge: MUJOCO_GL=elg is not a backend: unset it, or set egl or osmesa"
    ]
