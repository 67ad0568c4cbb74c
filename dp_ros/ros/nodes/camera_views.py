"""Cameras as a viewer needs them: lens and pose, where somebody publishes them.

The lens is that of `camera/<name>/camera_info`. The pose is that of `camera/<name>/pose`, which the simulated robot
publishes, or comes from /tf, where tf2_msgs is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo

from dp_ros.ros.messages.camera_view import project
from dp_ros.ros.messages.conversions import ConversionError, pose_to_vector, stamp_to_ns
from dp_ros.ros.messages.frames import FrameTree, transforms_message
from dp_ros.ros.node import qos
from dp_ros.schema import Target
from dp_ros.streams import Stream

Array = NDArray[np.float64]
_MAX_AGE_NS = 500_000_000  # of a published pose; an older one is not that of the picture


class CameraViews:
    """Lenses and poses of cameras; nothing is subscribed to before `listen`."""

    def __init__(self, cameras: Sequence[str], subscription: Callable[..., Any]) -> None:
        """`subscription(kind, topic, callback, qos)` makes a subscription."""
        self._cameras, self._subscription = cameras, subscription
        self._listens = False
        self.forget()

    def forget(self) -> None:
        """Forget all messages and that there are subscriptions, which end with the node's activity."""
        self._listens = False
        self._infos: dict[str, CameraInfo] = {}
        self._poses: dict[str, Stream[tuple[str, Array]]] = {c: Stream() for c in self._cameras}
        self._tree = FrameTree()

    def listen(self) -> None:
        """Subscribe, unless that is done: transforms take much of a node's time, so only while somebody looks."""
        if self._listens:
            return
        self._listens = True
        for camera in self._cameras:
            keep_info, keep_pose = self._info_callback(camera), self._pose_callback(camera)
            self._subscription(CameraInfo, f"camera/{camera}/camera_info", keep_info, qos_profile_sensor_data)
            self._subscription(PoseStamped, f"camera/{camera}/pose", keep_pose, qos_profile_sensor_data)
        if (message := transforms_message()) is not None:
            for topic, profile in (("/tf", qos.TRANSFORMS), ("/tf_static", qos.STATIC_TRANSFORMS)):
                self._subscription(message, topic, lambda msg: self._tree.add(msg.transforms), profile)

    def project(
        self, camera: str, stamp_ns: int, base_frame: str, points_m: Array, target: Target
    ) -> Array | None:
        """Points (n, 3) in `base_frame` -> pixels (n, 2) of the picture stamped `stamp_ns`, as it fits `target`.

        None where lens or pose are not known.
        """
        info = self._infos.get(camera)
        pose = self._pose(camera, stamp_ns, base_frame)
        if info is None or pose is None:
            return None
        return project(points_m, pose, info, target)

    def _pose(self, camera: str, stamp_ns: int, base_frame: str) -> Array | None:
        sample = self._poses[camera].at(stamp_ns)
        if sample and stamp_ns - sample.stamp_ns < _MAX_AGE_NS and sample.value[0] == base_frame:
            return sample.value[1]
        info = self._infos.get(camera)
        if info is None or not info.header.frame_id:
            return None
        return self._tree.pose(info.header.frame_id, base_frame)

    def _info_callback(self, camera: str) -> Callable[[CameraInfo], None]:
        return lambda msg: self._infos.update({camera: msg})

    def _pose_callback(self, camera: str) -> Callable[[PoseStamped], None]:
        def keep(msg: PoseStamped) -> None:
            try:
                pose = pose_to_vector(msg)
            except ConversionError:
                return
            if np.isfinite(pose).all():
                self._poses[camera].put(stamp_to_ns(msg.header.stamp), (msg.header.frame_id, pose))

        return keep
