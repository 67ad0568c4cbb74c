"""Bridge and policy on the simulated clock: neither waits for the other."""

import itertools
import json
import re
import signal
import time

import numpy as np
import psutil
import pytest
from geometry_msgs.msg import PoseStamped
from std_msgs.msg import String
from std_srvs.srv import Trigger

from dp_ros.control.safety import Command
from dp_ros.ros.messages import conversions

pytestmark = pytest.mark.sim


def tiny_robot(pixels: int, **changes) -> dict:
    """Parameters of a bridge that runs the tiny arm in real time."""
    return {
        "task": "tiny-push",
        "cameras": ["gripperPOV"],
        "width_px": pixels,
        "height_px": pixels,
        "mode": "realtime",
        "autostart": True,
        **changes,
    }


def test_the_policy_moves_the_arm_in_real_time_and_the_arm_stops_when_the_policy_dies(
    start_node, client, push_checkpoint
):
    robot = tiny_robot(64, max_steps=300)  # on a busy machine the arm moves late
    served = {"checkpoint": str(push_checkpoint), "mode": "realtime", "use_sim_time": True, "threads": 1}
    served["gate"] = {"max_speed_m_s": 0.2}  # as fast as this arm is: its policy was not trained
    bridge = start_node("dp_ros.ros.nodes.metaworld_bridge", robot)
    policy = start_node("dp_ros.ros.nodes.policy_node", {**served, "autostart": True})
    client.watched = [bridge, policy]
    verdicts = client.listen(String, "policy/verdict")
    results = client.listen(String, "episode/result")
    poses = client.listen(PoseStamped, "ee_pose", best_effort=True)
    client.wait_for(lambda: verdicts, "the policy decides")
    assert client.call(Trigger, "episode/reset", Trigger.Request()).success
    verdicts.clear()
    poses.clear()
    client.wait_for(lambda: sum(not msg.data.startswith("hold") for msg in verdicts) > 20, "the arm moves")
    assert np.ptp(positions(poses), axis=0).max() > 0.02
    policy.process.kill()
    client.watched = [bridge]
    client.wait_for(lambda: results, "the end of the episode")
    assert np.ptp(positions(poses)[-20:], axis=0).max() < 0.001
    assert json.loads(results[-1].data)["steps"] <= 300


def positions(poses) -> np.ndarray:
    return np.array([(m.pose.position.x, m.pose.position.y, m.pose.position.z) for m in poses])


def test_the_end_of_a_recorded_episode_resets_the_scene(start_node, client):
    """Success does not: the person says when an episode is over, and no jump in time is part of it."""
    from std_msgs.msg import Int64

    from dp_ros.ros.node import qos

    robot = tiny_robot(32, max_steps=100_000, keep_steps=100_000, follow_recorder=True, expert=True)
    client.watched = [start_node("dp_ros.ros.nodes.metaworld_bridge", robot)]
    words = client.node.create_publisher(String, "record/command", qos.RELIABLE)
    seeds = client.listen(Int64, "episode/seed", latched=True)
    results = client.listen(String, "episode/result")
    poses = client.listen(PoseStamped, "ee_pose", best_effort=True)
    client.wait_for(words.get_subscription_count, "the bridge listens")
    assert client.call(Trigger, "episode/reset", Trigger.Request()).success
    client.take_all()
    poses.clear()
    client.wait_for(lambda: len(poses) > 60, "an episode of 50 ticks and more")  # the expert needs 25
    words.publish(String(data="start"))
    client.wait_for(lambda: len(poses) > 70, "more of it")
    assert [msg.data for msg in seeds] == [0]
    for i, word in enumerate(("success", "failure", "discard")):
        words.publish(String(data=word))
        client.wait_for(lambda i=i: len(seeds) == i + 2 and len(results) == i + 1, "the next scene")
        assert json.loads(results[i].data)["seed"] == i
    first, *others = (json.loads(msg.data) for msg in results)
    assert first["success"]
    # A starved test lets the expert succeed in the others, too.
    assert not any(other["success"] for other in others if other["steps"] < 20)


def test_without_a_command_the_arm_rests_with_its_gripper_open(start_node, client):
    """Commands that are not finite are none; the gripper was half-closed before the first command."""
    from sensor_msgs.msg import JointState

    from dp_ros.ros.messages.commands import command_to_messages
    from dp_ros.ros.node import qos

    robot = tiny_robot(16, max_steps=30)
    client.watched = [start_node("dp_ros.ros.nodes.metaworld_bridge", robot)]
    pose = client.node.create_publisher(PoseStamped, "command/ee_pose", qos.RELIABLE)
    gripper = client.node.create_publisher(JointState, "command/gripper", qos.RELIABLE)
    openings = client.listen(JointState, "gripper/state", best_effort=True)
    poses = client.listen(PoseStamped, "ee_pose", best_effort=True)
    results = client.listen(String, "episode/result")
    client.wait_for(lambda: pose.get_subscription_count() and gripper.get_subscription_count(), "the bridge")
    client.wait_for(lambda: poses, "the arm before the episode")

    def episode() -> list:
        """The poses since the reset, which is a leap of time."""
        stamps_ns = [conversions.stamp_to_ns(msg.header.stamp) for msg in poses]
        leaps = np.flatnonzero(np.diff(stamps_ns) > 1e9)
        return poses[leaps[-1] + 1 :] if len(leaps) else []

    assert client.call(Trigger, "episode/reset", Trigger.Request()).success
    client.wait_for(lambda: len(episode()) > 4, "the episode runs")
    cases = itertools.product((float("nan"), float("inf")), (0, 1))
    for (bad, half), seen in zip(
        cases, episode()[-4:], strict=True
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
    client.take_all()
    assert len(episode()) >= 25
    assert np.ptp(positions(episode()), axis=0).max() < 1e-6
    assert {msg.position[0] for msg in openings} == {1.0}


def test_a_command_moves_the_arm_after_its_latency_to_the_tick(start_node, client):
    """However soon the command came, so that a policy which knows the latency knows what each picture shows."""
    from sensor_msgs.msg import JointState

    from dp_ros.ros.messages.commands import command_to_messages
    from dp_ros.ros.node import qos

    delay_ns = 2_000_000_000  # far longer than a command is on its way, also on a busy machine
    robot = tiny_robot(16, max_steps=10_000, command_delay_s=delay_ns / 1e9)
    client.watched = [start_node("dp_ros.ros.nodes.metaworld_bridge", robot)]
    pose = client.node.create_publisher(PoseStamped, "command/ee_pose", qos.RELIABLE)
    gripper = client.node.create_publisher(JointState, "command/gripper", qos.RELIABLE)
    poses = client.listen(PoseStamped, "ee_pose", best_effort=True)
    client.wait_for(lambda: pose.get_subscription_count() and gripper.get_subscription_count(), "the bridge")
    assert client.call(Trigger, "episode/reset", Trigger.Request()).success
    client.take_all()
    poses.clear()
    client.wait_for(lambda: len(poses) > 20, "the episode runs, and the arm rests")
    client.take_all()
    seen = poses[-1]
    at_rest = positions(poses)[-1]
    sent_ns = conversions.stamp_to_ns(seen.header.stamp)
    command = Command(sent_ns, at_rest + np.array([0.0, 0.0, 0.05]), 1.0, np.array([0, 1.0, 0, 0]))
    for publisher, message in zip((pose, gripper), command_to_messages(command, "base_link"), strict=True):
        publisher.publish(message)
    client.wait_for(lambda: abs(positions(poses)[-1] - at_rest).max() > 1e-3, "the arm moves")
    stamps_ns = np.array([conversions.stamp_to_ns(msg.header.stamp) for msg in poses])
    moved_ns = stamps_ns[np.abs(positions(poses) - at_rest).max(axis=1) > 1e-5][0]
    tick_ns = np.diff(stamps_ns).min()
    assert delay_ns < moved_ns - sent_ns <= delay_ns + 2 * tick_ns


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


def diagnostics(client) -> list:
    """Levels, messages and values of the bridge as they come: (bytes, str, dict)."""
    from diagnostic_msgs.msg import DiagnosticArray

    heard = []

    def on_array(msg) -> None:
        for status in msg.status:
            if status.name.endswith("metaworld_bridge"):
                heard.append((status.level, status.message, {v.key: v.value for v in status.values}))

    client.node.create_subscription(DiagnosticArray, "/diagnostics", on_array, 10)
    return heard


def test_spectator_that_dies_costs_a_warning_and_not_the_clock(start_node, client):
    """The pictures come from a process of the bridge, and bear the stamp of their state."""
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    robot = tiny_robot(32, max_steps=100_000, spectator="auto")
    bridge = start_node("dp_ros.ros.nodes.metaworld_bridge", robot)
    client.watched = [bridge]
    heard = diagnostics(client)
    poses = client.listen(PoseStamped, "ee_pose", best_effort=True)
    assert client.call(Trigger, "episode/reset", Trigger.Request()).success
    (painter,) = psutil.Process(bridge.process.pid).children()
    measured = {"realtime_factor", "physics [ms]", "the picture of gripperPOV [ms]"}
    client.wait_for(lambda: heard and heard[-1][2].keys() >= measured, "a measured factor, and its costs")
    pictures = []
    client.node.create_subscription(
        Image, "camera/spectator/image_raw", pictures.append, qos_profile_sensor_data
    )
    client.wait_for(lambda: len(pictures) >= 3, "pictures of the spectator")
    assert {(msg.height, msg.width, msg.encoding) for msg in pictures} == {(480, 480, "rgb8")}
    tick_ns = conversions.stamp_to_ns(poses[0].header.stamp)
    drawn = [conversions.stamp_to_ns(msg.header.stamp) for msg in pictures]
    assert drawn == sorted(set(drawn))
    assert all(stamp_ns > 0 and (stamp_ns - tick_ns) % 50_000_000 == 0 for stamp_ns in drawn)
    painter.kill()
    client.wait_for(lambda: "no pictures of the spectator" in heard[-1][1], "the warning")
    assert heard[-1][0] == b"\x01"
    count = len(poses)
    client.wait_for(lambda: len(poses) > count + 20, "the clock goes on")
    assert bridge.process.poll() is None


def test_bridge_that_is_too_slow_says_by_how_much_and_why_until_it_keeps_up_again(start_node, client):
    """It is stopped for two seconds, of which it makes up for a quarter of a second."""
    robot = {
        "task": "tiny-push",
        "cameras": ["gripperPOV", "corner"],
        "width_px": 32,
        "height_px": 32,
        "mode": "realtime",
        "autostart": True,
    }
    bridge = start_node("dp_ros.ros.nodes.metaworld_bridge", robot)
    client.watched = [bridge]
    heard = diagnostics(client)
    client.wait_for(lambda: heard and heard[-1][:2] == (b"\0", "idle"), "a bridge that keeps up")
    bridge.process.send_signal(signal.SIGSTOP)
    resume_s = time.monotonic() + 2.0
    client.wait_for(lambda: time.monotonic() > resume_s, "two seconds")
    bridge.process.send_signal(signal.SIGCONT)
    slow = re.compile(r"real-time factor (0\.\d\d): a tick is 50\.0 ms; most of it goes to (.+), \d+\.\d ms")
    client.wait_for(lambda: slow.fullmatch(heard[-1][1]), "the warning")
    level, message, values = heard[-1]
    assert level == b"\x01"
    factor, part = slow.fullmatch(message).groups()
    assert part == "waiting for the processor"
    assert float(values["realtime_factor"]) == pytest.approx(float(factor), abs=0.01)
    assert float(factor) < 0.95
    assert values.keys() >= {f"the picture of {camera} [ms]" for camera in robot["cameras"]}
    client.wait_for(lambda: heard[-1][:2] == (b"\0", "idle"), "it keeps up again")
    assert float(heard[-1][2]["realtime_factor"]) >= 0.95
    client.wait_for(lambda: "in real time again" in bridge.log, "a line in the log")
    assert slow.search(bridge.log)


def test_an_evaluation_in_real_time_says_what_share_it_reached_and_held(push_checkpoint, ros_domain):
    from dp_ros.ros.processes.session import evaluate
    from dp_ros.schema import RuntimeConfig

    pictures = {}
    report = evaluate(
        push_checkpoint,
        "tiny-push",
        [0, 1],
        max_steps=200,  # ten seconds: a busy machine has little time for the spectator
        runtime=RuntimeConfig(threads=1, engine="torch"),
        on_episode=lambda result: None,
        on_video=lambda result, film: pictures.update({result.seed: film}),
        domain_id=ros_domain,
        mode="realtime",
    )
    assert [result.seed for result in report.results] == [0, 1]
    data = report.as_dict()
    assert 0.05 < data["realtime_factor"] < 1.1
    assert 0.0 <= data["held_share"] < 1.0
    assert all(0 <= result.first_move < result.steps for result in report.results)  # it moves
    longest = max(report.results, key=lambda result: result.steps)
    assert len(pictures[longest.seed]) > 2
    assert pictures.keys() == {0, 1}
    assert all(picture.shape == (480, 720, 3) for film in pictures.values() for picture in film)
