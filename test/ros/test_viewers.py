"""The files for RViz and Foxglove against the running nodes: every topic they name is published, with its type."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from geometry_msgs.msg import PoseStamped
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
NAMESPACES = {"plan", "executed", "command", "verdict", "workspace", "commanded", "measured"}


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
            },
            "gate": {"workspace_low_m": [-0.5, 0.3, 0.0], "workspace_high_m": [0.5, 1.0, 0.6]},
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


def has_colours(view: Image) -> bool:
    import numpy as np

    pixels = np.frombuffer(view.data, np.uint8).reshape(view.height, view.width, 3)[: view.height - 42]
    return all((pixels == colour).all(2).any() for colour in (COMMAND, EXECUTED))
