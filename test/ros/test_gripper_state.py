"""A gripper that shares /joint_states with its arm, in its own joint and range: the live nodes with `gripper_joint` and
`gripper_range`."""

import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState, Joy
from std_msgs.msg import String

from dp_ros.ros.messages.conversions import ns_to_stamp, position_to_pose
from dp_ros.ros.messages.images import rgb_to_image
from dp_ros.schema import JoyLayout

HOME_M = (0.0, 0.6, 0.2)
DOWN = (0.0, 1.0, 0.0, 0.0)  # quaternion x, y, z, w
PERIOD_S = 0.025
ROBOTIQ = {"gripper_joint": "finger_joint", "gripper_range": [0.8, 0.0]}  # 0.8 is closed
GATE = {"max_obs_age_s": 0.5}  # for a busy machine
POLICY_GATE = {
    **GATE,
    "max_skew_s": 0.5,
    "max_distance_m": 0.0,
    "max_frozen_s": 0.0,
}  # and an arm that does not move
REMAPPED = ("-r", "gripper/state:=/joint_states")
OUTSIDE = "gripper/state: position 0.9 is outside 0.8 to 0: give the values that mean closed and open with "
OK, WARN, ERROR = b"\x00", b"\x01", b"\x02"


class Robot:
    """An arm that does not move: a camera, a pose, a gamepad, and two drivers of joints on one topic."""

    def __init__(self, client):
        self.client = client
        create = client.node.create_publisher
        self._image = create(Image, "camera/gripperPOV/image_raw", qos_profile_sensor_data)
        self._pose = create(PoseStamped, "ee_pose", qos_profile_sensor_data)
        self._arm = create(JointState, "/joint_states", 10)  # reliable, as joint_state_broadcaster
        self._hand = create(JointState, "/joint_states", 10)
        self._joy = create(Joy, "joy", 10)
        self.grippers = client.listen(JointState, "command/gripper")
        self.verdicts = client.listen(String, "policy/verdict")
        self.diagnostics = client.listen(DiagnosticArray, "/diagnostics")
        self._pixels = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
        self._due_s, self._tick = 0.0, 0
        self.position: float | None = None  # of the gripper's joint; None: its driver is silent
        self.is_driven = False

    def publish(self) -> None:
        if time.monotonic() < self._due_s:
            return
        self._due_s, self._tick = time.monotonic() + PERIOD_S, self._tick + 1
        now_ns = time.time_ns()
        self._arm.publish(joints(now_ns, lift=0.4))
        if self.position is not None:
            self._hand.publish(joints(now_ns, left_knuckle=9.9, finger_joint=self.position))
        self._arm.publish(joints(now_ns, shoulder=0.9, elbow=-1.2))
        self._pose.publish(position_to_pose(HOME_M, DOWN, now_ns, "arm_base"))
        self._image.publish(rgb_to_image(self._pixels[self._tick % 8], now_ns, "lens"))
        self._joy.publish(self._gamepad(now_ns))

    def _gamepad(self, now_ns: int) -> Joy:
        msg = Joy(axes=[0.0] * 8, buttons=[0] * 11)
        msg.buttons[JoyLayout().deadman_button] = int(self.is_driven)
        msg.header.stamp = ns_to_stamp(now_ns)
        return msg

    def wait_for(self, done, what: str):
        return self.client.wait_for(done, what, meanwhile=self.publish)

    def status(self, levels: bytes, begins: str, **values: str) -> None:
        """Wait for diagnostics of one of these levels whose message begins so and whose values are these."""
        self.diagnostics.clear()

        def found() -> bool:
            return any(
                status.level in levels
                and status.message.startswith(begins)
                and values.items() <= {pair.key: pair.value for pair in status.values}.items()
                for msg in self.diagnostics
                for status in msg.status
            )

        self.wait_for(found, f"diagnostics that say '{begins}' and {values}")


def joints(stamp_ns: int, **positions: float) -> JointState:
    msg = JointState(name=list(positions), position=list(positions.values()))
    msg.header.stamp = ns_to_stamp(stamp_ns)
    return msg


def test_policy_observes_the_opening_of_the_named_joint_in_its_range(start_node, client, push_checkpoint):
    values = {
        "checkpoint": str(push_checkpoint),
        "threads": 1,
        "gate": POLICY_GATE,
        "autostart": True,
        **ROBOTIQ,
    }
    node = start_node("dp_ros.ros.nodes.policy_node", values, *REMAPPED)
    client.watched.append(node)
    robot = Robot(client)
    robot.status(WARN, "waiting for the first observation: gripper: nothing received", gripper_opening="none")
    assert robot.verdicts == []
    for position, opening in ((0.2, "0.750"), (0.8, "0.000"), (0.0, "1.000")):
        robot.position = position
        robot.status(OK + WARN, "", gripper_opening=opening)  # a busy machine warns of plans that come late
    assert (
        "gripper/state" not in node.log
    )  # the arm's messages are not refused: they are none of the gripper's

    robot.position = 0.9
    robot.status(ERROR, OUTSIDE, verdict="hold_stale", gripper_opening="1.000")
    assert node.log.count(OUTSIDE) == 1
    robot.position = 0.4
    robot.status(OK + WARN, "", gripper_opening="0.500")
    robot.position = None  # only the arm's messages are left
    robot.status(WARN, "hold_stale", verdict="hold_stale")


def test_teleoperation_begins_with_the_opening_of_the_named_joint_in_its_range(start_node, client):
    values = {"rate_hz": 40.0, "joy_timeout_s": 0.5, "gate": GATE, "autostart": True, **ROBOTIQ}
    node = start_node("dp_ros.ros.nodes.teleop_node", values, *REMAPPED)
    client.watched.append(node)
    robot = Robot(client)
    robot.position = 0.9
    robot.status(WARN, OUTSIDE)
    assert node.log.count(OUTSIDE) == 1
    robot.position = 0.2
    robot.status(OK, "hold_released")
    assert robot.grippers == []
    robot.is_driven = True
    robot.wait_for(lambda: robot.grippers, "the first command")
    assert robot.grippers[0].effort[0] == pytest.approx(-0.5)  # an opening of 0.75


def test_a_joint_that_is_not_named_stops_the_policy_rather_than_be_taken_for_the_gripper(
    start_node, client, push_checkpoint
):
    """Without gripper_joint: `lift` comes alone and could be the gripper, until other joints come on its topic."""
    values = {"checkpoint": str(push_checkpoint), "threads": 1, "gate": POLICY_GATE, "autostart": True}
    client.watched.append(start_node("dp_ros.ros.nodes.policy_node", values, *REMAPPED))
    robot = Robot(client)
    robot.position = 0.2
    says = "gripper/state: joint state: 2 position values for joints "
    for _ in range(2):  # a second apart: what it had observed before is old by then
        robot.status(ERROR, says)
    count = len(robot.verdicts)
    for _ in range(2):
        robot.status(ERROR, says)
    assert {msg.data for msg in robot.verdicts[count:]} <= {"hold_stale"}
