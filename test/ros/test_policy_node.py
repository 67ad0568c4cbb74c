"""The policy node against a synthetic robot: it moves while all is well, and holds when anything is not."""

import functools
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy.parameter
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path as PathMsg
from rcl_interfaces.srv import DescribeParameters, ListParameters, SetParameters
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from dp_ros.files import write_text
from dp_ros.policy.checkpoint import add_ood_stats
from dp_ros.policy.checkpoint_config import policy_config
from dp_ros.policy.ood import fit_ood_stats
from dp_ros.poses import angle_rad
from dp_ros.ros.messages.conversions import gripper_state, ns_to_stamp, position_to_pose, stamp_to_ns
from dp_ros.ros.messages.images import rgb_to_image
from dp_ros.ros.messages.plan_picture import COMMAND
from dp_ros.ros.node.qos import LATCHED

CAMERAS = ("left", "right")
RATE_HZ, ROBOT_RATE_HZ = 20.0, 40.0
MAX_OBS_AGE_S = 0.4
MAX_SPEED_M_S = 0.4
LOW_M, HIGH_M = (-0.5, 0.3, 0.0), (0.5, 1.0, 0.6)
HOME_M = (0.0, 0.6, 0.2)
DOWN = (0.0, 1.0, 0.0, 0.0)  # quaternion x, y, z, w
HOLD_TICKS = 6
S = 1_000_000_000
WARN, ERROR = b"\x01", b"\x02"


class Robot:
    """Cameras, arm and gripper of a robot that does not move; hears the commands. Its faults are attributes."""

    def __init__(self, client, namespace: str = "", compressed: bool = False):
        self.client, self._compressed = client, compressed
        create, topic = client.node.create_publisher, f"{namespace}/" if namespace else ""
        kind, suffix = (CompressedImage, "/compressed") if compressed else (Image, "")
        self._images = {
            c: create(kind, f"{topic}camera/{c}/image_raw{suffix}", qos_profile_sensor_data) for c in CAMERAS
        }
        self._pose = create(PoseStamped, f"{topic}ee_pose", qos_profile_sensor_data)
        self._gripper = create(JointState, f"{topic}gripper/state", qos_profile_sensor_data)
        self.commands = client.listen(PoseStamped, f"{topic}command/ee_pose")
        self.grippers = client.listen(JointState, f"{topic}command/gripper")
        self.verdicts = client.listen(String, f"{topic}policy/verdict")
        self.diagnostics = client.listen(DiagnosticArray, "/diagnostics")
        self._due_s = 0.0
        self._pictures = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8)
        self.healthy()

    def healthy(self) -> None:
        self.silent: set[str] = set()  # of "left", "right", "pose", "gripper"
        self.stamp_of = dict.fromkeys((*CAMERAS, "pose", "gripper"), lambda now_ns: now_ns)
        self.position_m, self.opening = HOME_M, 1.0
        self.orientation, self.frame_id = DOWN, "arm_base"
        self.edit = lambda camera, msg: msg

    def clear(self) -> None:
        self.client.take_all()
        for heard in (self.commands, self.grippers, self.verdicts, self.diagnostics):
            heard.clear()

    def publish(self, now_ns: int | None = None) -> None:
        """One sample of everything, when it is time for it."""
        if now_ns is None:
            if time.monotonic() < self._due_s:
                return
            self._due_s = time.monotonic() + 1.0 / ROBOT_RATE_HZ
            now_ns = time.time_ns()
        stamps = {source: of(now_ns) for source, of in self.stamp_of.items()}
        if "pose" not in self.silent:
            pose = position_to_pose(np.zeros(3), DOWN, stamps["pose"], self.frame_id)
            position, turn = pose.pose.position, pose.pose.orientation
            position.x, position.y, position.z = map(float, self.position_m)
            turn.x, turn.y, turn.z, turn.w = map(float, self.orientation)
            self._pose.publish(pose)
        if "gripper" not in self.silent:
            state = gripper_state(0.0, stamps["gripper"])
            state.position = [float(self.opening)]
            self._gripper.publish(state)
        for i, camera in enumerate(CAMERAS):
            if camera not in self.silent:
                rgb = self._pictures[(now_ns // 25_000_000 + i) % len(self._pictures)]
                msg = compressed(rgb) if self._compressed else rgb_to_image(rgb, 0, camera)
                msg.header.stamp = ns_to_stamp(stamps[camera])
                self._images[camera].publish(self.edit(camera, msg))

    def wait_for(self, done, what: str):
        return self.client.wait_for(done, what, meanwhile=self.publish)

    def activate(self) -> None:
        """Activate the node, which needs fresh input for it."""
        self.wait_for(lambda: self.client.change("policy_node", "activate", self.publish), "activation")

    def wait_until_moving(self) -> None:
        count = len(self.verdicts)
        self.wait_for(lambda: any(not v.startswith("hold") for v in self.said(count)), "the arm moves")

    def status(self, begins: str):
        """The diagnostics, once their message begins so."""

        def found():
            statuses = [msg.status[0] for msg in self.diagnostics]
            return [status for status in statuses[-1:] if status.message.startswith(begins)]

        return self.wait_for(found, f"diagnostics that say '{begins}'")[0]

    def said(self, since: int = 0) -> list[str]:
        return [msg.data for msg in self.verdicts[since:]]

    def is_paired(self) -> bool:
        """Whether every command has its gripper command, from the first one that has any."""
        stamps = [msg.header.stamp for msg in self.commands]
        first = [msg.header.stamp for msg in self.grippers[:1]]
        uncommanded = stamps.index(first[0]) if first and first[0] in stamps else len(stamps)
        return len(self.grippers) == len(stamps) - uncommanded

    def arrays(self) -> list[np.ndarray]:
        """Every command (4,); its gripper is NaN where none was published."""
        efforts = {stamp_to_ns(msg.header.stamp): msg.effort[0] for msg in self.grippers}
        return [as_array(msg, efforts.get(stamp_to_ns(msg.header.stamp), math.nan)) for msg in self.commands]

    def commands_without_verdict(self) -> int:
        """How many more commands than verdicts came; a verdict follows its command."""
        return len(self.commands) - len(self.verdicts)

    def is_ended_by_a_hold(self) -> bool:
        """Whether the last command alone has no verdict."""
        return self.is_paired() and self.commands_without_verdict() == 1

    def end_with_a_hold(self, trial, is_ended=None) -> None:
        """Call `trial`, which moves and stops the arm, until the arm `is_ended_by_a_hold`, or `is_ended`.

        Three times at most: a node that hangs as it stops, on a busy machine, must be silent.
        """
        for _ in range(3):
            trial()
            self.client.take_all()
            if (is_ended or self.is_ended_by_a_hold)():
                return
        pytest.fail(f"the hold that comes last: {len(self.commands)} commands, {len(self.verdicts)} verdicts")

    def is_told_to_hold(self) -> bool:
        """Whether the last command repeats the one before; while the arm moves, none does."""
        return self.is_paired() and bool(np.array_equal(*self.arrays()[-2:], equal_nan=True))

    def decisions(self) -> list[tuple[int, str, np.ndarray]]:
        """(stamp, verdict, command (4,)) of every tick since `clear`, oldest first."""
        stamps = [stamp_to_ns(msg.header.stamp) for msg in self.commands]
        return list(zip(stamps, self.said(), self.arrays(), strict=False))


def as_array(pose: PoseStamped, gripper: float) -> np.ndarray:
    position = pose.pose.position
    return np.array([position.x, position.y, position.z, gripper])


def compressed(rgb: np.ndarray) -> CompressedImage:
    data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()
    return CompressedImage(format="rgb8; jpeg compressed bgr8", data=data)


def parameters(folder, **changes) -> dict:
    gate = {
        "workspace_low_m": list(LOW_M),
        "workspace_high_m": list(HIGH_M),
        "max_speed_m_s": MAX_SPEED_M_S,
        "max_obs_age_s": MAX_OBS_AGE_S,
        "max_skew_s": MAX_OBS_AGE_S,
        "max_pose_age_s": 0.0,
        "max_distance_m": 0.0,  # the robot of these tests does not move
        "max_frozen_s": 0.0,
    }
    values = {
        "checkpoint": str(folder),
        "mode": "realtime",
        "engine": "torch",
        "threads": 1,
        "gate": gate,
        "autostart": True,
    }
    return {**values, **changes}


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint):
    """Two cameras and proprioception, 20 Hz."""
    encoder = {"cameras": CAMERAS, "proprioception": True}
    return make_checkpoint("two_cameras", encoder=encoder, rate_hz=RATE_HZ)


@pytest.fixture(scope="module")
def node(start_shared_node, shared_client, checkpoint):
    """The node that most tests share, configured."""
    node = start_shared_node("dp_ros.ros.nodes.policy_node", parameters(checkpoint, autostart=False))
    shared_client.watched.append(node)
    assert shared_client.state("policy_node") == "unconfigured"
    assert shared_client.change("policy_node", "configure")
    return node


@pytest.fixture(scope="module")
def shared_robot(node, shared_client):
    return Robot(shared_client)


@pytest.fixture
def robot(shared_robot):
    """A healthy robot, and the node active until the test ends, with its limits."""
    shared_robot.healthy()
    shared_robot.clear()
    shared_robot.activate()
    yield shared_robot
    shared_robot.healthy()
    client = shared_robot.client
    if client.state("policy_node") == "active":
        assert client.change("policy_node", "deactivate", shared_robot.publish)
    restored = {f"gate.{name}": value for name, value in parameters("")["gate"].items()}
    restored["gate.max_acceleration_m_s2"] = 0.0
    assert not any(set_parameters(client, **restored))


def set_parameters(client, **changes) -> list[str]:
    """Why each change was refused; empty where it was not."""
    request = SetParameters.Request()
    for name, value in changes.items():
        parameter = rclpy.parameter.Parameter(name, value=value)
        request.parameters.append(parameter.to_parameter_msg())
    results = client.call(SetParameters, "policy_node/set_parameters", request).results
    return [result.reason if not result.successful else "" for result in results]


# ---- all is well ---------------------------------------------------------------------------------------


def test_lifecycle_transitions_start_and_stop_the_motion(node, shared_robot):
    """Commands come only while it is active, the last of them is a hold, and a second life begins like the first."""
    robot, change = shared_robot, functools.partial(shared_robot.client.change, "policy_node")
    robot.clear()
    robot.status("inactive")
    assert robot.commands == []
    assert change("cleanup")
    assert set_parameters(robot.client, use_sim_time=True) == [""]  # as anybody may: it still answers
    assert set_parameters(robot.client, use_sim_time=False) == [""]
    assert change("configure")

    def trial() -> None:
        robot.clear()
        robot.activate()
        assert robot.client.state("policy_node") == "active"
        robot.wait_until_moving()
        assert change("deactivate", robot.publish)

    for _ in range(2):
        robot.end_with_a_hold(trial)
        *_, moving, hold = robot.arrays()
        np.testing.assert_array_equal(hold, moving)
        commands = len(robot.commands)
        robot.diagnostics.clear()
        robot.wait_for(lambda: len(robot.diagnostics) >= 2, "one second")
        assert len(robot.commands) == commands
    assert robot.client.state("policy_node") == "inactive"


def test_commands_stay_inside_the_limits_and_bear_time_and_frame(robot):
    robot.wait_until_moving()
    robot.wait_for(lambda: len(robot.commands) > 30, "commands")
    decisions = robot.decisions()
    positions = np.array([command[:3] for *_, command in decisions])
    assert (positions >= LOW_M).all()
    assert (positions <= HIGH_M).all()
    stamps = [stamp_ns for stamp_ns, *_ in decisions]
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)[np.diff(stamps) < 2 * S / RATE_HZ]
    assert steps.max() <= MAX_SPEED_M_S / RATE_HZ + 1e-9  # after a hang it begins at the measured pose
    assert steps.max() > 0
    assert {msg.header.frame_id for msg in robot.commands} == {"arm_base"}
    assert stamps == sorted(stamps)
    assert abs(time.time_ns() - stamps[-1]) < 10 * S


def test_commands_come_at_the_robots_own_rate_in_parts_of_a_tick(start_node, client, checkpoint):
    """20 Hz to 100 Hz: more commands than verdicts, each step as long as its time allows, and still in a hold."""
    rate = {"command_rate_hz": 100.0, "gate": {**parameters(checkpoint)["gate"], "max_speed_m_s": 0.2}}
    client.watched = [start_node("dp_ros.ros.nodes.policy_node", parameters(checkpoint, **rate))]
    robot = Robot(client)
    robot.wait_until_moving()
    robot.clear()
    # A busy machine leaves commands out, but not for long.
    robot.wait_for(
        lambda: len(robot.verdicts) > 20 and len(robot.commands) > 3 * len(robot.verdicts),
        "20 ticks, and commands between them",
    )
    robot.client.take_all()
    assert len(robot.commands) < 6 * len(robot.verdicts)
    stamps_ns = [stamp_to_ns(msg.header.stamp) for msg in robot.commands]
    assert len(set(stamps_ns)) == len(stamps_ns)
    steps_m = np.linalg.norm(np.diff([array[:3] for array in robot.arrays()], axis=0), axis=1)
    assert steps_m.max() > 0
    longest_m = 0.01 * np.diff(stamps_ns[: len(steps_m) + 1]) / 50e6  # a busy machine leaves commands out
    assert (steps_m <= longest_m + 1e-6).all()

    def trial() -> bool:
        """Whether commands came in the hold: a node that hangs, on a busy machine, gives none before it sees again."""
        robot.healthy()
        robot.wait_until_moving()
        robot.silent = {"left"}
        robot.wait_for(lambda: robot.said()[-1] == "hold_stale", "the hold")
        robot.clear()  # also of the commands before that verdict, which are more than the verdicts
        robot.wait_for(lambda: len(robot.commands) > 20 or len(robot.verdicts) > 20, "the hold")
        return len(robot.commands) > 20

    assert any(trial() for _ in range(3))
    positions_m = np.array([array[:3] for array in robot.arrays()])
    np.testing.assert_array_equal(positions_m, np.repeat(positions_m[:1], len(positions_m), axis=0))


def test_plans_are_drawn_for_whoever_looks(robot):
    client = robot.client
    paths, markers = client.listen(PathMsg, "policy/path"), client.listen(MarkerArray, "policy/markers")
    views = client.listen(Image, "policy/image")
    robot.wait_for(lambda: paths and markers and views, "path, markers and picture")
    path = paths[-1]
    assert path.header.frame_id == "arm_base"
    stamps = [pose.header.stamp.sec * S + pose.header.stamp.nanosec for pose in path.poses]
    assert np.diff(stamps).tolist() == [round(S / RATE_HZ)] * 7
    drawn = robot.wait_for(lambda: by_namespace(markers, "plan"), "a plan")
    assert {"executed", "command", "verdict", "workspace"} <= set(drawn)
    assert (len(drawn["plan"].points), len(drawn["executed"].points)) == (8, 4)
    assert {marker.header.frame_id for marker in drawn.values()} == {"arm_base"}
    assert corners_m(drawn) == [list(LOW_M), list(HIGH_M)]
    robot.wait_for(lambda: drawn["verdict"].text.startswith(tuple(robot.said())), "its verdict")
    assert (views[-1].width, views[-1].height) == (2 * 256, 256 + 42)  # enlarged, and two lines of text


def by_namespace(arrays: list, wanted: str) -> dict:
    """The markers of the newest array that has the namespace."""
    arrays = [{marker.ns: marker for marker in array.markers} for array in arrays]
    return next((found for found in reversed(arrays) if wanted in found), {})


def corners_m(drawn: dict) -> list[list[float]]:
    """The lowest and the highest corner of the workspace among those markers; empty where it is not."""
    if "workspace" not in drawn:
        return []
    points = np.array([(point.x, point.y, point.z) for point in drawn["workspace"].points])
    return [points.min(0).tolist(), points.max(0).tolist()]


def test_verdict_stays_in_sight_while_the_arm_holds(robot):
    markers = robot.client.listen(MarkerArray, "policy/markers")
    robot.wait_until_moving()
    robot.silent = {"left"}
    robot.wait_for(lambda: robot.said()[-HOLD_TICKS:] == ["hold_stale"] * HOLD_TICKS, "it holds")
    markers.clear()
    robot.wait_for(lambda: len(markers) > 2, "markers")
    assert markers[-1].markers
    for array in markers:
        assert "hold_stale" in by_namespace([array], "verdict")["verdict"].text


def test_chunk_is_drawn_into_the_pictures_of_a_camera_whose_place_is_known(robot):
    """The left camera looks at the arm from in front; of the right one nothing is known."""
    node = robot.client.node
    infos = node.create_publisher(CameraInfo, "camera/left/camera_info", 10)
    poses = node.create_publisher(PoseStamped, "camera/left/pose", 10)
    views = robot.client.listen(Image, "policy/image")
    info = CameraInfo(width=64, height=64, k=[60.0, 0.0, 31.5, 0.0, 60.0, 31.5, 0.0, 0.0, 1.0])
    place = np.array(HOME_M) - [0.0, 0.4, 0.0]
    quarter = math.sqrt(0.5)  # z of the camera along y of the base

    def is_drawn() -> bool:
        infos.publish(info)
        poses.publish(position_to_pose(place, [-quarter, 0.0, 0.0, quarter], time.time_ns(), "arm_base"))
        return bool(views) and len(balls(views[-1])[0]) > 0

    robot.wait_for(is_drawn, "a ball in the picture of the left camera")
    view = views[-1]
    left, right = balls(view)
    assert len(right) == 0
    (command,) = robot.wait_for(
        lambda: [msg for msg in robot.commands if msg.header.stamp == view.header.stamp], "its command"
    )
    away_m = as_array(command, math.nan)[:3] - place
    expected = [128 + 240 * away_m[0] / away_m[1], 128 - 240 * away_m[2] / away_m[1]]
    np.testing.assert_allclose(left.mean(0), expected, atol=8.0)  # a ball of 9 px, in part below the lines
    node.destroy_publisher(infos)
    node.destroy_publisher(poses)


def balls(view: Image) -> tuple[np.ndarray, np.ndarray]:
    """Pixels x, y (n, 2) of the command's colour in the left and in the right half."""
    pixels = np.frombuffer(view.data, np.uint8).reshape(view.height, view.width, 3)
    halves = np.split(pixels, 2, axis=1)
    one, other = (np.argwhere((half == COMMAND).all(2))[:, ::-1] for half in halves)
    return one, other


@pytest.mark.parametrize("tilt_deg", [30, 180])
def test_tilted_tool_is_never_told_to_turn_from_activation_to_the_end(robot, tilt_deg):
    client, half_rad = robot.client, math.radians(tilt_deg) / 2
    client.change("policy_node", "deactivate", robot.publish)
    robot.orientation = (math.sin(half_rad), 0.0, 0.0, math.cos(half_rad))

    def trial() -> None:
        robot.clear()
        robot.activate()
        robot.wait_until_moving()
        robot.silent = {"left"}
        robot.wait_for(lambda: robot.said()[-HOLD_TICKS:] == ["hold_stale"] * HOLD_TICKS, "it holds")
        robot.silent = set()
        robot.wait_until_moving()
        assert client.change("policy_node", "deactivate", robot.publish)

    robot.end_with_a_hold(trial)
    turns = [msg.pose.orientation for msg in robot.commands]
    assert max(angle_rad((q.x, q.y, q.z, q.w), robot.orientation) for q in turns) == 0.0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"orientation": (0.0, 0.0, 0.0, 0.0)},
            "ee_pose: quaternion [0.0, 0.0, 0.0, 0.0] in 'arm_base' is not",
        ),
        (
            {"orientation": (0.0, 1.1, 0.0, 0.0)},
            "ee_pose: quaternion [0.0, 1.1, 0.0, 0.0] in 'arm_base' is not",
        ),
        (
            {"orientation": (math.nan, 1.0, 0.0, 0.0)},
            "ee_pose: quaternion [nan, 1.0, 0.0, 0.0] in 'arm_base' is",
        ),
        ({"frame_id": "world"}, "ee_pose: is in frame 'world', but the first pose was in 'arm_base'"),
    ],
)
def test_pose_without_orientation_or_in_another_frame_is_refused(robot, node, change, says):
    robot.wait_until_moving()
    lines = node.log.count(says)
    vars(robot).update(change)
    robot.wait_for(lambda: robot.said()[-HOLD_TICKS:] == ["hold_stale"] * HOLD_TICKS, "it holds")
    assert robot.status(says).level == ERROR
    assert node.log.count(says) == lines + 1
    robot.healthy()
    robot.wait_until_moving()
    assert {msg.header.frame_id for msg in robot.commands} == {"arm_base"}


def test_nothing_is_published_while_the_tool_is_turned(robot):
    robot.wait_until_moving()
    robot.orientation = (0.0, 0.0, 0.0, 1.0)
    robot.wait_for(lambda: robot.said()[-HOLD_TICKS:] == ["hold_turned"] * HOLD_TICKS, "it holds")
    robot.client.take_all()
    commands = len(robot.commands)
    assert robot.status("hold_turned: the tool is 3.14 rad from its orientation").level == WARN
    assert len(robot.commands) == commands
    robot.healthy()
    robot.wait_until_moving()


def test_gripper_is_not_commanded_before_a_plan_commands_it(robot):
    """While the first plan is computed the arm holds, and the hand keeps what it does."""
    robot.wait_until_moving()
    robot.wait_for(robot.is_paired, "all halves")
    for _, verdict, command in robot.decisions():
        if not verdict.startswith("hold"):
            break
        assert math.isnan(command[3])
    first = next(i for i, verdict in enumerate(robot.said()) if not verdict.startswith("hold"))
    assert robot.grippers[0].header.stamp == robot.commands[first].header.stamp


def test_diagnostics_come_once_a_second(robot):
    robot.wait_until_moving()
    robot.diagnostics.clear()

    def come_in_time() -> bool:  # a busy machine may be late with some
        stamps_s = [stamp_to_ns(msg.header.stamp) / S for msg in robot.diagnostics[-3:]]
        return len(stamps_s) == 3 and np.allclose(np.diff(stamps_s), 1.0, atol=0.5)

    robot.wait_for(come_in_time, "three diagnostics, a second apart")
    status = robot.diagnostics[-1].status[0]
    values = {pair.key: pair.value for pair in status.values}
    before = {pair.key: pair.value for pair in robot.diagnostics[0].status[0].values}
    assert (status.name, status.hardware_id) == ("/policy_node", "dp_ros")
    assert values["mode"] == "realtime"
    assert float(values["plan_ms_p50"]) > 0
    assert (values["engine"], values["policy_seed"]) == ("torch f32", "0")
    assert len(values["checkpoint_sha256"]) == 64
    assert int(values["schema_version"]) >= 2
    for stream in (*(f"camera {camera}" for camera in CAMERAS), "ee_pose", "gripper"):
        assert 0.0 < float(values[f"{stream} rate_hz"]) < 2 * ROBOT_RATE_HZ
        assert 0.0 <= float(values[f"{stream} age_ms_p50"]) <= float(values[f"{stream} age_ms_p99"])
        assert values[f"{stream} refused"] == before[f"{stream} refused"], "other tests send wrong messages"
    lost, _, ticks = values["ticks_without_frame"].partition(" of ")
    assert int(lost) < int(ticks)
    assert values["ood_score"].startswith("none: the checkpoint has no statistics")


def test_only_the_thread_that_sends_commands_has_a_real_time_priority(robot, node):
    """Plans must not keep it from its ticks, and it must not keep the system from anything else."""
    robot.wait_until_moving()
    pid = node.process.pid
    threads = {int(folder.name): os.sched_getscheduler(int(folder.name)) for folder in threads_of(pid)}
    expected = {pid} if may_have_priority() else set()
    assert {tid for tid, policy in threads.items() if policy != os.SCHED_OTHER} == expected
    assert len(threads) > 1


def threads_of(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


def may_have_priority() -> bool:
    """Whether the system lets a process of ours have one."""
    attempt = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))"
    return subprocess.run([sys.executable, "-c", attempt], stderr=subprocess.DEVNULL).returncode == 0


def test_parameters_are_described_bounded_and_read_only(node, shared_client):
    listed = shared_client.call(ListParameters, "policy_node/list_parameters", ListParameters.Request())
    ours = [
        name
        for name in listed.result.names
        if not name.startswith(("use_sim_time", "qos_overrides", "start_type_description_service"))
    ]
    assert {"checkpoint", "mode", "policy_seed", "gate.max_speed_m_s", "gate.workspace_low_m"} <= set(ours)
    request = DescribeParameters.Request(names=ours)
    described = shared_client.call(DescribeParameters, "policy_node/describe_parameters", request).descriptors
    assert not [d.name for d in described if not d.description]
    changing = {d.name for d in described if not d.read_only}
    assert changing == {name for name in ours if name.startswith("gate.")} | {"instruction"}
    by_name = {d.name: d for d in described}
    assert not by_name[
        "gate.max_speed_m_s"
    ].floating_point_range  # it has one bound, and a range would invent the other
    assert by_name["gate.max_speed_m_s"].additional_constraints == "> 0"
    (bounds,) = by_name["command_delay_s"].floating_point_range
    assert (bounds.from_value, bounds.to_value) == (0.0, 5.0)
    (bounds,) = by_name["sampler_iterations"].integer_range
    assert (bounds.from_value, bounds.to_value) == (0, 1000)
    assert by_name["mode"].additional_constraints == "one of: lockstep, realtime"
    changes = {"episode_gap_s": 9.0, "checkpoint": "/other", "mode": "lockstep"}
    for reason in set_parameters(shared_client, **changes):
        assert "read-only" in reason


def test_its_security_policy_allows_all_that_it_does_and_no_more_commands(robot):
    unknown = "subscribe /camera/left/image_raw"
    robot.wait_for(lambda: unknown in robot.client.forbidden("policy_node"), "the graph has all of it")
    assert robot.client.forbidden("policy_node", CAMERAS) == []


def test_limits_are_tightened_while_it_moves_and_loosened_while_it_is_inactive(robot):
    client = robot.client
    robot.wait_until_moving()
    assert set_parameters(client, **{"gate.max_speed_m_s": 0.1}) == [""]
    robot.clear()
    robot.wait_for(lambda: len(robot.commands) > 10, "commands")
    steps_m = np.linalg.norm(np.diff([array[:3] for array in robot.arrays()], axis=0), axis=1)
    assert steps_m.max() <= 0.1 / RATE_HZ + 1e-9
    markers = client.listen(MarkerArray, "policy/markers")
    higher_m = [LOW_M[0], LOW_M[1], 0.1]
    assert set_parameters(client, **{"gate.workspace_low_m": higher_m}) == [""]
    robot.wait_for(
        lambda: corners_m(by_namespace(markers, "workspace"))[:1] == [higher_m], "the box is drawn"
    )
    (why,) = set_parameters(client, **{"gate.max_speed_m_s": MAX_SPEED_M_S})
    assert why == "gate.max_speed_m_s: loosened only while inactive: deactivate first"
    (why,) = set_parameters(client, **{"gate.workspace_low_m": [9.0, 0.3, 0.0]})
    assert why.startswith("gate: workspace x: low 9.0 is not below high 0.5")
    assert client.change("policy_node", "deactivate", robot.publish)
    restored = {"gate.max_speed_m_s": MAX_SPEED_M_S, "gate.workspace_low_m": list(LOW_M)}
    assert set_parameters(client, **restored) == ["", ""]
    robot.activate()


@pytest.mark.parametrize("latched", [True, False])
def test_an_emergency_stop_lasts_until_it_is_released_and_the_node_activated_again(robot, latched):
    client = robot.client
    status: list[String] = []
    listener = client.node.create_subscription(String, "policy/status", status.append, LATCHED)
    robot.wait_until_moving()
    publisher = client.node.create_publisher(Bool, "emergency_stop", LATCHED if latched else 10)
    try:
        robot.wait_for(lambda: publisher.get_subscription_count() >= 1, "the node hears it")
        publisher.publish(Bool(data=True))
        robot.wait_for(lambda: robot.said()[-HOLD_TICKS:] == ["hold_stopped"] * HOLD_TICKS, "it stops")
        robot.wait_for(
            lambda: status and status[-1].data.startswith("hold_stopped: emergency stop on the topic"), "why"
        )
        assert status[-1].data.endswith("release it, then deactivate and activate")
        assert client.change("policy_node", "deactivate", robot.publish)
        assert not client.change("policy_node", "activate", robot.publish)
        assert "emergency stop on the topic emergency_stop: release it first" in client.watched[0].log
        publisher.publish(Bool(data=False))
        robot.activate()
        robot.wait_until_moving()
    finally:
        client.node.destroy_publisher(publisher)
        client.node.destroy_subscription(listener)


def test_an_emergency_stop_of_one_publisher_is_not_released_by_another(robot):
    client, publishers = robot.client, []
    robot.wait_until_moving()
    try:
        for _ in range(2):
            publishers.append(client.node.create_publisher(Bool, "emergency_stop", LATCHED))
        first, second = publishers
        robot.wait_for(
            lambda: min(p.get_subscription_count() for p in publishers) >= 2, "the node hears both"
        )
        first.publish(Bool(data=True))
        robot.wait_for(lambda: robot.said()[-HOLD_TICKS:] == ["hold_stopped"] * HOLD_TICKS, "it stops")
        assert client.change("policy_node", "deactivate", robot.publish)
        second.publish(Bool(data=False))
        said = "another publisher still says true): release it first"
        robot.wait_for(
            lambda: (
                not client.change("policy_node", "activate", robot.publish) and said in client.watched[0].log
            ),
            "it stays stopped",
        )
        first.publish(Bool(data=False))
        robot.activate()
        robot.wait_until_moving()
    finally:
        for publisher in publishers:
            client.node.destroy_publisher(publisher)


def test_beside_others_a_publisher_that_is_not_latched_releases_nothing(robot):
    client, publishers = robot.client, []
    try:
        publishers += [client.node.create_publisher(Bool, "emergency_stop", depth) for depth in (LATCHED, 10)]
        robot.wait_for(
            lambda: min(p.get_subscription_count() for p in publishers) >= 1, "the node hears both"
        )
        publishers[0].publish(Bool(data=True))
        robot.wait_for(lambda: robot.said()[-1:] == ["hold_stopped"], "it stops")
        assert client.change("policy_node", "deactivate", robot.publish)
        publishers[1].publish(Bool(data=False))
        said = "make it latched, or end it): release it first"
        robot.wait_for(
            lambda: (
                not client.change("policy_node", "activate", robot.publish) and said in client.watched[0].log
            ),
            "it stays stopped",
        )
        client.node.destroy_publisher(publishers.pop())
        publishers[0].publish(Bool(data=False))
        robot.activate()
    finally:
        for publisher in publishers:
            client.node.destroy_publisher(publisher)


@pytest.mark.parametrize("is_released", [True, False])
def test_once_a_publisher_that_is_not_latched_has_ended_the_others_are_asked(robot, is_released):
    """Its own false never releases what another one has stopped, also when no message follows its end."""
    client, publishers = robot.client, []
    try:
        publishers += [client.node.create_publisher(Bool, "emergency_stop", depth) for depth in (LATCHED, 10)]
        robot.wait_for(
            lambda: min(p.get_subscription_count() for p in publishers) >= 1, "the node hears both"
        )
        publishers[0].publish(Bool(data=True))
        robot.wait_for(lambda: robot.said()[-1:] == ["hold_stopped"], "it stops")
        assert client.change("policy_node", "deactivate", robot.publish)
        begin = len(client.watched[0].log)

        def is_refused(why: str) -> bool:
            is_active = client.change("policy_node", "activate", robot.publish)
            return not is_active and why in client.watched[0].log[begin:]

        publishers[0 if is_released else 1].publish(Bool(data=False))
        robot.wait_for(lambda: is_refused("make it latched, or end it"), "it stays stopped")
        client.node.destroy_publisher(publishers.pop())
        if is_released:
            robot.activate()
            return
        robot.wait_for(
            lambda: is_refused("another publisher still says true"), "it stays stopped for the other"
        )
        publishers[0].publish(Bool(data=False))
        robot.activate()
    finally:
        for publisher in publishers:
            client.node.destroy_publisher(publisher)


def test_a_stop_takes_as_long_as_the_limit_of_acceleration_needs_and_ends_at_rest(robot):
    """Here 3 s; the workspace would be too small at a higher speed."""
    client, speed_m_s, braking_m_s2 = robot.client, 0.1, 0.03
    assert set_parameters(client, **{"gate.max_speed_m_s": speed_m_s}) == [""]

    def velocities_m_s() -> np.ndarray:
        return np.diff([array[:3] for array in robot.arrays()], axis=0) * RATE_HZ

    def is_fast() -> bool:
        recent = velocities_m_s()[-3:]
        return len(recent) == 3 and (np.linalg.norm(recent, axis=1) > 0.9 * speed_m_s).all()

    def is_limited_while_fast() -> bool:
        """On a busy machine the arm may hold before the limit is in force; it is loosened while inactive only."""
        robot.clear()
        robot.wait_for(is_fast, "a fast arm")
        assert set_parameters(client, **{"gate.max_acceleration_m_s2": braking_m_s2}) == [""]
        client.take_all()
        if is_fast():
            return True
        assert client.change("policy_node", "deactivate", robot.publish)
        assert set_parameters(client, **{"gate.max_acceleration_m_s2": 0.0}) == [""]
        robot.activate()
        return False

    count, commands_at_end = 0, []

    def trial() -> None:
        nonlocal count
        if client.state("policy_node") == "inactive":
            assert set_parameters(client, **{"gate.max_acceleration_m_s2": 0.0}) == [""]
            robot.activate()
        robot.wait_for(is_limited_while_fast, "a fast arm with the limit")
        count = len(robot.commands)
        commands_at_end.clear()
        assert client.change("policy_node", "deactivate", robot.publish)
        robot.wait_for(lambda: commands_at_end, "the status after it")

    ended = client.node.create_subscription(
        String,
        "policy/status",
        lambda msg: commands_at_end.append(len(robot.commands)) if msg.data == "inactive" else None,
        10,
    )
    robot.end_with_a_hold(trial, robot.is_told_to_hold)
    client.node.destroy_subscription(ended)
    velocities = velocities_m_s()[count:]
    assert len(velocities) > 2.5 * RATE_HZ
    assert commands_at_end[0] - count > 2.0 * RATE_HZ
    assert np.linalg.norm(np.diff(velocities, axis=0), axis=1).max() <= braking_m_s2 / RATE_HZ * (1 + 1e-6)
    assert np.linalg.norm(velocities[-1]) <= braking_m_s2 / RATE_HZ * (1 + 1e-6)


def test_the_service_stops_it_until_it_is_activated_again(robot):
    robot.wait_until_moving()
    answer = robot.client.call(Trigger, "policy/stop", Trigger.Request())
    assert answer.success
    robot.wait_for(lambda: robot.said()[-HOLD_TICKS:] == ["hold_stopped"] * HOLD_TICKS, "it stops")
    assert robot.client.change("policy_node", "deactivate", robot.publish)
    robot.activate()
    robot.wait_until_moving()


def test_beside_another_publisher_of_commands_it_says_so_and_commands_nothing(robot):
    node = robot.client.node
    robot.wait_until_moving()
    publisher = node.create_publisher(PoseStamped, "command/ee_pose", 10)
    try:
        robot.wait_for(lambda: robot.said()[-1] == "hold_other_commander", "it notices")
        robot.clear()
        robot.wait_for(lambda: len(robot.verdicts) > 10, "ticks")
        assert robot.commands == []
        assert robot.status("hold_other_commander: ").level == WARN
    finally:
        node.destroy_publisher(publisher)
    robot.wait_until_moving()


# ---- what must stop the arm ----------------------------------------------------------------------------


def test_a_watchdog_that_holds_is_believed_also_where_it_commands_nothing(robot):
    node = robot.client.node
    guard = node.create_publisher(String, "watchdog/status", LATCHED)
    try:
        guard.publish(String(data="watching: the policy is active"))
        robot.wait_until_moving()
        guard.publish(String(data="holding: the policy is dead or hangs"))
        robot.wait_for(lambda: robot.said()[-1] == "hold_other_commander", "it hears the watchdog")
        assert "watchdog/release" in robot.status("hold_other_commander: ").message
        robot.clear()
        robot.wait_for(lambda: len(robot.verdicts) > 10, "ticks")
        assert robot.commands == []
        guard.publish(String(data="watching: handed back to the policy"))
        robot.wait_until_moving()
        guard.publish(String(data="holding: the policy is dead or hangs"))
        robot.wait_for(lambda: robot.said()[-1] == "hold_other_commander", "it hears the watchdog again")
    finally:
        node.destroy_publisher(guard)
    robot.wait_until_moving()  # the watchdog ended


def silence(*sources):
    return lambda robot: robot.silent.update(sources)


def stamp(source, of):
    return lambda robot: robot.stamp_of.update({source: of})


def freeze(robot, stamp_ns):
    robot.stamp_of["left"] = lambda _: stamp_ns


def measure(**values):
    return lambda robot: vars(robot).update(values)


def cover(msg):
    msg.data = bytes(len(msg.data))
    return msg


FAULTS = {
    "a camera stops": silence("left"),
    "everything stops": silence("left", "right", "pose", "gripper"),
    "the pose stops": silence("pose"),
    "the gripper stops": silence("gripper"),
    "a camera lags behind by seconds": stamp("right", lambda now_ns: now_ns - 3 * S),
    "a camera is ahead by half a second": stamp("right", lambda now_ns: now_ns + S // 2),
    "a camera is ahead by an hour": stamp("left", lambda now_ns: now_ns + 3600 * S),
    "all stamps are zero": lambda robot: [stamp(source, lambda _: 0)(robot) for source in robot.stamp_of],
    "stamps are negative": stamp("left", lambda now_ns: -now_ns % S - S),
    "the stamp never changes": lambda robot: freeze(robot, time.time_ns()),
    "the pose is not a number": measure(position_m=(math.nan, 0.6, 0.2)),
    "the pose is infinite": measure(position_m=(0.0, math.inf, 0.2)),
    "a camera is covered": measure(edit=lambda camera, msg: cover(msg) if camera == "right" else msg),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_it_holds_while_what_it_needs_is_missing_and_goes_on_after(robot, fault):
    """A hold repeats the last command, to the bit, for as long as the fault lasts."""
    fault_ns = 0

    def trial() -> bool:
        """Whether the node did not hang, on a busy machine: then it commands nothing before it sees again."""
        nonlocal fault_ns
        robot.healthy()
        robot.wait_until_moving()
        fault(robot)
        fault_ns, count = time.time_ns(), len(robot.verdicts)
        held = ["hold_stale"] * HOLD_TICKS
        robot.wait_for(lambda: robot.said(count)[-HOLD_TICKS:] == held, "it holds")
        robot.wait_for(robot.is_paired, "all halves")
        return "hold_other_commander" not in robot.said(count)

    assert any(trial() for _ in range(3))
    commands = robot.arrays()
    for command in commands[-HOLD_TICKS:]:
        np.testing.assert_array_equal(command, commands[-HOLD_TICKS - 1])
    # By the commands, because on a busy machine not every verdict has one.
    moved_ns = max(
        stamp_to_ns(msg.header.stamp)
        for msg, before, command in zip(robot.commands[1:], commands, commands[1:], strict=False)
        if not np.array_equal(before, command, equal_nan=True)
    )
    assert moved_ns <= fault_ns + MAX_OBS_AGE_S * S
    assert robot.status("hold_stale: ").level == WARN
    robot.healthy()
    robot.wait_until_moving()


@pytest.mark.parametrize("opening", [math.nan, math.inf, 7.5])
def test_opening_that_cannot_be_is_refused_and_stops_the_arm(robot, opening):
    robot.wait_until_moving()
    robot.opening = opening
    robot.wait_for(lambda: robot.said()[-HOLD_TICKS:] == ["hold_stale"] * HOLD_TICKS, "it holds")
    assert robot.status("gripper/state: ").level == ERROR
    robot.healthy()
    robot.wait_until_moving()


def test_a_camera_that_changes_while_the_arm_moves_stops_it_with_an_error(robot):
    robot.wait_until_moving()

    def widen(camera, msg):
        if camera == "right":
            msg = rgb_to_image(np.zeros((64, 128, 3), np.uint8), 0, camera)
            msg.header.stamp = ns_to_stamp(time.time_ns())
        return msg

    robot.edit = widen
    robot.wait_for(lambda: robot.said()[-HOLD_TICKS:] == ["hold_stale"] * HOLD_TICKS, "it holds")
    assert (
        robot.status(
            "camera right: its pictures are 128x64 px, aspect 2:1, but 64x64 px, aspect 1:1, are wanted"
        ).level
        == ERROR
    )
    robot.healthy()
    robot.wait_until_moving()


def test_without_all_input_it_is_not_activated_and_says_what_is_missing(robot, node):
    client = robot.client
    assert client.change("policy_node", "deactivate", robot.publish)
    assert client.change("policy_node", "cleanup", robot.publish)
    robot.silent = {"right", "gripper"}  # before its subscriptions are made: they must never have heard these
    assert client.change("policy_node", "configure", robot.publish)
    robot.clear()
    expected = "not ready: camera right: nothing received; gripper: nothing received"

    def is_refused() -> bool:  # the first time, perhaps before the other streams are heard
        assert not client.change("policy_node", "activate", robot.publish)
        return expected in node.log

    robot.wait_for(is_refused, "the reason")
    assert client.state("policy_node") == "inactive"
    assert robot.commands == []
    robot.healthy()
    robot.activate()
    robot.wait_until_moving()


def test_started_by_itself_it_waits_for_what_never_came(start_node, client, checkpoint):
    client.watched.append(start_node("dp_ros.ros.nodes.policy_node", parameters(checkpoint)))
    robot = Robot(client)
    robot.silent = {"right", "gripper"}
    waiting = "waiting for the first observation: camera right: nothing received; gripper: nothing received"
    assert robot.status(waiting).level == WARN
    assert robot.commands == []


# ---- how it starts and ends ----------------------------------------------------------------------------


def one_line(node) -> str:
    """The one line that says why the node ended, with code 1 and without a traceback."""
    assert node.wait(240.0) == 1  # many start at once
    assert "Traceback" not in node.log
    said = [line for line in node.log.splitlines() if line.startswith(("policy_node: ", "node: "))]
    assert len(said) == 1
    assert node.log.rstrip().endswith(said[0])
    return said[0]


def test_a_wrong_checkpoint_or_parameter_ends_it_with_one_line(start_node, checkpoint, tmp_path):
    corrupt = Path(shutil.copytree(checkpoint, tmp_path / "corrupt"))
    weights = bytearray((corrupt / "policy.safetensors").read_bytes())
    weights[-1] ^= 1
    (corrupt / "policy.safetensors").write_bytes(weights)
    cases = {
        "/no/such/checkpoint: does not exist": {"checkpoint": "/no/such/checkpoint"},
        "checkpoint is empty: give the folder of a checkpoint": {"checkpoint": ""},
        "did you mean handle-press-v3-unet?": {"checkpoint": "models/handle-press"},
        "copy the checkpoint again": {"checkpoint": str(corrupt)},
        "gate.max_speed_m_s": {"gate": {"max_speed_m_s": -1.0}},
        "command_delay_s 1 is ": {"command_delay_s": 1.0},
        "unknown parameter 'gate.max_sped_m_s'; did you mean 'gate.max_speed_m_s'?": {
            "gate": {"max_sped_m_s": 0.4}
        },
        "0.005 m in a tick is 0.1 m/s at this rate of 20 Hz; give max_speed_m_s: 0.1": {
            "gate": {"max_step_m": 0.005}
        },
    }
    nodes = [
        start_node("dp_ros.ros.nodes.policy_node", parameters(checkpoint, **wrong))
        for wrong in cases.values()
    ]
    for node, expected in zip(nodes, cases, strict=True):
        assert expected in one_line(node)


def test_its_checkpoint_is_named_as_in_every_command(start_node, client, checkpoint, tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copytree(checkpoint, run / "checkpoint")
    monkeypatch.setenv("HOME", str(tmp_path))
    node = start_node("dp_ros.ros.nodes.policy_node", parameters("~/run", autostart=False))
    client.watched.append(node)
    assert client.change("policy_node", "configure")
    assert f"{run / 'checkpoint'}: unet, cameras left, right" in node.log


def test_a_camera_that_is_wrong_before_anything_moved_ends_it_with_one_line(start_node, client, checkpoint):
    def wide(camera, msg):
        return rgb_to_image(np.zeros((64, 128, 3), np.uint8), time.time_ns(), "lens")

    def depth(camera, msg):
        msg.encoding = "32FC1"
        return msg

    cases = (
        (
            "wide",
            wide,
            "its pictures are 128x64 px, aspect 2:1, but 64x64 px, aspect 1:1, are wanted: set the camera to 1:1",
        ),
        ("depth", depth, "image '32FC1' of frame '"),
    )
    nodes, robots = [], []
    for name, edit, _ in cases:
        values = parameters(checkpoint)
        nodes.append(start_node("dp_ros.ros.nodes.policy_node", values, "-r", f"__ns:=/{name}"))
        robots.append(Robot(client, name))
        robots[-1].edit = edit
    publish = functools.partial(map_publish, robots)
    for node, (_, _, expected) in zip(nodes, cases, strict=True):
        client.wait_for(lambda node=node: node.process.poll() is not None, "the node ends", meanwhile=publish)
        line = one_line(node)
        assert expected in line
        assert line.startswith(("policy_node: camera left: ", "policy_node: camera right: "))
    assert not [robot for robot in robots if robot.commands]


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_damaged_first_pictures_are_lost_frames(start_node, client, checkpoint, transport):
    """A link that is just coming up cuts the first JPEG, or sends a short Image: the next one may be whole."""
    node = start_node("dp_ros.ros.nodes.policy_node", parameters(checkpoint, image_transport=transport))
    client.watched.append(node)
    robot = Robot(client, compressed=transport == "compressed")

    def cut(camera, msg):
        msg.data = msg.data[: len(msg.data) // 2]
        return msg

    robot.edit = cut
    says = {"raw": "the publisher must send whole images", "compressed": "not one whole JPEG or PNG"}[
        transport
    ]
    robot.wait_for(lambda: says in node.log, "the damage is named")
    assert robot.commands == []
    robot.healthy()
    robot.wait_until_moving()


def test_a_wall_clock_that_is_set_changes_no_interval_and_stops_nothing(
    start_node, client, checkpoint, tmp_path, shifted_node
):
    """As by a time server: the sensors' stamps step with it. A step of a part of a tick makes no command faster."""
    back_s = tmp_path / "back_s"
    back_s.write_text("0")
    program = [shifted_node("policy_node", "PolicyNode"), str(back_s)]
    values = parameters(checkpoint, command_rate_hz=8 * RATE_HZ)
    node = start_node("dp_ros.ros.nodes.policy_node", values, program=program)
    client.watched.append(node)
    robot, times = Robot(client), client.listen(JointState, "policy/times")
    robot.wait_for(lambda: robot.said() and not robot.said()[-1].startswith("hold"), "the arm moves")
    robot.clear()
    for seconds in (20.0, 20.02, -3600.0, 0.0):
        write_text(back_s, f"{seconds}")  # in one rename: the node reads it meanwhile
        robot.stamp_of = dict.fromkeys(
            robot.stamp_of, lambda now_ns, seconds=seconds: now_ns - round(seconds * S)
        )
        count = len(robot.verdicts)
        robot.wait_until_moving()
        robot.wait_for(lambda count=count: len(robot.verdicts) > count + 10, "ticks")

        def is_stamped(seconds=seconds) -> bool:
            stamps_ns = [stamp_to_ns(heard[-1].header.stamp) for heard in (robot.commands, times)]
            return all(abs(time.time_ns() - round(seconds * S) - each_ns) < 10 * S for each_ns in stamps_ns)

        robot.wait_for(is_stamped, "stamps of the new time")
    steps_m = np.linalg.norm(np.diff([array[:3] for array in robot.arrays()], axis=0), axis=1)
    assert steps_m.max() <= MAX_SPEED_M_S / RATE_HZ + 1e-9  # a late command may use the time of one tick
    set_s = [float(found) for found in re.findall(r"the clock was set by ([-+][0-9.]+) s", node.log)]
    for seconds in (-20.0, -0.02):  # two clocks are read one after the other
        assert min(abs(found - seconds) for found in set_s) < 0.005
    assert "time went back" not in node.log


def map_publish(robots) -> None:
    for robot in robots:
        robot.publish()


def test_it_ends_in_silence_and_with_a_hold_however_it_is_asked(start_node, client, checkpoint):
    """SIGINT and SIGTERM, once and again and again. Two of the four see their cameras through JPEG."""
    cases = {
        "int": (signal.SIGINT, False, "raw"),
        "ints": (signal.SIGINT, True, "compressed"),
        "term": (signal.SIGTERM, False, "compressed"),
        "terms": (signal.SIGTERM, True, "raw"),
    }
    robots = {
        name: Robot(client, name, compressed=transport == "compressed")
        for name, (_, _, transport) in cases.items()
    }
    for _ in range(3):  # a node that hangs as it ends, on a busy machine, must be silent
        nodes = {
            name: start_node(
                "dp_ros.ros.nodes.policy_node",
                parameters(checkpoint, image_transport=transport),
                *("-r", f"__ns:=/{name}"),
            )
            for name, (_, _, transport) in cases.items()
        }
        publish = functools.partial(map_publish, [robots[name] for name in cases])
        client.watched = list(nodes.values())
        for name in cases:
            robots[name].clear()
            client.wait_for(functools.partial(is_moving, robots[name]), "the arm moves", 240.0, publish)
        client.watched = []
        ended = {
            name: ends_with_a_hold(nodes[name], robots[name], signum, again, publish)
            for name, (signum, again, _) in cases.items()
        }
        cases = {name: case for name, case in cases.items() if not ended[name]}
        if not cases:
            return
    pytest.fail(f"no hold comes last: {', '.join(cases)}")


def is_moving(robot: Robot) -> bool:
    return len(robot.verdicts) > 5 and not robot.said()[-1].startswith("hold")


def ends_with_a_hold(node, robot: Robot, signum: int, again: bool, publish) -> bool:
    """Ask the node to end, perhaps again and again; whether its last command is a hold of its own."""
    ahead = []
    robot.client.wait_for(
        lambda: ahead.append(robot.commands_without_verdict()) or len(ahead) > 20,
        "twenty looks",
        meanwhile=publish,
    )
    node.process.send_signal(signum)

    def ended() -> bool:
        if again and node.process.poll() is None:
            node.process.send_signal(signum)
        return node.process.poll() is not None

    robot.client.wait_for(ended, "its end", meanwhile=publish)
    assert node.process.returncode == 0
    assert "Traceback" not in node.log
    assert "rror" not in node.log
    robot.client.take_all()
    # On a busy machine the arm may have held before, but only the last command has no verdict.
    return robot.is_told_to_hold() and robot.commands_without_verdict() == min(ahead) + 1


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_executable_ends_in_silence_also_while_it_is_importing(ros_environment, signum):
    process = subprocess.Popen(
        [sys.executable, "-c", "from dp_ros.ros.nodes.start import policy_node; policy_node()"],
        env=ros_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    maps = Path(f"/proc/{process.pid}/maps")
    deadline = time.monotonic() + 120.0
    while "_rclpy_pybind11" not in maps.read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(signum)
    said, _ = process.communicate(timeout=120.0)
    assert (process.returncode, said) == (0, b"")


# ---- attacks that need a node of their own -------------------------------------------------------------


def test_a_policy_that_answers_nan_holds_and_drawing_it_does_no_harm(start_node, client, make_checkpoint):
    def spoil(policy):
        for parameter in policy.network.parameters():
            parameter.data.fill_(3e38)  # finite, but their sums are not

    encoder = {"cameras": CAMERAS}
    spoiled = make_checkpoint("not_a_number", spoil=spoil, encoder=encoder, rate_hz=RATE_HZ)
    client.watched.append(start_node("dp_ros.ros.nodes.policy_node", parameters(spoiled)))
    robot = Robot(client)
    drawn = client.listen(PathMsg, "policy/path"), client.listen(MarkerArray, "policy/markers")
    expected = ["hold_not_finite"] * HOLD_TICKS
    robot.wait_for(lambda: robot.said()[-HOLD_TICKS:] == expected, "it holds")
    for *_, command in robot.decisions():
        np.testing.assert_array_equal(command, [*HOME_M, math.nan])
    assert robot.grippers == []
    assert drawn[0] == []
    robot.wait_for(lambda: drawn[1], "markers")
    for array in drawn[1]:
        assert not {"plan", "executed"} & {marker.ns for marker in array.markers}


def test_pictures_unlike_the_training_are_warned_of_and_hold_the_arm_where_the_gate_asks(
    start_node, client, make_checkpoint
):
    folder = make_checkpoint("described", encoder={"cameras": CAMERAS}, rate_hz=RATE_HZ)
    coordinates = 2 * policy_config(folder).encoder.keypoints
    alike = [1e-3 * np.random.default_rng(i).normal(size=(50, coordinates)) for i in range(4)]
    add_ood_stats(folder, fit_ood_stats(alike[:2], alike[2:]))  # no picture is like these
    node = start_node("dp_ros.ros.nodes.policy_node", parameters(folder))
    client.watched.append(node)
    robot = Robot(client)
    robot.wait_until_moving()
    status = robot.wait_for(
        lambda: [msg.status[0] for msg in robot.diagnostics if "unlike" in msg.status[0].message], "a warning"
    )[-1]
    assert status.level == WARN
    assert "; the pictures of camera" in status.message  # after the verdict, which did not change
    assert float({pair.key: pair.value for pair in status.values}["ood_score"]) > 1.0
    assert node.log.count("are unlike those of the training") == 1  # of its beginning, not of each tick
    assert "hold_ood" not in robot.said()
    assert set_parameters(client, **{"gate.max_ood_score": 1.0}) == [""]  # tighter, while the arm moves
    robot.wait_for(lambda: robot.said()[-HOLD_TICKS:] == ["hold_ood"] * HOLD_TICKS, "it holds")
    robot.wait_for(robot.is_told_to_hold, "it stands still")
    assert "gate.max_ood_score 1" in robot.status("hold_ood").message


def test_an_arm_measured_outside_the_workspace_gets_no_command(shared_robot, node):
    """Millimetres taken for metres: `hold where you are` would be a command to fly."""
    robot = shared_robot
    robot.healthy()
    robot.clear()
    robot.position_m = (0.0, 600.0, 200.0)
    old_s = time.monotonic() + 2 * MAX_OBS_AGE_S
    robot.wait_for(lambda: time.monotonic() > old_s, "a pose from before it is old")
    why = "not ready: the arm is measured at (0, 600, 200) m, outside the workspace"
    robot.wait_for(
        lambda: robot.client.change("policy_node", "activate", robot.publish) or why in node.log, "refused"
    )
    assert robot.client.state("policy_node") == "inactive"
    assert robot.commands == []
    robot.healthy()
    robot.activate()
    robot.wait_until_moving()
    robot.position_m = (0.0, 600.0, 200.0)  # in the middle of an episode only the policy could use it
    count = len(robot.verdicts)
    robot.wait_for(lambda: len(robot.verdicts) > count + 5, "commands")
    robot.healthy()
    assert robot.client.change("policy_node", "deactivate", robot.publish)
    positions = np.array([(m.pose.position.x, m.pose.position.y, m.pose.position.z) for m in robot.commands])
    assert (positions >= LOW_M).all()
    assert (positions <= HIGH_M).all()


def test_lockstep_answers_each_observation_once_whatever_comes_besides(start_node, client, checkpoint):
    """Doubled, late, early, incomplete, of another episode: every observation gets its one command or none."""
    client.watched.append(
        start_node("dp_ros.ros.nodes.policy_node", parameters(checkpoint, mode="lockstep", autostart=False))
    )
    assert client.change("policy_node", "configure")
    assert client.change("policy_node", "activate")
    reliable = LockstepRobot(client)
    t0, dt = 100 * S, round(S / RATE_HZ)
    reliable.publish(t0)
    first = reliable.answer(t0)
    assert np.linalg.norm(first[:3] - HOME_M) <= 0.02 + 1e-9

    reliable.publish(t0, position_m=(0.1, 0.7, 0.3))  # asked again: the same answer again
    np.testing.assert_array_equal(reliable.answer(t0), first)
    reliable.publish(t0 - dt)  # late
    reliable.publish(t0 + 5 * dt, skip={"gripper"})  # never complete
    reliable.publish(t0 + dt)
    reliable.answer(t0 + dt)
    reliable.publish(t0 + dt - 1)
    reliable.publish(t0 + 2 * dt, backwards=True)  # the pictures first
    reliable.answer(t0 + 2 * dt)
    assert reliable.stamps() == [t0, t0 + dt, t0 + 2 * dt]

    for stamp_ns in (0, -5 * S, 2 * S):  # time begins anew: an episode that starts where the arm is
        reliable.publish(stamp_ns, position_m=(0.1, 0.7, 0.3))
        assert np.linalg.norm(reliable.answer(stamp_ns)[:3] - (0.1, 0.7, 0.3)) <= 0.02 + 1e-9

    reliable.clear()
    reliable.publish(50 * S, position_m=(math.nan, 0.6, 0.2))
    reliable.publish(60 * S, position_m=(0.0, 0.6, 5.0))
    reliable.publish(70 * S)
    reliable.answer(70 * S)
    assert reliable.stamps() == [70 * S]

    for _ in range(5):  # deactivated while it plans; then the same stamp, but the arm is elsewhere
        reliable.clear()
        reliable.publish(80 * S)
        assert client.change("policy_node", "deactivate")
        client.take_all()
        answered = len(reliable.commands)
        assert client.change("policy_node", "activate")
        reliable.publish(80 * S, position_m=(0.2, 0.8, 0.1))
        client.wait_for(lambda: len(reliable.commands) > answered, "the answer")  # noqa: B023
        assert np.linalg.norm(reliable.answer(80 * S)[:3] - (0.2, 0.8, 0.1)) <= 0.02 + 1e-9


class LockstepRobot:
    """Publishes whole observations with the stamps it is told, reliably, and waits for their answers."""

    def __init__(self, client):
        self.client = client
        create = functools.partial(client.node.create_publisher, qos_profile=10)
        self._images = {c: create(Image, f"camera/{c}/image_raw") for c in CAMERAS}
        self._pose, self._gripper = create(PoseStamped, "ee_pose"), create(JointState, "gripper/state")
        self.commands = client.listen(PoseStamped, "command/ee_pose")
        self.grippers = client.listen(JointState, "command/gripper")
        publishers = (*self._images.values(), self._pose, self._gripper)
        client.wait_for(lambda: all(p.get_subscription_count() for p in publishers), "the node listens")
        client.wait_for(
            lambda: all(client.node.count_publishers(f"command/{half}") for half in ("ee_pose", "gripper")),
            "",
        )
        client.wait_until_active("policy_node")  # asked for the first time: then the node knows the listeners

    def publish(self, stamp_ns: int, position_m=HOME_M, skip=(), backwards=False) -> None:
        pose = position_to_pose(np.zeros(3), DOWN, stamp_ns, "arm_base")
        pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = map(float, position_m)
        sends = [lambda: self._pose.publish(pose)]
        if "gripper" not in skip:
            sends.append(lambda: self._gripper.publish(gripper_state(1.0, stamp_ns)))
        for publisher in self._images.values():
            pixels = np.full((64, 64, 3), stamp_ns % 251, np.uint8)
            pixels[32:] ^= 128
            picture = rgb_to_image(pixels, stamp_ns, "lens")
            sends.append(functools.partial(publisher.publish, picture))
        for send in reversed(sends) if backwards else sends:
            send()

    def stamps(self) -> list[int]:
        """Of the commands, without what was only said again."""
        return list(dict.fromkeys(stamp_to_ns(msg.header.stamp) for msg in self.commands))

    def answer(self, stamp_ns: int) -> np.ndarray:
        """The newest command (4,) with this stamp, once it is there."""
        self.client.wait_for(
            lambda: len(self.commands) == len(self.grippers) and stamp_ns in self.stamps()[-1:],
            f"the answer to {stamp_ns}",
        )
        assert self.commands[-1].header.stamp == self.grippers[-1].header.stamp
        return as_array(self.commands[-1], self.grippers[-1].effort[0])

    def clear(self) -> None:
        self.commands.clear()
        self.grippers.clear()


def test_jumps_of_simulated_time_never_make_old_observations_new(start_node, client, checkpoint):
    """The test is the clock: the node ticks when it says so."""
    values = parameters(checkpoint, use_sim_time=True)
    client.watched.append(start_node("dp_ros.ros.nodes.policy_node", values))
    robot = Robot(client)
    clock = client.node.create_publisher(Clock, "/clock", 10)
    dt_ns = round(S / RATE_HZ)

    now_ns, due_s = 1000 * S, 0.0

    def tick(sensing: bool) -> tuple[str, np.ndarray]:
        """Let time pass until the node has ticked: (verdict, command). After a jump back its timer waits."""
        nonlocal due_s
        robot.clear()
        before_ns = now_ns
        due_s = time.monotonic() + (1.0 / RATE_HZ if sensing else 0.0)  # a plan must have time to be made

        def is_newest() -> bool:  # a slow node ticks for each of the times that it was told
            stamps_ns = [stamp_to_ns(msg.header.stamp) for msg in robot.commands[-1:]]
            return now_ns != before_ns and stamps_ns == [now_ns] and robot.commands_without_verdict() == 0

        client.wait_for(is_newest, "a tick", meanwhile=lambda: pass_time(sensing))
        client.wait_for(robot.is_paired, "all of it")
        return robot.said()[-1], robot.arrays()[-1]

    def pass_time(sensing: bool) -> None:
        nonlocal now_ns, due_s
        if time.monotonic() >= due_s:
            due_s = time.monotonic() + 0.3
            now_ns += dt_ns
            if sensing:
                robot.publish(now_ns)
            clock.publish(Clock(clock=ns_to_stamp(now_ns)))

    client.wait_until_active("policy_node")
    for jump_ns in (100 * S, -3 * S, -S, -S // 2):
        verdicts_and_commands = (tick(sensing=True) for _ in range(400))
        moving = next((command for verdict, command in verdicts_and_commands if verdict[:4] != "hold"), None)
        assert moving is not None, client.watched[0].log
        now_ns += jump_ns
        for _ in range(25):
            verdict, command = tick(sensing=False)
            assert verdict == "hold_stale"
            np.testing.assert_array_equal(command, moving)
    before, speed_m_s = HOME_M, 0.0
    while speed_m_s < 0.5 * MAX_SPEED_M_S:
        verdict, command = tick(sensing=True)
        speed_m_s = np.linalg.norm(command[:3] - before) * RATE_HZ if verdict[:4] != "hold" else 0.0
        before = command[:3]
    braking_m_s2 = speed_m_s * RATE_HZ / 4
    assert set_parameters(client, **{"gate.max_acceleration_m_s2": braking_m_s2}) == [""]
    robot.clear()
    assert client.change("policy_node", "deactivate", lambda: pass_time(sensing=True))
    client.take_all()
    client.wait_for(robot.is_paired, "all of it")
    way_m = np.diff([before, *(array[:3] for array in robot.arrays())], axis=0)
    assert len(way_m) >= 4  # each at its simulated time; the last one is at rest
    assert np.linalg.norm(np.diff(way_m, axis=0), axis=1).max() * RATE_HZ**2 <= braking_m_s2 * (1 + 1e-6)
    assert np.linalg.norm(way_m[-1]) * RATE_HZ**2 <= braking_m_s2 * (1 + 1e-6)
