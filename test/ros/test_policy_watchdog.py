"""The watchdog over DDS: policies that die, hang, come back and end, with real processes and real signals."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from dp_ros.ros.messages.conversions import (
    effort_to_joint_state,
    pose_to_position,
    position_to_pose,
    stamp_to_ns,
)
from dp_ros.ros.node.qos import LATCHED
from test.ros.test_policy_node import Robot, checkpoint, parameters  # noqa: F401

WATCHDOG = "dp_ros.ros.nodes.policy_watchdog"
DOWN = (0.0, 1.0, 0.0, 0.0)
HELD_M = np.array([0.1, 0.6, 0.2])
TIMEOUT_S = 1.0
TWISTED = "command/twist of 0 is published"


class Watched:
    """A policy of this process: it beats and commands while a test waits, unless it is `silent`."""

    def __init__(self, client):
        self.client, node = client, client.node
        self._heart = node.create_publisher(Bool, "policy/heartbeat", 10)
        self._command = node.create_publisher(PoseStamped, "command/ee_pose", 10)
        self._gripper = node.create_publisher(JointState, "command/gripper", 10)
        self._measured = node.create_publisher(PoseStamped, "ee_pose", 10)
        self.heard = client.listen(PoseStamped, "command/ee_pose")
        self.grippers = client.listen(JointState, "command/gripper")
        self.twists = client.listen(TwistStamped, "command/twist")
        self.status: list[str] = []
        # Deep: of two that come at once, each is heard.
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(String, "watchdog/status", lambda msg: self.status.append(msg.data), latched)
        self.measured_m, self.orientation = HELD_M, DOWN
        self.silent = self.quiet = self.is_lost = False
        self.is_active = True

    def live(self) -> None:
        now_ns = time.time_ns()
        if not self.is_lost:
            self._measured.publish(position_to_pose(self.measured_m, self.orientation, now_ns, "base"))
        if self.silent:
            return
        self._heart.publish(Bool(data=self.is_active))
        if not self.quiet:
            self._command.publish(position_to_pose(HELD_M, DOWN, now_ns, "base"))
            self._gripper.publish(effort_to_joint_state(0.5, now_ns))

    def wait_for(self, done, what: str):
        return self.client.wait_for(done, what, meanwhile=self.live)

    def wait_for_status(self, begin: str) -> str:
        self.wait_for(lambda: self.status and self.status[-1].startswith(begin), begin)
        return self.status[-1]

    def is_alone(self) -> bool:
        """Whether the watchdog has no publisher of commands."""
        return self.client.node.count_publishers("command/ee_pose") == 1

    def release(self) -> tuple[bool, str]:
        answer = self.client.call(Trigger, "watchdog/release", Trigger.Request(), self.live)
        return answer.success, answer.message


@pytest.fixture
def watched(client):
    return Watched(client)


@pytest.fixture
def start_watchdog(start_node, client):
    def start(**changes):
        # A busy machine may keep this process from its messages for long.
        node = start_node(WATCHDOG, {"timeout_s": TIMEOUT_S, "max_pose_age_s": 20.0, **changes})
        client.watched.append(node)
        return node

    return start


def test_it_repeats_the_last_command_until_it_is_released(watched, start_watchdog):
    node = start_watchdog()
    watched.wait_for_status("watching")
    watched.wait_for(lambda: watched.heard and watched.grippers, "commands")
    assert watched.is_alone()
    watched.silent = True
    began_ns = time.time_ns()
    status = watched.wait_for_status("holding")
    assert status.startswith("holding: the policy is dead or hangs: no heartbeat for ")
    assert "its last command is repeated" in status

    def repeated(heard) -> list:
        return [msg for msg in heard if stamp_to_ns(msg.header.stamp) > began_ns]

    watched.wait_for(lambda: min(map(len, map(repeated, (watched.heard, watched.grippers)))) > 5, "commands")
    for msg in repeated(watched.heard):
        np.testing.assert_allclose(pose_to_position(msg), HELD_M)
        assert msg.pose.orientation.y == 1.0
        assert msg.header.frame_id == "base"
    assert {msg.effort[0] for msg in repeated(watched.grippers)} == {0.5}
    assert watched.client.forbidden("policy_watchdog") == []  # also while it commands
    assert watched.release() == (
        False,
        "the policy has no heartbeat: start and activate it first, or end the watchdog",
    )

    watched.silent, watched.quiet = False, True  # it is back, and hears that another node commands
    watched.wait_for(lambda: watched.release()[0], "the release")
    watched.wait_for_status("watching: handed back to the policy: watchdog/release was called")
    watched.wait_for(watched.is_alone, "its publisher is gone")
    assert "no heartbeat for" in node.log
    watched.wait_for(lambda: "handed back" in node.log, "its log")


def test_it_publishes_a_twist_of_zero_and_hands_back_by_itself_when_told_so(watched, start_watchdog):
    start_watchdog(action="twist", recovery="automatic", recover_s=1.0)
    watched.wait_for_status("watching")
    assert watched.twists == []
    watched.silent = True
    assert TWISTED in watched.wait_for_status("holding")
    watched.wait_for(lambda: len(watched.twists) > 5, "its twists")
    assert all(
        (v.x, v.y, v.z) == (0.0, 0.0, 0.0) for t in watched.twists for v in (t.twist.linear, t.twist.angular)
    )
    assert watched.is_alone()  # no command of a position
    watched.silent = False
    watched.wait_for_status("watching: handed back to the policy: the heartbeat is back for 1 s")
    count = len(watched.twists)
    watched.silent = True
    watched.wait_for(lambda: len(watched.twists) > count + 5, "it takes over again")


def test_a_policy_that_was_silent_or_ended_is_not_spoken_for(watched, start_watchdog):
    start_watchdog(max_command_age_s=0.2)
    watched.wait_for_status("watching")
    watched.is_active = False
    watched.wait_for_status("waiting: the policy is inactive")
    watched.silent = True
    deadline_s = time.monotonic() + 2 * TIMEOUT_S
    watched.wait_for(lambda: time.monotonic() > deadline_s, "twice the timeout")
    assert watched.status[-1].startswith("waiting")

    watched.silent, watched.is_active = False, True
    watched.wait_for_status("watching")
    watched.quiet = True  # it lives, but has a reason to give no command
    deadline_s = time.monotonic() + 2.0  # a busy watchdog may hear the last command late
    watched.wait_for(lambda: time.monotonic() > deadline_s, "max_command_age_s")
    watched.silent = True
    assert "nothing is commanded, because its last command came" in watched.wait_for_status("holding")
    assert watched.is_alone()


@pytest.mark.parametrize("is_policy", [True, False])
def test_a_policy_that_died_before_is_no_other_commander(watched, start_watchdog, client, is_policy):
    """The middleware knows a killed process for 20 s: the next policy's death must not wait for that."""
    other = Node("another", context=client.context)
    other.create_publisher(PoseStamped, "command/ee_pose", 10)
    if is_policy:
        other.create_publisher(Bool, "policy/heartbeat", 10)
    start_watchdog()
    watched.wait_for_status("watching")
    watched.silent = True
    status = watched.wait_for_status("holding: the policy is dead")
    assert ("its last command is repeated" in status) is is_policy
    assert ("another node publishes command/ee_pose, too" in status) is not is_policy
    other.destroy_node()


@pytest.mark.parametrize("fault", ["elsewhere", "turned"])
def test_a_robot_that_is_measured_elsewhere_or_turned_hears_nothing_more(watched, start_watchdog, fault):
    start_watchdog(max_distance_m=0.1)
    watched.wait_for_status("watching")
    watched.silent = True
    watched.wait_for_status("holding: the policy is dead")
    watched.wait_for(lambda: not watched.is_alone(), "its publisher")
    if fault == "elsewhere":
        watched.measured_m = HELD_M + np.array((0.0, 0.0, 0.3))  # restarted at home
    else:
        watched.orientation = (1.0, 0.0, 0.0, 0.0)
    status = watched.wait_for_status("holding: nothing is commanded any more")
    said = {"elsewhere": "0.300 m from the last command", "turned": "3.14 rad from the commanded orientation"}
    assert f"measured {said[fault]}" in status
    watched.wait_for(watched.is_alone, "its publisher is gone")


def test_a_robot_that_is_not_measured_hears_nothing_more(watched, start_watchdog):
    start_watchdog(max_pose_age_s=0.3)
    watched.wait_for_status("watching")
    watched.silent = watched.is_lost = True
    watched.wait_for_status("holding: the policy is dead")
    status = watched.wait_for_status("holding: nothing is commanded any more")
    unknown_s = re.search(r"no pose of the arm for ([0-9.]+) s, more than max_pose_age_s 0\.3$", status)
    assert float(unknown_s[1]) >= 0.3
    watched.wait_for(watched.is_alone, "its publisher is gone")


def signalled(process: subprocess.Popen, number: int) -> int:
    """Send a signal that stops or kills, and wait until it has; the time before it [ns]."""
    began_ns = time.time_ns()
    process.send_signal(number)
    states = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    one = psutil.Process(process.pid)
    while one.status() not in states:
        time.sleep(0.0001)
    return began_ns


def test_a_real_policy_that_hangs_or_is_killed_is_held_within_100_ms(start_node, client, checkpoint):  # noqa: F811
    policy = start_node("dp_ros.ros.nodes.policy_node", parameters(checkpoint, autostart=False))
    dog = start_node(WATCHDOG, {"max_distance_m": 0.0})  # the robot of this test does not move
    robot = Robot(client)
    status: list[str] = []
    client.node.create_subscription(String, "watchdog/status", lambda msg: status.append(msg.data), LATCHED)
    beaten_ns: list[int] = []
    client.node.create_subscription(
        Bool, "policy/heartbeat", lambda msg, info: beaten_ns.append(info["source_timestamp"]), 1000
    )
    assert client.change("policy_node", "configure", robot.publish)

    def release() -> bool:
        return client.call(Trigger, "watchdog/release", Trigger.Request(), robot.publish).success

    def drives() -> bool:
        """Whether the policy moves the arm and is watched. On a busy machine it may have been late: release then."""
        if status and status[-1].startswith("holding"):
            release()
            robot.clear()
        watches = bool(status) and status[-1].startswith("watching")
        return watches and len(robot.said()) > 5 and "pass" in robot.said()[-3:]

    def takeovers() -> list[str]:
        """When it took over, by the stamps of its log [s]."""
        return re.findall(r"\[WARN\] \[([0-9.]+)\].*holding: the policy is dead", dog.log)

    def held_after_s(number: int) -> float:
        robot.wait_for(drives, "the policy drives")
        said, before = len(status), len(takeovers())
        began_ns = signalled(policy.process, number)
        dead_ns = time.time_ns()
        robot.clear()

        def answer():
            return next((c for c in robot.commands if stamp_to_ns(c.header.stamp) > dead_ns), None)

        robot.wait_for(answer, "a command of the watchdog")
        robot.wait_for(lambda: status[said:], "its status")
        assert "its last command is repeated" in status[-1]
        # Written after its first command. A starved test may hear a later one first.
        sent_s = float(robot.wait_for(lambda: takeovers()[before:], "its log")[0])
        # A starved test signals later than it meant to: the policy lived at its last beat.
        return sent_s - max(began_ns, *beaten_ns[-1:]) / 1e9

    robot.activate()
    hung_s = held_after_s(signal.SIGSTOP)
    policy.process.send_signal(signal.SIGCONT)
    robot.wait_for(lambda: "hold_other_commander" in robot.said()[-3:], "the policy waits for the watchdog")
    assert status[-1].startswith("holding")
    robot.wait_for(release, "the release")
    robot.wait_until_moving()

    assert client.change("policy_node", "deactivate", robot.publish)

    def waits() -> bool:
        if status[-1].startswith("holding"):  # it had been late
            release()
        return status[-1].startswith("waiting")

    robot.wait_for(waits, "it sees the end of the commands")
    robot.activate()
    killed_s = held_after_s(signal.SIGKILL)
    dog.check()
    is_prompt = os.sched_getscheduler(dog.process.pid) == os.SCHED_RR  # else other processes may delay it
    assert max(hung_s, killed_s) <= (0.1 if is_prompt else 5.0)


def test_it_is_small():
    loaded = "import sys, dp_ros.ros.nodes.policy_watchdog; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert not {"torch", "cv2", "openvino", "mujoco", "zarr", "scipy"} & set(done.stdout.split())


def test_the_command_refuses_arguments_that_are_not_for_ros():
    command = [sys.executable, "-m", "dp_ros.cli", "watchdog", "policy_node"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert done.stderr == "dp_ros: policy_node: give parameters and remappings after --ros-args\n"
