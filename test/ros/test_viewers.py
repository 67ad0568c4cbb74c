"""The files for RViz and Foxglove against the running nodes: every topic they name is published, with its type."""

from __future__ import annotations

import asyncio
import json
import re
import struct
from http.client import HTTPConnection
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import yaml
from geometry_msgs.msg import PoseStamped
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from dp_ros.resources import share_file
from dp_ros.ros.messages.plan_picture import COMMAND, EXECUTED
from dp_ros.ros.node.qos import LATCHED

pytestmark = pytest.mark.sim

CAMERAS = ["gripperPOV", "behindGripper"]
# The message that each of RViz's displays subscribes to, and of Foxglove's panels where a topic has one only.
DISPLAYS = {
    "rviz_default_plugins/MarkerArray": "visualization_msgs/msg/MarkerArray",
    "rviz_default_plugins/Path": "nav_msgs/msg/Path",
    "rviz_default_plugins/Pose": "geometry_msgs/msg/PoseStamped",
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
    "rviz_default_plugins/RobotModel": "std_msgs/msg/String",
}
WITHOUT_TOPIC = {"rviz_default_plugins/Grid", "rviz_default_plugins/TF"}
NAMESPACES = {"plan", "executed", "command", "verdict", "workspace", "commanded", "measured", "spread"}


def rviz_displays() -> list[dict[str, Any]]:
    config = yaml.safe_load(share_file("config/rviz/dp_ros.rviz").read_text())
    displays: list[dict[str, Any]] = config["Visualization Manager"]["Displays"]
    return displays


def rviz_topics() -> dict[str, str]:
    """Topic -> type."""
    topics = {}
    for display in rviz_displays():
        if display["Class"] not in WITHOUT_TOPIC:
            topic = display["Description Topic" if "RobotModel" in display["Class"] else "Topic"]["Value"]
            topics[f"/{topic}"] = DISPLAYS[display["Class"]]
    return topics


def foxglove() -> dict[str, Any]:
    layout: dict[str, Any] = json.loads(share_file("config/foxglove/dp_ros.json").read_text())
    return layout


def foxglove_topics() -> dict[str, list[str]]:
    """Topic -> fields that a panel reads of it."""
    topics: dict[str, list[str]] = {}

    def add(path: str) -> None:
        topic, _, field = path.partition(".")
        topics.setdefault(topic, []).append(field)

    for panel in foxglove()["configById"].values():
        for topic in panel.get("topics", {}):
            add(topic)
        for key in ("topicPath", "topicToRender"):
            if key in panel:
                add(panel[key])
        if topic := panel.get("imageMode", {}).get("imageTopic"):
            add(topic)
        for path in panel.get("paths", []):
            add(path["value"])
    return topics


def test_foxglove_shows_each_panel_once() -> None:
    shown: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, str):
            shown.append(node)
        else:
            assert set(node) == {"direction", "splitPercentage", "first", "second"}
            walk(node["first"])
            walk(node["second"])

    walk(foxglove()["layout"])
    assert sorted(shown) == sorted(foxglove()["configById"])


@pytest.fixture(scope="module")
def client(shared_client, start_shared_node, push_checkpoint) -> Any:  # type: ignore[no-untyped-def]
    """The simulated robot and a policy that moves it, in real time."""
    arm = {"task": "tiny-push", "cameras": CAMERAS, "width_px": 64, "height_px": 64}
    bridge = start_shared_node(
        "dp_ros.ros.nodes.metaworld_bridge",
        {
            **arm,
            "mode": "realtime",
            "auto_reset": True,
            "spectator": "auto",
            "max_steps": 2000,
            "autostart": True,
        },
    )
    policy = start_shared_node(
        "dp_ros.ros.nodes.policy_node",
        {
            **{
                "checkpoint": str(push_checkpoint),
                "mode": "realtime",
                "autostart": True,
                "use_sim_time": True,
                "spread_samples": 2,
            },
            "gate": {
                "workspace_low_m": [-0.5, 0.3, 0.0],
                "workspace_high_m": [0.5, 1.0, 0.6],
                "max_distance_m": 0.0,  # on a busy machine the arm is far behind
            },
        },
    )
    shared_client.watched = [bridge, policy]
    return shared_client


def test_every_topic_of_the_files_is_published_with_its_type(client) -> None:  # type: ignore[no-untyped-def]
    wanted = {**dict.fromkeys(foxglove_topics()), **rviz_topics()}
    node = client.node

    def published() -> dict[str, list[str]]:
        known = dict(node.get_topic_names_and_types())
        return {topic: known[topic] for topic in wanted if topic in known and node.count_publishers(topic)}

    client.wait_for(lambda: set(published()) == set(wanted), f"publishers of {sorted(wanted)}")
    for topic, kind in rviz_topics().items():
        assert published()[topic] == [kind], topic
    for topic, fields in foxglove_topics().items():
        message = message_class(published()[topic][0])()
        for field in filter(None, fields):
            value = message
            for name in field.split("."):
                value = getattr(value, name)


def message_class(kind: str) -> Any:
    from importlib import import_module

    package, _, name = kind.split("/")
    return getattr(import_module(f"{package}.msg"), name)


def test_the_model_is_latched_and_the_plan_is_in_markers_and_pictures(client) -> None:  # type: ignore[no-untyped-def]
    """Who comes late gets the model. The namespaces are those that the file for RViz switches on."""
    models: list[String] = []
    client.node.create_subscription(String, "robot_description", models.append, LATCHED)
    markers, views = client.listen(MarkerArray, "policy/markers"), client.listen(Image, "policy/image")
    infos = client.listen(CameraInfo, "camera/gripperPOV/camera_info", best_effort=True)
    poses = client.listen(PoseStamped, "camera/gripperPOV/pose", best_effort=True)
    client.wait_for(lambda: models and infos and poses, "model, lens and pose")
    assert ElementTree.fromstring(models[0].data.encode()).attrib["name"] == "tiny_arm"
    assert infos[-1].header.frame_id == "gripperPOV_optical_frame"
    client.wait_for(lambda: {m.ns for a in markers for m in a.markers} == NAMESPACES, "all kinds of markers")
    (plan,) = (display for display in rviz_displays() if display["Name"] == "Plan")
    assert set(plan["Namespaces"]) == NAMESPACES
    client.wait_for(lambda: views and has_colours(views[-1]), "a picture with the command and the plan")


@pytest.fixture(scope="module")
def watch(client, start_shared_node) -> dict[str, str]:  # type: ignore[no-untyped-def]
    """Addresses of the live page and of the server for Foxglove, on free ports."""
    pytest.importorskip("foxglove", reason="foxglove-sdk is not installed: pip install 'dp_ros[watch]'")
    node = start_shared_node(
        "dp_ros.ros.nodes.watch_node", {"page_port": 0, "foxglove_port": 0, "foxglove": True}
    )
    client.watched.append(node)
    client.wait_for(lambda: node.log.count("://") == 2, "addresses")
    return dict(line.split(": ", 1) for line in node.log.splitlines() if "://" in line)


def test_the_page_has_all_that_it_shows_and_no_other_site_may_read_it(client, watch) -> None:  # type: ignore[no-untyped-def]
    client.wait_until_active("policy_node")
    host, port = watch["page"].removeprefix("http://").split(":")
    assert host == "127.0.0.1"

    def ask(path: str, host: str = "127.0.0.1") -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", int(port), timeout=60)
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
        connection.close()
        return status, body

    def state() -> dict[str, Any]:
        told: dict[str, Any] = json.loads(ask("/state")[1])
        return told

    def missing(told: dict[str, Any]) -> set[str]:
        numbers = ("held_share", "ticks_per_s", "plan_ms", "verdict", "status", "seed", "task")
        paths = ("measured_m", "commanded_m", "chunk_m")
        return {
            *({*CAMERAS, "spectator"} - {camera["name"] for camera in told["cameras"]}),
            *(name for name in numbers if told.get(name) is None),
            *(name for name in paths if not told[name]),
        }

    def whole() -> dict[str, Any] | None:
        told = state()
        return None if missing(told) else told

    told = client.wait_for(whole, "a whole state")
    assert 0 <= told["held_share"] <= 1
    assert told["plan_ms"]["p50"] > 0
    assert len(told["chunk_m"]) == 8
    assert has_scripts_of_its_own_only(ask("/")[1].decode())

    def shows_the_plan() -> bool:
        pixels = cv2.imdecode(np.frombuffer(ask(f"/camera/{CAMERAS[0]}")[1], np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape[0] >= 240
        distance = np.abs(pixels[..., ::-1].astype(int) - COMMAND).sum(2)
        return bool((distance < 60).any())

    client.wait_for(shows_the_plan, "the command in a camera's picture")
    assert ask("/camera/none")[0] == 404
    assert ask("/state", host="example.org")[0] == 403


def has_scripts_of_its_own_only(page: str) -> bool:
    return "<script>" in page and not re.search(r"""(?:src|href)\s*=\s*["'](?!data:)|@import|url\(""", page)


def test_foxglove_gets_the_messages_of_every_topic_of_the_layout(client, watch) -> None:  # type: ignore[no-untyped-def]
    """By the WebSocket protocol: the server's topics, and one message of each, with the bytes that ROS has."""
    websocket = pytest.importorskip("tornado.websocket")
    from tornado.httpclient import HTTPRequest

    wanted = {topic for topic in foxglove_topics() if topic != "/policy/status"} | {"/robot_description"}

    async def listen(received: dict[str, bytes]) -> None:
        request = HTTPRequest(watch["foxglove"], headers={"Sec-WebSocket-Protocol": "foxglove.sdk.v1"})
        connection = await websocket.websocket_connect(request)
        channels: dict[int, dict[str, Any]] = {}

        async def subscribe(ids: list[int]) -> None:
            subscriptions = [{"id": each, "channelId": each} for each in ids]
            await connection.write_message(json.dumps({"op": "subscribe", "subscriptions": subscriptions}))

        while set(received) != wanted:
            message = await connection.read_message()
            assert message is not None
            if isinstance(message, bytes):
                if message[0] == 1:  # a message: subscription, time, payload
                    received[channels[struct.unpack_from("<I", message, 1)[0]]["topic"]] = message[13:]
                continue
            told = json.loads(message)
            if told["op"] == "advertise":
                new = [channel for channel in told["channels"] if channel["topic"] in wanted]
                channels |= {channel["id"]: channel for channel in new}
                await subscribe([channel["id"] for channel in new])
            elif told["op"] == "status":
                # foxglove-sdk 0.30 tells its clients of a channel shortly before it knows the channel itself.
                await subscribe([int(told["message"].removeprefix("Unknown channel ID: "))])
        for channel in channels.values():
            assert (channel["encoding"], channel["schemaEncoding"]) == ("cdr", "ros2msg")
            kind = message_class(channel["schemaName"])
            message = deserialize_message(received[channel["topic"]], kind)
            assert isinstance(message, kind)
        connection.close()

    for _ in range(2):  # the model is latched: sent before either client came
        received: dict[str, bytes] = {}
        try:
            asyncio.run(asyncio.wait_for(listen(received), 120))
        except TimeoutError:
            logs = "\n".join(node.log for node in client.watched)
            pytest.fail(f"never came: {sorted(wanted - set(received))}\n{logs}")
        assert b"<robot" in received["/robot_description"]


def has_colours(view: Image) -> bool:
    pixels = np.frombuffer(view.data, np.uint8).reshape(view.height, view.width, 3)[: view.height - 42]
    return all((pixels == colour).all(2).any() for colour in (COMMAND, EXECUTED))
