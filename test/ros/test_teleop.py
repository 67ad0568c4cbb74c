"""A person drives over real topics: gamepad and keyboard to commands, and to the simulated arm."""

import contextlib
import fcntl
import math
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.duration import Duration
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from dp_ros.files import write_text
from dp_ros.poses import angle_rad
from dp_ros.ros.messages.conversions import gripper_state, ns_to_stamp, position_to_pose, stamp_to_ns
from dp_ros.ros.node.qos import LATCHED
from dp_ros.schema import JoyLayout, TeleopConfig

LAYOUT = JoyLayout()
HOME_M = (0.0, 0.6, 0.2)
DOWN = (0.0, 1.0, 0.0, 0.0)  # quaternion x, y, z, w
STILL_TICKS = 20
WARN, ERROR = b"\x01", b"\x02"
SLOW = {"rate_hz": 40.0, "gate": {"max_obs_age_s": 0.4}, "joy_timeout_s": 0.5}  # for a busy machine
PERIOD_S = 0.02


class Person:
    """A gamepad, and ears for what becomes of it. `publish` sends one message whenever it is time."""

    def __init__(self, client, now_ns=time.time_ns):
        self.client, self.now_ns = client, now_ns
        self._joy = client.node.create_publisher(Joy, "joy", 10)
        self.commands = client.listen(PoseStamped, "command/ee_pose")
        self.grippers = client.listen(JointState, "command/gripper")
        self.verdicts = client.listen(String, "teleop/verdict")
        self.events = client.listen(String, "record/command")
        self.diagnostics = client.listen(DiagnosticArray, "/diagnostics")
        self.sticks, self.down, self.silent = [0.0, 0.0, 0.0], set(), False
        self.edit = lambda msg: msg
        self._due_s = 0.0

    def publish(self) -> None:
        if self.silent or time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + PERIOD_S
        msg = Joy(axes=[0.0] * 8, buttons=[0] * 11)
        for index, direction, value in zip(LAYOUT.axes, LAYOUT.directions, self.sticks, strict=True):
            msg.axes[index] = direction * value
        for name in self.down:
            msg.buttons[LAYOUT.used_buttons[f"{name}_button"]] = 1
        msg.header.stamp = ns_to_stamp(self.now_ns())
        self._joy.publish(self.edit(msg))

    def wait_for(self, done, what: str):
        return self.client.wait_for(done, what, meanwhile=self.publish)

    def hear(self, verdict: str, n: int = 3) -> None:
        """Wait until the verdict is given n times in a row from now on."""
        count = len(self.verdicts)
        self.wait_for(lambda: [m.data for m in self.verdicts[count:]][-n:] == [verdict] * n, verdict)

    def drive(self, *sticks: float) -> None:
        """Press the dead-man button anew, and push the sticks (x, y, z)."""
        self.down.discard("deadman")
        self.sticks = [0.0, 0.0, 0.0]  # an axis moves nothing before it was seen at rest
        self.hear("hold_released")
        self.down.add("deadman")
        self.sticks = list(sticks)
        self.hear("pass")

    def click(self, button: str) -> None:
        heard = len(self.events)
        self.down.add(button)
        self.wait_for(lambda: len(self.events) > heard, button)
        self.down.discard(button)
        due_s = time.monotonic() + 0.2  # longer than a bouncing button
        self.wait_for(lambda: time.monotonic() > due_s, "the button is up")

    def status(self, begins: str):
        """The diagnostics of the teleop node, once their message begins so."""

        def found():
            own = [m.status[0] for m in self.diagnostics if m.status[0].name == "/teleop_node"]
            return [status for status in own[-1:] if status.message.startswith(begins)]

        return self.wait_for(found, f"diagnostics that say '{begins}'")[0]

    def path(self) -> np.ndarray:
        """All commands so far (N, 4); both halves of each bear one stamp."""
        self.client.take_all()
        self.wait_for(lambda: len(self.commands) == len(self.grippers), "both halves")
        assert [m.header.stamp for m in self.commands] == [m.header.stamp for m in self.grippers]
        efforts = [m.effort[0] for m in self.grippers]
        return np.column_stack([positions(self.commands), efforts])


class Robot(Person):
    """A person in front of a robot that does not move and publishes its pose and a half open gripper."""

    def __init__(self, client):
        super().__init__(client)
        self._pose = client.node.create_publisher(PoseStamped, "ee_pose", qos_profile_sensor_data)
        self._gripper = client.node.create_publisher(JointState, "gripper/state", qos_profile_sensor_data)
        self._pose_due_s = 0.0
        self.orientation, self.frame_id, self.opening = DOWN, "arm_base", 0.5

    def publish(self) -> None:
        super().publish()
        if time.monotonic() >= self._pose_due_s:
            self._pose_due_s = time.monotonic() + PERIOD_S
            now_ns = self.now_ns()
            self._pose.publish(position_to_pose(HOME_M, self.orientation, now_ns, self.frame_id))
            if self.opening is not None:
                self._gripper.publish(gripper_state(self.opening, now_ns))


def positions(poses) -> np.ndarray:
    return np.array([(m.pose.position.x, m.pose.position.y, m.pose.position.z) for m in poses]).reshape(-1, 3)


@pytest.fixture
def teleop(start_node, client):
    node = start_node("dp_ros.ros.nodes.teleop_node", {**SLOW, "autostart": True})
    client.watched.append(node)
    return node


@pytest.fixture
def robot(teleop, client):
    return Robot(client)


# ---- the gamepad -----------------------------------------------------------------------------------------


@pytest.mark.sim
def test_the_simulated_arm_goes_where_it_is_driven_and_stops_on_release_and_on_silence(start_node, client):
    robot = {"task": "reach-v3", "mode": "realtime", "max_steps": 100_000, "width_px": 16, "height_px": 16}
    client.watched = [
        start_node("dp_ros.ros.nodes.metaworld_bridge", {**robot, "autostart": True}),
        start_node("dp_ros.ros.nodes.teleop_node", {"use_sim_time": True, "autostart": True}),
    ]
    clock, poses = client.listen(Clock, "/clock"), client.listen(PoseStamped, "ee_pose", best_effort=True)
    results = client.listen(String, "episode/result")
    person = Person(client, lambda: stamp_to_ns(clock[-1].clock))
    client.wait_for(lambda: clock and poses, "the robot")
    assert client.call(Trigger, "episode/reset", Trigger.Request(), person.publish).success
    poses.clear()
    person.wait_for(lambda: poses, "the arm where the episode begins")
    assert person.commands == []

    for axis, sign in ((1, 1), (0, -1), (2, 1)):
        sticks = [0.0, 0.0, 0.0]
        sticks[axis] = sign
        person.drive(*sticks)
        before = positions(poses)[-1]
        person.wait_for(
            lambda: sign * (positions(poses)[-1] - before)[axis] > 0.02,  # noqa: B023
            f"{'+' if sign > 0 else '-'}{'xyz'[axis]}",
        )
        moved = positions(poses)[-1] - before
        assert np.abs(np.delete(moved, axis)).max() < 0.01
        if axis == 2:
            person.silent = True
            person.hear("hold_joy_stale", STILL_TICKS)
        else:
            person.down.clear()
            person.hear("hold_released", STILL_TICKS)
        assert np.ptp(person.path()[-STILL_TICKS:], axis=0).max() == 0.0
        count = len(poses)
        person.wait_for(lambda: len(poses) > count + STILL_TICKS, "poses")  # noqa: B023
        assert np.ptp(positions(poses)[-STILL_TICKS // 2 :], axis=0).max() < 0.001
    assert results == []  # else it stood still because the episode was over
    steps = np.linalg.norm(np.diff(person.path()[:, :3], axis=0), axis=1)
    assert steps.max() <= 0.2 / 80 + 1e-6
    assert {m.header.frame_id for m in person.commands} == {"base_link"}


def test_buttons_of_the_episode_are_heard_once_each(robot):
    robot.hear("hold_released")
    for button in ("start", "success", "start", "discard", "start", "failure"):
        robot.click(button)
    assert [m.data for m in robot.events] == ["start", "success", "start", "discard", "start", "failure"]
    assert robot.commands == []
    assert robot.client.forbidden("teleop_node") == []


def test_nobody_drives_while_somebody_else_may_command_the_arm(robot, client):
    robot.drive(0.0, 0.2, 0.0)
    policy = client.node.create_publisher(PoseStamped, "command/ee_pose", 10)
    robot.hear("hold_other_commander")
    client.take_all()
    commands = len(robot.commands)
    status = robot.status("test_client publishes /command/ee_pose too: end it")
    assert status.level == ERROR
    robot.hear("hold_other_commander", STILL_TICKS)
    assert len(robot.commands) == commands
    client.node.destroy_publisher(policy)
    robot.hear("hold_press_again")
    assert len(robot.commands) == commands
    robot.drive(0.0, 0.0, 0.0)
    np.testing.assert_array_equal(robot.path()[commands:][-1], [*HOME_M, 0.0])  # where the arm is


@pytest.mark.parametrize("tilt_deg", [30, 180])
def test_tilted_tool_is_never_told_to_turn_from_the_first_press_to_the_end(robot, client, tilt_deg):
    half_rad = math.radians(tilt_deg) / 2
    robot.orientation = (math.sin(half_rad), 0.0, 0.0, math.cos(half_rad))
    robot.drive(0.1, 0.1, 0.0)
    robot.down.clear()
    robot.hear("hold_released", STILL_TICKS)
    robot.drive(0.0, 0.0, 0.1)
    assert client.change("teleop_node", "deactivate", robot.publish)
    robot.status("inactive")
    turns = [msg.pose.orientation for msg in robot.commands]
    assert max(angle_rad((q.x, q.y, q.z, q.w), robot.orientation) for q in turns) == 0.0


def test_pose_in_another_frame_is_refused_and_named_once(robot, teleop):
    robot.drive(0.0, 0.1, 0.0)
    robot.frame_id = "world"
    robot.hear("hold_press_again", STILL_TICKS)  # without a pose there is nothing to hold
    says = "ee_pose: is in frame 'world', but the first pose was in 'arm_base'"
    assert robot.status(says).level == ERROR
    assert teleop.log.count(says) == 1
    assert {msg.header.frame_id for msg in robot.commands} == {"arm_base"}


def test_first_press_repeats_the_gripper_command_of_another_node(robot, client):
    """A policy that held an object hands over to a person: nothing is dropped."""
    policy = client.node.create_publisher(JointState, "command/gripper", 10)
    robot.wait_for(lambda: policy.get_subscription_count() == 2, "the node listens")
    policy.publish(JointState(name=["gripper"], effort=[0.8]))
    assert policy.wait_for_all_acked(Duration(seconds=20.0))
    robot.wait_for(lambda: robot.grippers, "the command")
    client.node.destroy_publisher(policy)
    robot.grippers.clear()
    robot.drive(0.0, 0.1, 0.0)
    assert {effort for *_, effort in robot.path()} == {0.8}


def test_axes_that_are_not_numbers_hold_and_are_named_once(robot, teleop):
    robot.drive(0.0, 1.0, 0.0)

    def spoil(msg):
        msg.axes[1] = math.nan
        return msg

    robot.edit = spoil
    robot.hear("hold_joy_refused", STILL_TICKS)
    assert np.ptp(robot.path()[-STILL_TICKS:], axis=0).max() == 0.0
    assert robot.status("hold_joy_refused: axis 1 of joy is not a finite number").level == WARN
    assert teleop.log.count("axis 1 of joy") == 1
    robot.edit = lambda msg: msg
    robot.hear("hold_press_again")
    robot.drive(0.0, 1.0, 0.0)
    assert "moving again: pass" in teleop.log


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_its_last_word_is_a_hold(robot, teleop, client, signum):
    robot.drive(0.05, 0.3, 0.0)
    count = len(robot.verdicts)

    def is_fast() -> bool:  # a busy machine may hold some ticks
        steps_m = np.diff(positions(robot.commands[-5:]), axis=0)
        return len(robot.verdicts) > count + 20 and bool((steps_m[:, 1] > 0).all())

    robot.wait_for(is_fast, "full speed")
    client.watched.clear()
    said = teleop.log
    teleop.process.send_signal(signum)
    robot.wait_for(lambda: teleop.process.poll() is not None, "the end")
    robot.wait_for(lambda: np.array_equal(*robot.path()[-2:]), "the hold that comes last")
    assert (teleop.process.returncode, teleop.log) == (0, said)


def test_an_emergency_stop_stops_a_person_too(robot, client):
    robot.drive(0.0, 0.3, 0.0)
    stop = client.node.create_publisher(Bool, "emergency_stop", LATCHED)
    stop.publish(Bool(data=True))
    robot.hear("hold_stopped", STILL_TICKS)
    assert np.ptp(robot.path()[-STILL_TICKS:], axis=0).max() == 0.0
    assert robot.status("hold_stopped: emergency stop").level == WARN
    stop.publish(Bool(data=False))
    robot.hear("hold_press_again")
    robot.drive(0.0, 0.3, 0.0)


def test_deactivated_it_holds_once_and_then_says_nothing(robot, client):
    robot.drive(0.0, 0.3, 0.0)
    assert client.change("teleop_node", "deactivate", robot.publish)
    robot.status("inactive")
    path = robot.path()
    np.testing.assert_array_equal(path[-1], path[-2])
    assert client.change("teleop_node", "activate", robot.publish)
    robot.hear("hold_press_again", STILL_TICKS)
    assert len(robot.path()) == len(path)
    assert client.change("teleop_node", "deactivate", robot.publish)
    assert client.change("teleop_node", "cleanup", robot.publish)
    assert client.change("teleop_node", "configure", robot.publish)
    assert client.change("teleop_node", "activate", robot.publish)
    robot.drive(0.0, 0.3, 0.0)


def test_a_wall_clock_that_is_set_stops_nothing(start_node, client, tmp_path, shifted_node):
    """The stamps of the joystick and of the robot step with it."""
    back_s = tmp_path / "back_s"
    back_s.write_text("0")
    values = {**SLOW, "autostart": True}
    program = [shifted_node("teleop_node", "TeleopNode"), str(back_s)]
    node = start_node("dp_ros.ros.nodes.teleop_node", values, program=program)
    client.watched.append(node)
    robot = Robot(client)
    robot.drive(0.0, 0.1, 0.0)
    for seconds in (20.0, -20.0):
        write_text(back_s, f"{seconds}")  # in one rename: the node reads it meanwhile
        robot.now_ns = lambda seconds=seconds: time.time_ns() - round(seconds * 10**9)
        client.wait_for(lambda: "the clock was set" in node.log, "it notices", meanwhile=robot.publish)
        robot.drive(0.0, 0.1, 0.0)
        stamp_ns = stamp_to_ns(robot.commands[-1].header.stamp)
        assert abs(robot.now_ns() - stamp_ns) < 10 * 10**9
    steps_m = np.linalg.norm(np.diff(positions(robot.commands), axis=0), axis=1)
    assert steps_m.max() <= TeleopConfig().max_speed_m_s / SLOW["rate_hz"] + 1e-9
    assert "time went back" not in node.log


def test_a_wrong_speed_or_layout_ends_it_with_one_line(start_node):
    cases = {
        "max_speed_m_s 9 is more than gate.max_speed_m_s": {"max_speed_m_s": 9.0},
        "success_button and start_button are both 7": {"layout": {"success_button": 7}},
        "unknown parameter 'layout.dead_man'; did you mean 'layout.deadman_button'?": {
            "layout": {"dead_man": 1}
        },
    }
    nodes = [
        start_node("dp_ros.ros.nodes.teleop_node", {**wrong, "autostart": True}) for wrong in cases.values()
    ]
    for node, expected in zip(nodes, cases, strict=True):
        assert node.wait() == 1
        assert expected in node.log
        assert len(node.log.splitlines()) == 1


# ---- the keyboard ----------------------------------------------------------------------------------------


class Typist:
    """`teleop_keyboard` as a process on a terminal of its own."""

    def __init__(self, client, environment: dict[str, str], *arguments: str) -> None:
        self._client = client
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(
            self.slave, termios.TIOCSWINSZ, b"\x18\x00\x50\x00\x00\x00\x00\x00"
        )  # 24 rows, 80 columns
        os.set_blocking(self.master, False)
        self.settings = termios.tcgetattr(self.slave)
        self.screen = ""
        self.process = subprocess.Popen(
            # setsid makes it the terminal's own, so that Ctrl-C reaches it.
            [
                "setsid",
                "--ctty",
                sys.executable,
                "-m",
                "dp_ros.ros.nodes.teleop_keyboard",
                "--ros-args",
                *arguments,
            ],
            env=environment,
            **dict.fromkeys(("stdin", "stdout", "stderr"), self.slave),
        )

    def look(self) -> str:
        """What was ever on the screen."""
        with contextlib.suppress(BlockingIOError):
            self.screen += os.read(self.master, 65536).decode()
        return self.screen

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait_for(self, done, what: str) -> None:
        """Meanwhile look: a terminal that nobody reads stops who writes to it."""
        self._client.wait_for(done, what, meanwhile=self.look)

    def hang_up(self) -> None:
        os.close(self.slave)
        os.close(self.master)
        self.master = self.slave = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.master >= 0:
            self.hang_up()


@pytest.fixture
def start_typist(client, ros_environment):
    typists = []

    def start(*arguments: str) -> Typist:
        typists.append(Typist(client, ros_environment, *arguments))
        return typists[-1]

    yield start
    for typist in typists:
        typist.close()


@pytest.fixture
def typist(start_typist):
    return start_typist()


@pytest.fixture
def joys(client, typist):
    """What the keyboard publishes; it does so already."""
    joys = client.listen(Joy, "joy")
    typist.wait_for(lambda: joys, "Joy")
    return joys


def deadman(msg: Joy) -> int:
    return msg.buttons[LAYOUT.deadman_button]


def test_keys_are_a_gamepad_that_lets_go_by_itself(typist, joys):
    for line in ("gripper closes, opens", "stop at once", "an episode starts"):
        assert line in typist.look()
    echo, canonical = termios.ECHO, termios.ICANON
    assert not termios.tcgetattr(typist.slave)[3] & (echo | canonical)
    typist.type("w")
    typist.wait_for(lambda: deadman(joys[-1]), "the dead-man button")
    np.testing.assert_allclose(joys[-1].axes[:2], [0.0, 0.4])
    typist.wait_for(lambda: not deadman(joys[-1]), "the key counts as let go")
    held = [m for m in joys if deadman(m)]
    held_s = (stamp_to_ns(held[-1].header.stamp) - stamp_to_ns(held[0].header.stamp)) / 1e9
    assert held_s < 1.5  # first_hold_s is 0.5
    assert not any(joys[-1].axes)
    assert "no teleop_node" in typist.look()


def test_space_lets_go_at_once(start_typist, client):
    typist = start_typist("-p", "first_hold_s:=2.0")
    joys = client.listen(Joy, "joy")
    typist.wait_for(lambda: joys, "Joy")
    typist.type("\x1b[5~")
    typist.wait_for(lambda: deadman(joys[-1]), "page up")
    assert joys[-1].axes[LAYOUT.axes[2]] > 0
    typist.type(" ")
    typist.wait_for(lambda: not deadman(joys[-1]), "it is let go")
    held_s = [stamp_to_ns(m.header.stamp) / 1e9 for m in joys if deadman(m)]
    assert held_s[-1] - held_s[0] < 1.5


@pytest.mark.parametrize("how", ["ctrl-c", signal.SIGTERM, signal.SIGINT])
def test_the_terminal_is_as_it_was_and_everything_let_go_when_it_ends(typist, joys, client, how):
    typist.type("w")
    typist.wait_for(lambda: deadman(joys[-1]), "the dead-man button")
    if how == "ctrl-c":
        typist.type("\x1a\x1c")  # Ctrl-Z and Ctrl-\ would leave our settings behind
        typist.type("\x03")
    else:
        typist.process.send_signal(how)
    typist.wait_for(lambda: typist.process.poll() is not None, "the end")
    assert typist.process.returncode == 0
    assert termios.tcgetattr(typist.slave) == typist.settings
    client.wait_for(lambda: not deadman(joys[-1]), "everything is let go")
    assert not any(joys[-1].axes)
    assert "Traceback" not in typist.look()


def test_a_terminal_that_goes_away_ends_it(typist, joys, client):
    typist.hang_up()
    client.wait_for(lambda: typist.process.poll() is not None, "the end")
    assert typist.process.returncode in (1, -signal.SIGHUP)


def test_without_a_terminal_it_says_so_in_one_line(start_node):
    node = start_node("dp_ros.ros.nodes.teleop_keyboard", {})
    assert node.wait() == 1
    assert node.log.splitlines() == [
        "node: standard input is no terminal: run it in a terminal of its own, not from a launch file or a pipe"
    ]


def test_the_keyboard_drives_the_arm_and_shows_what_becomes_of_it(robot, typist, client):
    robot.silent = True  # there is no gamepad
    robot.wait_for(lambda: client.node.count_publishers("joy") == 2, "the keyboard")
    robot.hear("hold_released")
    typist.type("f")
    robot.wait_for(
        lambda: len(robot.commands) > 8 and positions(robot.commands)[-1][2] < HOME_M[2] - 0.0005,
        "the way down",
    )
    typist.type(" ")
    robot.hear("hold_released")
    path = robot.path()
    np.testing.assert_allclose(path[:, :2], np.broadcast_to(HOME_M[:2], (len(path), 2)))
    assert (np.diff(path[:, 2]) <= 0).all()
    typist.type("y")
    robot.wait_for(lambda: robot.events, "the event")
    assert [m.data for m in robot.events] == ["success"]
    typist.wait_for(lambda: "pass" in typist.look(), "the verdict on the screen")
