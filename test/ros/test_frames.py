"""Frames of the simulated robot: one tree, cameras that see what is drawn, and a model for who comes late."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from dp_ros.ros.messages.camera_view import project
from dp_ros.ros.messages.conversions import pose_to_position, pose_to_vector
from dp_ros.ros.messages.frames import FrameTree
from dp_ros.ros.nodes.camera_views import CameraViews
from dp_ros.ros.nodes.robot_sensors import RobotSensors
from dp_ros.schema import BridgeConfig
from dp_ros.schema.pictures import Target
from dp_ros.sim.arm import ArmSpec, make_arm

pytestmark = pytest.mark.sim
CAMERAS = ("gripperPOV", "behindGripper")


class Published:
    """RobotSensors without a node: the newest message of each topic."""

    def __init__(self, task: str, size: tuple[int, int] = (96, 96)) -> None:
        values = {"task": task, "cameras": CAMERAS, "width_px": size[0], "height_px": size[1]}
        self.config = BridgeConfig.model_validate({**values, "markers": True, "spectator": "auto"})
        self.arm: Any = make_arm(ArmSpec.of(self.config))
        self.newest: dict[str, Any] = {}
        self.observation = self.arm.reset(0)
        self.sensors = RobotSensors(self.arm, self.config, self._publisher)
        self.publish()

    def _publisher(self, kind: type, topic: str, profile: Any) -> Any:
        return SimpleNamespace(
            publish=lambda message: self.newest.update({topic: message}), get_subscription_count=lambda: 1
        )

    def publish(self) -> None:
        self.sensors.publish(self.observation, 1_000_000_000, film=False)

    def close(self) -> None:
        self.sensors.close()
        self.arm.close()


@pytest.fixture
def tf2_msgs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package where it is not installed; the messages in it are real."""
    module = ModuleType("tf2_msgs.msg")
    module.TFMessage = SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", module)


@pytest.fixture(params=["tiny-push-tilt30", "drawer-open-v3"])
def published(request: pytest.FixtureRequest, tf2_msgs: None) -> Iterator[Published]:
    made = Published(request.param)
    yield made
    made.close()


def test_frames_are_one_tree_below_the_base_with_links_tool_and_cameras(published: Published) -> None:
    newest = published.newest
    sent = [*newest["tf_static"].transforms, *newest["tf"].transforms]
    parents = {each.child_frame_id: each.header.frame_id for each in sent}
    assert len(parents) == len(sent)
    assert set(parents.values()) - set(parents) == {"base_link"}
    tree = FrameTree()
    tree.add(sent)
    for frame in parents:
        assert tree.pose(frame, "base_link") is not None
    robot = ElementTree.fromstring(newest["robot_description"].data.encode())
    assert {link.attrib["name"] for link in robot.findall("link")} - {"base_link"} <= set(parents)
    moving = {j.attrib["name"] for j in robot.findall("joint") if j.attrib["type"] != "fixed"}
    assert moving == set(newest["joint_states"].name)
    tool = tree.pose("tool", "base_link")
    assert tool is not None
    np.testing.assert_allclose(tool[:3], pose_to_position(newest["ee_pose"]), atol=1e-3)
    for camera in CAMERAS:
        frame = newest[f"camera/{camera}/camera_info"].header.frame_id
        assert newest[f"camera/{camera}/image_raw"].header.frame_id == frame
        pose = newest[f"camera/{camera}/pose"]
        assert (pose.header.frame_id, pose.header.stamp) == ("base_link", newest["ee_pose"].header.stamp)
        np.testing.assert_allclose(tree.pose(frame, "base_link"), pose_to_vector(pose), atol=1e-9)


def test_without_tf2_msgs_the_rest_is_published_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", None)
    published = Published("tiny-push")
    try:
        assert not {"tf", "tf_static"} & set(published.newest)
        assert {"robot_description", "camera/gripperPOV/pose"} <= set(published.newest)
        assert published.sensors.summary == (
            "cameras gripperPOV, behindGripper; no /tf, because tf2_msgs is not installed (it comes with every ROS "
            "installation but the wheels)"
        )
    finally:
        published.close()


def test_another_arm_has_its_own_model(tf2_msgs: None) -> None:
    """The tool's frame is fixed to the hand, at another angle for each of these tasks."""
    published = Published("tiny-push")
    before = published.newest["tf_static"], published.newest["robot_description"]
    other = make_arm(ArmSpec("tiny-push-tilt30", CAMERAS, markers=True))
    published.sensors.replace_arm(other)
    assert published.newest["tf_static"] != before[0]
    assert published.newest["robot_description"] != before[1]
    published.close()
    other.close()


def test_a_viewer_finds_a_camera_by_its_pose_or_through_tf_and_needs_its_lens(published: Published) -> None:
    """What a policy node on a robot hears, message by message."""
    heard: dict[str, Any] = {}

    def subscription(kind: type, topic: str, callback: Any, profile: Any) -> None:
        heard[topic] = callback

    newest, camera = published.newest, CAMERAS[1]
    views = CameraViews(CAMERAS, subscription)
    tool_m = pose_to_position(newest["ee_pose"])[None]

    def projected(base: str = "base_link", later_ns: int = 0) -> Any:
        return views.project(camera, 1_000_000_000 + later_ns, base, tool_m, Target(96, 96))

    assert heard == {}
    views.listen()
    assert projected() is None
    heard[f"camera/{camera}/camera_info"](newest[f"camera/{camera}/camera_info"])
    assert projected() is None
    heard["/tf_static"](newest["tf_static"])
    heard["/tf"](newest["tf"])
    through_tf = projected()
    assert np.isfinite(through_tf).all()
    views.forget()
    views.listen()
    heard[f"camera/{camera}/camera_info"](newest[f"camera/{camera}/camera_info"])
    heard[f"camera/{camera}/pose"](newest[f"camera/{camera}/pose"])
    np.testing.assert_allclose(projected(), through_tf, atol=1e-6)
    assert projected(base="another") is None
    assert projected(later_ns=2_000_000_000) is None


@pytest.mark.parametrize(("task", "site"), [("tiny-push", "tool"), ("drawer-open-v3", "endEffector")])
@pytest.mark.parametrize("size", [(96, 96), (320, 240)])
def test_the_projected_tool_is_where_the_simulator_draws_it(
    task: str, site: str, size: tuple[int, int]
) -> None:
    """Within a pixel, from the messages alone. All but a ball at the tool is hidden, so that nothing covers it."""
    published = Published(task, size)
    try:
        arm, model = published.arm, published.arm.model
        number = model.site(site).id
        model.geom_group[:], model.site_group[:] = 4, 4
        model.site_group[number], model.site_size[number], model.site_type[number] = 0, 0.8 / size[0], 2
        model.site_rgba[number] = 1.0, 0.0, 1.0, 1.0
        model.site_pos[number] = 0.0  # Metaworld's is at the finger tips
        model.vis.map.znear = 0.001  # its wrist camera is nearer to the tool than anything it draws
        for _ in range(10):
            published.observation = arm.step(arm.expert_command())
        published.publish()
        newest = published.newest
        tool_m = pose_to_position(newest["ee_pose"])[None]
        np.testing.assert_allclose(arm.data.site(site).xpos, tool_m[0], atol=1e-3)
        for camera in CAMERAS:
            drawn = arm.render(camera).astype(float)
            model.site_group[number] = 4
            changed = np.abs(drawn - arm.render(camera).astype(float)).sum(2) > 30
            model.site_group[number] = 0
            assert changed.any(), camera
            rows, columns = np.nonzero(changed)
            pose = pose_to_vector(newest[f"camera/{camera}/pose"])
            info = newest[f"camera/{camera}/camera_info"]
            projected = project(tool_m, pose, info, Target(size[1], size[0]))
            np.testing.assert_allclose(projected, [[columns.mean(), rows.mean()]], atol=1.0)
    finally:
        published.close()
