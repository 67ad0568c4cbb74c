"""Frames and model of the simulated robot: `robot_description`, `tf`, `tf_static` and the cameras' poses.

The topics `tf` are relative: a robot in a namespace has its own. The camera poses serve readers without tf2_msgs. A
camera of Metaworld's hand keeps its orientation while the hand turns, so it hangs from the base, not from a link.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped
from std_msgs.msg import String

from dp_ros.ros.messages.conversions import vector_to_pose
from dp_ros.ros.messages.frames import WITHOUT_TF, pose_to_transform, transforms_message
from dp_ros.ros.node import qos
from dp_ros.sim.arm import SimulatedArm

BASE_FRAME = "base_link"
SPECTATOR_FRAME = "spectator"


def optical_frame(camera: str) -> str:
    return f"{camera}_optical_frame"


class RobotFrames:
    """Publisher of one arm's frames. Moving ones are published for subscribers only."""

    def __init__(
        self, arm: SimulatedArm, spectator: str, publisher: Callable[..., Any], camera_profile: Any
    ) -> None:
        """`publisher(kind, topic, qos)` makes a publisher; `spectator` is a camera, or empty."""
        self._spectator, self._message = spectator, transforms_message()
        cameras = arm.spec.cameras
        self._cameras = {c: publisher(PoseStamped, f"camera/{c}/pose", camera_profile) for c in cameras}
        self._description = publisher(String, "robot_description", qos.LATCHED)
        self._moving = self._fixed = None
        if self._message is not None:
            self._moving = publisher(self._message, "tf", qos.TRANSFORMS)
            self._fixed = publisher(self._message, "tf_static", qos.LATCHED)
        self.use(arm)

    @property
    def lacks(self) -> str:
        """Message about the topics that are not published, and why; empty if all are."""
        return "" if self._message else WITHOUT_TF

    def use(self, arm: SimulatedArm) -> None:
        """Publish the model of this arm, and its frames from now on."""
        self._arm, self._model = arm, arm.robot_model()
        self._description.publish(String(data=self._model.urdf()))
        if self._fixed is not None:
            transforms = [pose_to_transform(pose, 0, *ends) for *ends, pose in self._model.fixed()]
            self._fixed.publish(self._message(transforms=transforms))

    def publish(self, stamp_ns: int) -> None:
        for camera, publisher in self._cameras.items():
            if publisher.get_subscription_count():
                publisher.publish(vector_to_pose(self._arm.camera_pose(camera), stamp_ns, BASE_FRAME))
        if self._moving is None or not self._moving.get_subscription_count():
            return
        transforms = self._model.moving(*self._arm.joint_positions())
        seen_from = {camera: optical_frame(camera) for camera in self._cameras}
        if self._spectator:
            seen_from[self._spectator] = SPECTATOR_FRAME
        transforms += [(BASE_FRAME, frame, self._arm.camera_pose(c)) for c, frame in seen_from.items()]
        messages = [pose_to_transform(pose, stamp_ns, *ends) for *ends, pose in transforms]
        self._moving.publish(self._message(transforms=messages))
