"""QoS, time and parameter files of other people's graphs: the node works with them, or its diagnostics say why not."""

import time
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState, Joy
from std_msgs.msg import String

from dp_ros.ros.messages.conversions import ns_to_stamp

OK, WARN, ERROR = b"\x00", b"\x01", b"\x02"
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.fixture
def start(start_node, client):
    """start(name, parameters) -> OurNode, active."""

    def begin(name: str, parameters: dict):
        node = start_node(f"dp_ros.ros.nodes.{name}", {"autostart": True, **parameters})
        client.watched.append(node)
        client.wait_until_active(name)
        return node

    return begin


@pytest.fixture
def status(client):
    """status(node, level, part, meanwhile) waits until the node's diagnostics have that level and hold that part."""
    heard = client.listen(DiagnosticArray, "/diagnostics")

    def wait(node: str, level: bytes, part: str, meanwhile=None) -> None:
        def found() -> bool:
            own = [m.status[0] for m in heard if m.status[0].name == f"/{node}"][-1:]
            return any(each.level == level and part in each.message for each in own)

        client.wait_for(found, f"{node}: {part}", meanwhile=meanwhile)

    return wait


def recorder(tmp_path: Path, **changes) -> dict:
    return {"folder": str(tmp_path), "cameras": ["left"], "mode": "lockstep", **changes}


@pytest.mark.parametrize("profile", [BEST_EFFORT, QoSProfile(depth=10)], ids=["best effort", "reliable"])
def test_teleoperation_hears_every_gamepad_driver(start, client, profile: QoSProfile) -> None:
    start("teleop_node", {"joy_timeout_s": 0.5})
    verdicts = client.listen(String, "teleop/verdict")
    joy = client.node.create_publisher(Joy, "joy", profile)

    def publish() -> None:
        msg = Joy(axes=[0.0] * 8, buttons=[0] * 11)
        msg.header.stamp = ns_to_stamp(time.time_ns())
        joy.publish(msg)

    client.wait_for(lambda: "hold_released" in [m.data for m in verdicts], "the gamepad", meanwhile=publish)


def test_a_publisher_that_cannot_be_heard_is_named_while_it_is_there(
    start, client, status, tmp_path: Path
) -> None:
    start("recorder_node", recorder(tmp_path))
    word = client.node.create_publisher(String, "record/command", BEST_EFFORT)
    why = "/record/command: nothing of test_client arrives (best effort publisher and reliable subscription)"
    status("recorder_node", ERROR, why)
    client.node.destroy_publisher(word)
    status("recorder_node", WARN, "nobody publishes")


def publish_sensors(client, *more: tuple[type, str]) -> list:
    """Publishers of what the recorder waits for, and of `more`."""
    sensors = ((Image, "camera/left/image_raw"), (PoseStamped, "ee_pose"), (JointState, "gripper/state"))
    return [client.node.create_publisher(kind, topic, BEST_EFFORT) for kind, topic in (*sensors, *more)]


def test_a_subscriber_that_cannot_hear_the_node_is_named_while_it_is_there(
    start, client, status, tmp_path: Path
) -> None:
    publish_sensors(client)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    wrong = [
        client.node.create_subscription(DiagnosticArray, "/diagnostics", lambda msg: None, latched),
        client.node.create_subscription(Joy, "record/status", lambda msg: None, 10),
    ]
    start("recorder_node", recorder(tmp_path))
    why = "volatile publisher and transient local subscription"
    status("recorder_node", WARN, f"/diagnostics: nothing arrives at test_client ({why}): change its QoS")
    types = "it has sensor_msgs/msg/Joy, this node std_msgs/msg/String"
    status("recorder_node", WARN, f"/record/status: nothing arrives at test_client ({types})")
    for subscription in wrong:
        client.node.destroy_subscription(subscription)
    status("recorder_node", OK, "idle")


def test_two_cameras_on_one_topic_are_a_warning_while_both_are_there(
    start, client, status, tmp_path: Path
) -> None:
    # A second camera; the joint states of several nodes are no mixture.
    *_, other, _ = publish_sensors(client, (Image, "camera/left/image_raw"), (JointState, "gripper/state"))
    start("recorder_node", recorder(tmp_path))
    status(
        "recorder_node",
        WARN,
        "/camera/left/image_raw: 2 publishers mix their messages (test_client): stop all",
    )
    client.node.destroy_publisher(other)
    status("recorder_node", OK, "idle")


@pytest.mark.parametrize("name", ["teleop_node", "policy_node"])
def test_a_node_in_simulated_time_says_that_it_waits_for_the_clock(
    start, client, status, push_checkpoint, name: str
) -> None:
    given = {"teleop_node": {}, "policy_node": {"checkpoint": str(push_checkpoint), "mode": "realtime"}}[name]
    start(name, {"use_sim_time": True, **given})
    status(name, WARN, "waiting for time on /clock: start the simulator, or set use_sim_time to false")
    clock = client.node.create_publisher(Clock, "/clock", 10)

    def run() -> None:
        clock.publish(Clock(clock=ns_to_stamp(1_000_000_000 + time.monotonic_ns())))

    status(name, WARN, "no Joy message" if name == "teleop_node" else "nothing received", meanwhile=run)


def test_an_empty_list_in_a_parameter_file_is_an_empty_list(start, client, tmp_path: Path) -> None:
    """ROS gives it no type, and so no value."""
    node = start("recorder_node", recorder(tmp_path, cameras=[], topics=[]))
    assert "Traceback" not in node.log


@pytest.mark.parametrize("operator", [7, False])
def test_a_name_that_yaml_takes_for_another_type_is_refused_with_what_to_do(
    start_node, tmp_path: Path, operator: object
) -> None:
    node = start_node("dp_ros.ros.nodes.recorder_node", recorder(tmp_path, operator=operator))
    assert node.wait() == 1
    assert "parameter operator of recorder_node: must be a string" in node.log
    assert "needs quotes: '007'" in node.log
