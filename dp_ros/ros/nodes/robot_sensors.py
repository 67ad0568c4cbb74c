"""Sensors of the simulated robot as topics: cameras, tool pose, gripper, joints, and the clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState

from dp_ros.evaluation.episode import DRAW_EVERY, SPECTATOR_PX
from dp_ros.ros.messages import conversions, images
from dp_ros.ros.node import qos
from dp_ros.sim.arm import Observation, SimulatedArm

BASE_FRAME = "base_link"


class RobotSensors:
    """Publisher of an arm's observations, all messages of one tick with one stamp."""

    def __init__(self, arm: SimulatedArm, mode: str, spectator: str, publisher: Callable[..., Any]) -> None:
        """`publisher(kind, topic, qos)` makes a publisher; `spectator`: camera for people, empty for none.

        TaskError where the scene has no such camera, RenderingError where nothing can be drawn.
        """
        self._arm, self._spectator = arm, spectator
        self._size_px = arm.spec.width_px, arm.spec.height_px
        if spectator:
            arm.render(spectator, SPECTATOR_PX, SPECTATOR_PX)
        observation = qos.observations(mode)
        cameras = arm.spec.cameras
        for camera in cameras:
            arm.render(camera)  # what cannot be drawn is refused before the first episode
        self._images = {c: publisher(Image, f"camera/{c}/image_raw", observation) for c in cameras}
        self._infos = {c: publisher(CameraInfo, f"camera/{c}/camera_info", observation) for c in cameras}
        self._film = publisher(
            Image,
            "camera/spectator/image_raw",
            qos.RELIABLE_DEEP if mode == "lockstep" else qos_profile_sensor_data,
        )
        self._pose = publisher(PoseStamped, "ee_pose", observation)
        self._gripper = publisher(JointState, "gripper/state", observation)
        self._joints = publisher(JointState, "joint_states", 10)
        self._clock = publisher(Clock, "/clock", 10)

    @property
    def publishers(self) -> list[Any]:
        """Publishers of the observation, which a policy or a recorder subscribes to."""
        return [self._pose, self._gripper, *self._images.values()]

    def publish(self, observation: Observation, stamp_ns: int, film: bool) -> None:
        """One tick. The cameras come last: a reader that waits for a picture has the rest by then.

        `film`: publish the spectator's picture too, every DRAW_EVERY ticks.
        """
        arm, stamp = self._arm, conversions.ns_to_stamp(stamp_ns)
        self._clock.publish(Clock(clock=stamp))
        names, positions = arm.joint_positions()
        joints = JointState(name=names, position=positions)
        joints.header.stamp = stamp
        self._joints.publish(joints)
        self._pose.publish(conversions.vector_to_pose(observation.ee_pose, stamp_ns, BASE_FRAME))
        self._gripper.publish(conversions.gripper_state(observation.gripper, stamp_ns))
        if film and self._spectator and arm.steps % DRAW_EVERY == 0:
            picture = arm.render(self._spectator, SPECTATOR_PX, SPECTATOR_PX)
            self._film.publish(images.rgb_to_image(picture, stamp_ns, "spectator"))
        for camera, pixels in observation.images.items():
            frame_id = f"{camera}_optical_frame"
            self._infos[camera].publish(self._info(camera, stamp, frame_id))
            self._images[camera].publish(images.rgb_to_image(pixels, stamp_ns, frame_id))

    def _info(self, camera: str, stamp: Any, frame_id: str) -> CameraInfo:
        """An ideal pinhole with the optical axis in the picture's centre."""
        f, width_px, height_px = self._arm.focal_length_px(camera), *self._size_px
        cx, cy = width_px / 2, height_px / 2
        info = CameraInfo(width=width_px, height=height_px, distortion_model="plumb_bob")
        info.header.stamp, info.header.frame_id = stamp, frame_id
        info.d = [0.0] * 5
        info.k = [f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [f, 0.0, cx, 0.0, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        return info
