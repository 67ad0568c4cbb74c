"""The recorder over DDS: episodes by service and by topic, no message lost in silence."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path

import numpy as np
import pytest

from dp_ros.data.bags.reader import BagReader
from dp_ros.data.bags.repair import repair
from dp_ros.ros.messages import conversions, images

MODULE = "dp_ros.ros.nodes.recorder_node"
SIZE = (24, 32)


class Robot:
    """A robot: publishes a camera, a pose, a gripper state, and a command for each observation."""

    def __init__(self, client, reliable: bool = True) -> None:
        from geometry_msgs.msg import PoseStamped
        from sensor_msgs.msg import Image, JointState
        from std_msgs.msg import Int64, String
        from std_srvs.srv import Trigger

        from dp_ros.ros.node import qos

        self.client, self.Trigger, self.String, self.Int64 = client, Trigger, String, Int64
        profile = qos.observations("lockstep" if reliable else "realtime")
        publish = client.node.create_publisher
        self.camera = publish(Image, "camera/left/image_raw", profile)
        self.pose = publish(PoseStamped, "ee_pose", profile)
        self.gripper = publish(JointState, "gripper/state", profile)
        self.command = publish(PoseStamped, "command/ee_pose", qos.RELIABLE)
        self.effort = publish(JointState, "command/gripper", qos.RELIABLE)
        self.task = publish(String, "episode/task", qos.LATCHED)
        self.seed = publish(Int64, "episode/seed", qos.LATCHED)
        self.result = publish(String, "episode/result", qos.RELIABLE_DEEP)
        self.word = publish(String, "record/command", qos.RELIABLE)
        self.note = publish(String, "record/note", qos.RELIABLE)
        self.statuses = []
        client.node.create_subscription(
            String, "record/status", lambda msg: self.statuses.append(json.loads(msg.data)), qos.LATCHED
        )
        self.task.publish(String(data="pour"))

    def ask(self, word: str):
        return self.client.call(self.Trigger, f"record/{word}", self.Trigger.Request())

    def start(self) -> Path:
        """Ask until the recorder has found all topics and all are connected."""
        from rclpy.duration import Duration

        topics = (self.camera, self.pose, self.gripper, self.command, self.effort, self.task, self.seed)
        self.client.wait_for(lambda: all(t.get_subscription_count() for t in topics), "recorder connected")
        assert self.task.wait_for_all_acked(Duration(seconds=20)), "the latched message has not arrived"
        answer = self.client.wait_for(lambda: (a := self.ask("start")).success and a, "episode started")
        return Path(answer.message)

    def tick(self, stamp_ns: int) -> None:
        picture = np.full((*SIZE, 3), stamp_ns % 251, dtype=np.uint8)
        quat = [0.0, 1.0, 0.0, 0.0]
        self.pose.publish(conversions.position_to_pose([stamp_ns / 1e9, 0.0, 0.0], quat, stamp_ns, "base"))
        self.gripper.publish(conversions.gripper_state(0.5, stamp_ns))
        self.camera.publish(images.rgb_to_image(picture, stamp_ns, "left"))
        self.command.publish(conversions.position_to_pose([0.0, 0.0, 0.0], quat, stamp_ns, "base"))
        self.effort.publish(conversions.effort_to_joint_state(0.0, stamp_ns))

    def run(self, ticks: int) -> None:
        for i in range(ticks):
            self.tick(i)
            self.client.spin_once(0.001)

    def ended(self, bag: Path) -> dict:
        """The recorder's report of the bag's end."""

        def end():
            return next((s for s in self.statuses if s["state"] == "idle" and s.get("bag") == str(bag)), None)

        return self.client.wait_for(end, f"{bag} ended")


@pytest.fixture
def recorder(start_node, client, tmp_path: Path):
    """recorder(**parameters) -> OurNode, active, that records to tmp_path/bags."""

    def start(**parameters):
        own = {"autostart": True, "folder": str(tmp_path / "bags"), "cameras": ["left"], "settle_s": 0.2}
        own |= {"min_free_mb": 1.0, "mode": "lockstep"}  # a robot that says nothing before it is asked
        node = start_node(MODULE, own | parameters)
        client.watched.append(node)
        client.wait_until_active("recorder_node")
        return node

    return start


def stamps(bag: Path, topic: str) -> list[int]:
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import Image

    with BagReader(bag) as reader:
        found = [deserialize_message(data, Image) for _, _, data in reader.messages([topic])]
    return [conversions.stamp_to_ns(msg.header.stamp) for msg in found]


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_an_episode_is_recorded_whole_and_says_what_it_was(recorder, client, compression: str) -> None:
    robot = Robot(client)
    recorder(compression=compression, operator="somebody", note="a remark")
    robot.run(5)  # before the episode: not part of it
    bag = robot.start()
    robot.seed.publish(robot.Int64(data=42))
    robot.run(100)
    assert robot.ask("success").success
    robot.tick(1000)  # after it
    status = robot.ended(bag)
    assert (status["outcome"], status["dropped"], status["problem"]) == ("success", {}, "")
    assert stamps(bag, "/camera/left/image_raw") == list(range(100))
    with BagReader(bag) as reader:
        custom, topics = reader.info.custom, reader.info.topics
    assert {key: custom[key] for key in ("task", "seed", "operator", "note", "outcome")} == {
        "task": "pour", "seed": "42", "operator": "somebody", "note": "a remark", "outcome": "success",
    }  # fmt: skip
    assert topics["/episode/task"] == ("std_msgs/msg/String", 1)  # latched: said before, true still
    assert {
        topics[name][1] for name in ("/ee_pose", "/gripper/state", "/command/ee_pose", "/command/gripper")
    } == {100}


def test_episodes_are_begun_and_ended_by_topic_and_numbered_on(recorder, client, tmp_path: Path) -> None:
    (tmp_path / "bags" / "episode_00007").mkdir(parents=True)
    robot = Robot(client)
    node = recorder()
    client.wait_for(robot.word.get_subscription_count, "recorder listens")
    bag = robot.start()
    assert bag.name == "episode_00008"
    outcomes = {"success": "success", "failure": "failure", "discard": "discarded"}
    for word, outcome in outcomes.items():
        if word != "success":
            robot.word.publish(robot.String(data="start"))
            client.wait_for(lambda: robot.statuses[-1]["state"] == "recording", "started by topic")
            bag = Path(robot.statuses[-1]["bag"])
        robot.run(3)
        robot.word.publish(robot.String(data=word))
        assert robot.ended(bag)["outcome"] == outcome
        with BagReader(bag) as reader:
            assert reader.info.outcome == outcome
    robot.word.publish(robot.String(data="stop"))
    client.wait_for(lambda: "record/command 'stop': is none of start, success" in node.log, "complaint")


def test_nothing_is_recorded_without_a_robot_and_never_two_at_once(recorder, client) -> None:
    from std_srvs.srv import Trigger

    from dp_ros.ros.node.qos import LATCHED

    recorder()
    answer = client.call(Trigger, "record/start", Trigger.Request())
    assert not answer.success
    assert answer.message.startswith("nobody publishes /camera/left/image_raw, /ee_pose, /gripper/state")
    assert client.call(Trigger, "record/success", Trigger.Request()).message == "no episode is being recorded"
    robot = Robot(client)
    bag = robot.start()
    assert client.forbidden("recorder_node") == []
    assert robot.ask("start").message == f"{bag} is still being recorded: end it first"
    assert robot.ask("success").success
    assert robot.ended(bag)["problem"].startswith("nothing arrived on /camera/left/image_raw, /ee_pose, ")
    session = client.node.create_publisher(robot.String, "policy/session", LATCHED)
    client.wait_for(lambda: "/policy/session has not arrived yet" in robot.ask("start").message, "refused")
    session.publish(robot.String(data="{}"))
    client.wait_for(lambda: robot.ask("start").success, "begun with the session")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_bag_with_all_that_arrived(recorder, client, signum: int) -> None:
    robot = Robot(client)
    node = recorder()
    bag = robot.start()
    robot.run(50)
    client.wait_for(lambda: robot.camera.wait_for_all_acked(), "pictures arrived")
    client.watched.clear()
    node.process.send_signal(signum)
    assert node.wait() == 0
    with BagReader(bag) as reader:
        assert reader.info.outcome == "unknown"
        assert reader.info.topics["/camera/left/image_raw"][1] == 50


def test_a_killed_recorder_leaves_a_bag_that_repair_makes_whole(recorder, client) -> None:
    robot = Robot(client)
    node = recorder(sync_s=0.1)
    bag = robot.start()
    robot.run(30)
    last = bytes([29]) * (SIZE[0] * SIZE[1] * 3)  # the picture of the last tick
    client.wait_for(lambda: any(last in f.read_bytes() for f in bag.glob("*.mcap")), "pictures on disk")
    client.watched.clear()
    node.process.kill()
    node.wait()
    assert repair(bag).messages > 30
    assert stamps(bag, "/camera/left/image_raw")[:30] == list(range(30))


def test_what_does_not_fit_the_queue_is_dropped_and_told(recorder, client) -> None:
    """A queue smaller than a picture: every picture is dropped and counted, all else is kept."""
    robot = Robot(client)
    node = recorder(queue_mb=0.002)
    bag = robot.start()
    robot.run(10)
    robot.ask("success")
    status = robot.ended(bag)
    assert status["dropped"]["/camera/left/image_raw"] == 10
    with BagReader(bag) as reader:
        assert json.loads(reader.info.custom["dropped"])["/camera/left/image_raw"] == 10
        assert reader.info.topics["/ee_pose"][1] > 0
    client.wait_for(lambda: " lost; this machine or its disk is too slow" in node.log, "complaint")


def test_a_disk_with_too_little_space_is_refused(recorder, client) -> None:
    robot = Robot(client)
    recorder(min_free_mb=1e9)
    client.wait_for(robot.camera.get_subscription_count, "recorder connected")
    answer = client.wait_for(
        lambda: (a := robot.ask("start")).message.startswith("/") and a, "start answered for its disk"
    )
    assert not answer.success
    assert "MB are free on the disk, fewer than 1000000000 (min_free_mb)" in answer.message


def test_the_bridge_s_result_ends_the_bag_where_asked(recorder, client) -> None:
    robot = Robot(client)
    recorder(stop_with_episode=True, mode="lockstep")
    client.wait_for(robot.result.get_subscription_count, "recorder connected")
    for success, outcome in ((True, "success"), (False, "failure")):
        bag = robot.start()
        robot.run(5)
        robot.result.publish(robot.String(data=json.dumps({"success": success, "steps": 4})))
        assert robot.ended(bag)["outcome"] == outcome
        with BagReader(bag) as reader:
            assert reader.info.topics["/episode/result"][1] == 1


def test_best_effort_cameras_and_topics_of_any_type_are_recorded(recorder, client) -> None:
    from diagnostic_msgs.msg import DiagnosticArray

    robot = Robot(client, reliable=False)
    diagnostics = client.node.create_publisher(DiagnosticArray, "health", 10)
    recorder(topics=["health"])
    client.wait_for(diagnostics.get_subscription_count, "recorder connected")
    bag = robot.start()
    diagnostics.publish(DiagnosticArray())
    robot.run(20)
    robot.ask("success")
    robot.ended(bag)
    with BagReader(bag) as reader:
        assert reader.info.topics["/health"] == ("diagnostic_msgs/msg/DiagnosticArray", 1)
        assert reader.info.topics["/camera/left/image_raw"][1] > 0


SET_BACK = """
import sys, time, types
from pathlib import Path
from dp_ros.ros.nodes import recorder_node

def time_ns():
    ahead_s = 0 if Path(sys.argv[1]).exists() else 3600
    return time.time_ns() + ahead_s * 1_000_000_000

recorder_node.time = types.SimpleNamespace(
    time_ns=time_ns, monotonic_ns=time.monotonic_ns, monotonic=time.monotonic
)
recorder_node.main()
"""


def test_a_wall_clock_that_is_set_back_in_an_episode_loses_no_message(
    start_node, client, tmp_path: Path
) -> None:
    """The clock of the recorder is an hour ahead until `is_right` exists."""
    program, is_right = tmp_path / "set_back.py", tmp_path / "is_right"
    program.write_text(SET_BACK)
    own = {"autostart": True, "folder": str(tmp_path / "bags"), "cameras": ["left"], "min_free_mb": 1.0}
    node = start_node(MODULE, own | {"mode": "lockstep"}, program=(program, is_right))
    client.watched.append(node)
    client.wait_until_active("recorder_node")
    robot = Robot(client)
    bag = robot.start()
    is_right.write_text("")
    robot.run(30)
    assert robot.ask("success").success
    assert robot.ended(bag)["outcome"] == "success"
    assert stamps(bag, "/camera/left/image_raw") == list(range(30))


def test_in_real_time_an_episode_begins_when_messages_arrive(recorder, client) -> None:
    """A discovered publisher may not be connected yet, and a camera may have stopped: the episode would lack it."""
    robot = Robot(client, reliable=False)
    recorder(mode="realtime")
    client.wait_for(robot.camera.get_subscription_count, "recorder connected")
    answer = client.wait_for(lambda: "nothing arrives" in (a := robot.ask("start")).message and a, "refused")
    assert answer.message.startswith("nothing arrives on /camera/left/image_raw, /ee_pose, /gripper/state: ")
    ticks = itertools.count()
    start = lambda: client.call(  # noqa: E731
        robot.Trigger, "record/start", robot.Trigger.Request(), meanwhile=lambda: robot.tick(next(ticks))
    )
    client.wait_for(lambda: start().success, "begun while messages arrive")
