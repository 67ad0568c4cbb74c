"""Sensors of the simulated robot as topics: cameras, tool pose, gripper, joints, and the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState

from dp_ros.evaluation.episode import DRAW_EVERY, SPECTATOR_PX
from dp_ros.ros.messages import conversions, images
from dp_ros.ros.messages.camera_info import pinhole
from dp_ros.ros.node import qos
from dp_ros.ros.nodes.robot_frames import BASE_FRAME, SPECTATOR_FRAME, RobotFrames, optical_frame
from dp_ros.schema import BridgeConfig
from dp_ros.sim.arm import Observation, SimulatedArm, spectator_of
from dp_ros.sim.background import BackgroundRenderer


class RobotSensors:
    """Publisher of an arm's observations, all messages of one tick with one stamp."""

    def __init__(self, arm: SimulatedArm, config: BridgeConfig, publisher: Callable[..., Any]) -> None:
        """`publisher(kind, topic, qos)` makes a publisher.

        TaskError where the scene has no camera of the spectator's name, RenderingError where nothing can be drawn.
        """
        mode, spectator = config.mode, spectator_of(config.task, config.spectator)
        self._arm, self._spectator, self._config = arm, spectator, config
        if spectator:
            arm.render(spectator, SPECTATOR_PX, SPECTATOR_PX)
        observation = qos.observations(mode)
        cameras = arm.spec.cameras
        for camera in cameras:
            arm.render(camera)  # what cannot be drawn is refused before the first episode
        self._images = {c: publisher(Image, f"camera/{c}/image_raw", observation) for c in cameras}
        self._infos = {c: publisher(CameraInfo, f"camera/{c}/camera_info", observation) for c in cameras}
        self._camera_infos = {c: self._camera_info(c) for c in cameras}
        self._film = publisher(
            Image,
            "camera/spectator/image_raw",
            qos.RELIABLE_DEEP if mode == "lockstep" else qos_profile_sensor_data,
        )
        self._pose = publisher(PoseStamped, "ee_pose", observation)
        self._gripper = publisher(JointState, "gripper/state", observation)
        self._joints = publisher(JointState, "joint_states", 10)
        self._frames = RobotFrames(arm, spectator, publisher, observation)
        self._clock = publisher(Clock, "/clock", 10)
        # A timer of simulated time fires with /clock. It must find the observation of that time.
        self._clock_last = mode == "realtime"
        self._background = self._background_renderer()

    def replace_arm(self, arm: SimulatedArm) -> None:
        """Publish another arm from now on, with the same cameras. RenderingError, which changes nothing."""
        for camera in arm.spec.cameras:
            arm.render(camera)
        self.close()
        self._arm = arm
        self._frames.use(arm)
        self._camera_infos = {camera: self._camera_info(camera) for camera in arm.spec.cameras}
        self._background = self._background_renderer()

    def _background_renderer(self) -> BackgroundRenderer | None:
        """The process that draws the spectator's pictures in real time."""
        if not self._spectator or self._config.mode != "realtime":
            return None
        return self._arm.background_renderer(
            self._spectator, SPECTATOR_PX, SPECTATOR_PX, self._config.spectator_hz
        )

    @property
    def publishers(self) -> list[Any]:
        """Publishers of the observation, which a policy or a recorder subscribes to."""
        return [self._pose, self._gripper, *self._images.values()]

    def publish(self, observation: Observation, stamp_ns: int, film: bool) -> None:
        """One tick. The cameras come last: a reader that waits for a picture has the rest by then.

        `film`: publish the spectator's pictures, too: every DRAW_EVERY ticks in lockstep, else as they are done.
        """
        arm, stamp = self._arm, conversions.ns_to_stamp(stamp_ns)
        if not self._clock_last:
            self._clock.publish(Clock(clock=stamp))
        names, positions = arm.joint_positions()
        joints = JointState(name=names, position=positions)
        joints.header.stamp = stamp
        self._joints.publish(joints)
        self._frames.publish(stamp_ns)
        self._pose.publish(conversions.vector_to_pose(observation.ee_pose, stamp_ns, BASE_FRAME))
        self._gripper.publish(conversions.gripper_state(observation.gripper, stamp_ns))
        if self._background:
            self._film_in_background(stamp_ns, film)
        elif film and self._spectator and arm.steps % DRAW_EVERY == 0:
            picture = arm.render(self._spectator, SPECTATOR_PX, SPECTATOR_PX)
            self._film.publish(images.rgb_to_image(picture, stamp_ns, SPECTATOR_FRAME))
        for camera, pixels in observation.images.items():
            info = self._camera_infos[camera]
            info.header.stamp = stamp
            self._infos[camera].publish(info)
            self._images[camera].publish(images.rgb_to_image(pixels, stamp_ns, optical_frame(camera)))
        if self._clock_last:
            self._clock.publish(Clock(clock=stamp))

    @property
    def summary(self) -> str:
        """Cameras, and the topics that are not published, for the log."""
        cameras = f"cameras {', '.join(self._arm.spec.cameras)}"
        return "; ".join(filter(None, (cameras, self._frames.lacks)))

    @property
    def problem(self) -> str:
        """Why the spectator has no pictures any more; empty while it has."""
        why = self._background.problem if self._background else ""
        return f"no pictures of the spectator: {why}; configure the node again" if why else ""

    def close(self) -> None:
        if self._background:
            self._background.close()

    def _film_in_background(self, stamp_ns: int, film: bool) -> None:
        """Publish the picture that is done, and have the next one drawn if somebody watches."""
        assert self._background
        now_s = time.monotonic()
        if done := self._background.take(now_s):
            drawn_ns, picture = done
            self._film.publish(images.rgb_to_image(picture, drawn_ns, SPECTATOR_FRAME))
        if film and self._film.get_subscription_count() > 0:
            self._background.offer(stamp_ns, now_s)

    def _camera_info(self, camera: str) -> CameraInfo:
        """The lens; the stamp changes with each tick."""
        spec, focal_px = self._arm.spec, self._arm.focal_length_px(camera)
        return pinhole(spec.width_px, spec.height_px, focal_px, optical_frame(camera))
