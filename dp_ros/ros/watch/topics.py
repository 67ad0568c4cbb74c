"""Subscriptions that fill the state of the page, only while a browser polls it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64, Int64, String

from dp_ros.ros.messages.conversions import ConversionError, pose_to_position, stamp_to_ns
from dp_ros.ros.messages.images import to_rgb
from dp_ros.ros.messages.plan_picture import COMMAND, EXECUTED, MEASURED, REMAINING, View
from dp_ros.ros.nodes.camera_views import CameraViews
from dp_ros.ros.watch.polled import Polled, newest
from dp_ros.ros.watch.state import Chunk, WatchState
from dp_ros.schema import Target

Array = NDArray[np.float64]
_DEEP = 100  # of small messages between two turns
_KINDS = {
    "sensor_msgs/msg/Image": (Image, ""),
    "sensor_msgs/msg/CompressedImage": (CompressedImage, "/compressed"),
}


class WatchedTopics:
    """The subscriptions of the page."""

    def __init__(self, node: Node, state: WatchState, cameras: Sequence[str]) -> None:
        """cameras: those to show; empty: all that publish `camera/<name>/image_raw`, raw or compressed."""
        self._node, self._state, self._wanted = node, state, tuple(cameras)
        self._polled = Polled(node)
        self._views: CameraViews | None = None
        self._cameras: dict[str, str] = {}  # camera -> type of its pictures
        self._frame_id = ""
        state.tell(robot=node.get_namespace().strip("/") or None)

    @property
    def listens(self) -> bool:
        return self._views is not None

    def take(self) -> None:
        self._polled.take()

    def close(self) -> None:
        """Unsubscribe. The state keeps what it has."""
        self._polled.close()
        self._views, self._cameras = None, {}

    def refresh(self) -> None:
        """Subscribe; subscribe again where the publishing cameras have changed."""
        cameras = self._published()
        if self.listens and cameras == self._cameras:
            return
        self.close()
        self._cameras = cameras
        self._views = CameraViews(tuple(cameras), self._polled.subscribe)
        self._views.listen()
        subscribe, state = self._polled.subscribe, self._state
        for camera, kind in cameras.items():
            message, suffix = _KINDS[kind]
            subscribe(message, f"camera/{camera}/image_raw{suffix}", self._keeper(camera), newest())
        subscribe(PoseStamped, "ee_pose", self._on_pose, newest(_DEEP))
        subscribe(PoseStamped, "command/ee_pose", self._on_command, newest(_DEEP))
        subscribe(Path, "policy/path", self._on_path, newest())
        subscribe(String, "policy/verdict", lambda msg: state.add_verdict(msg.data), newest(_DEEP))
        subscribe(String, "policy/status", lambda msg: state.tell(status=msg.data), newest(latched=True))
        subscribe(Float64, "policy/plan_duration", lambda msg: state.add_plan(msg.data), newest(_DEEP))
        subscribe(String, "policy/instruction", lambda msg: state.tell(instruction=msg.data), newest())
        subscribe(String, "episode/task", lambda msg: state.tell(task=msg.data), newest(latched=True))
        subscribe(Int64, "episode/seed", lambda msg: state.tell(seed=msg.data), newest(latched=True))
        subscribe(String, "episode/result", self._on_result, newest(_DEEP))

    def _published(self) -> dict[str, str]:
        prefix = re.escape(self._node.resolve_topic_name("camera"))
        named = re.compile(rf"{prefix}/(\w+)/image_raw(?:/compressed)?")
        found: dict[str, str] = {}
        for topic, kinds in self._node.get_topic_names_and_types():
            match = named.fullmatch(topic)
            known = [kind for kind in kinds if kind in _KINDS]
            if match and known and (not self._wanted or match[1] in self._wanted):
                found.setdefault(match[1], known[0])
        # A remapped camera is not found by its name.
        return {**dict.fromkeys(self._wanted, "sensor_msgs/msg/Image"), **found}

    def _on_pose(self, msg: PoseStamped) -> None:
        self._frame_id = msg.header.frame_id
        self._state.add_pose(stamp_to_ns(msg.header.stamp), pose_to_position(msg))

    def _on_command(self, msg: PoseStamped) -> None:
        self._state.add_command(stamp_to_ns(msg.header.stamp), pose_to_position(msg))

    def _on_path(self, msg: Path) -> None:
        positions = np.array([pose_to_position(pose) for pose in msg.poses]).reshape(-1, 3)
        stamps = tuple(stamp_to_ns(pose.header.stamp) for pose in msg.poses)
        self._state.add_chunk(Chunk(positions, stamps, msg.header.frame_id))

    def _on_result(self, msg: String) -> None:
        try:
            self._state.add_episode(bool(json.loads(msg.data)["success"]))
        except (ValueError, KeyError, TypeError):
            return

    def _keeper(self, camera: str) -> Any:
        def keep(msg: Image | CompressedImage) -> None:
            try:
                picture = to_rgb(msg)
            except ConversionError:  # the policy's diagnostics say it
                return
            self._state.add_picture(self._view(camera, stamp_to_ns(msg.header.stamp), picture))

        return keep

    def _view(self, camera: str, stamp_ns: int, picture: NDArray[np.uint8]) -> View:
        """The picture with the newest tool, command and chunk, where lens and pose of the camera are known."""
        state, views = self._state, self._views
        chunk = state.chunk
        sent = chunk.sent(state.command_ns) if chunk else 0
        parts: dict[tuple[str, Any], Array] = {}
        if chunk is not None and chunk.frame_id == self._frame_id:
            parts["line", EXECUTED] = chunk.positions_m[:sent]
            parts["line", REMAINING] = chunk.positions_m[max(0, sent - 1) :]
        for colour, point in ((COMMAND, state.command_m), (MEASURED, state.tool_m)):
            if point is not None:
                parts["dot", colour] = point[None]
        if views is None or not parts:
            return View(camera, picture)
        points, target = np.concatenate(list(parts.values())), Target(*picture.shape[:2])
        pixels = views.project(camera, stamp_ns, self._frame_id, points, target)
        if pixels is None:
            return View(camera, picture)
        split = np.split(pixels, np.cumsum([len(part) for part in parts.values()])[:-1])
        drawn = dict(zip(parts, split, strict=True))
        return View(
            camera,
            picture,
            {colour: at for (kind, colour), at in drawn.items() if kind == "line"},
            {colour: at for (kind, colour), at in drawn.items() if kind == "dot"},
        )
