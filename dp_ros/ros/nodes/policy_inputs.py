"""Inputs of a policy node: cameras, pose and gripper as streams of samples. One bad message is one lost sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CompressedImage, Image, JointState

from dp_ros.pictures import ImageSizeError
from dp_ros.ros.messages import conversions, images
from dp_ros.ros.messages.gripper_reader import GripperReader
from dp_ros.ros.messages.pose_reader import PoseReader
from dp_ros.ros.node import qos
from dp_ros.schema import EncoderConfig, RuntimeConfig
from dp_ros.streams import FrameAssembler

OnSample = Callable[[int, str], None]  # stamp; source: a camera, "ee_pose" or "gripper/state"
OnRefused = Callable[[str, bool], None]  # why; whether it was one damaged message


class PolicyInputs:
    """Subscriptions of the observation."""

    def __init__(
        self,
        encoder: EncoderConfig,
        runtime: RuntimeConfig,
        subscription: Callable[..., Any],
        on_sample: OnSample,
        on_refused: OnRefused,
    ) -> None:
        """`subscription(kind, topic, callback, qos)` makes a subscription."""
        self._encoder, self._on_sample, self._on_refused = encoder, on_sample, on_refused
        max_age_ns = 0 if runtime.mode == "lockstep" else round(runtime.gate.max_obs_age_s * 1e9)
        self.streams = FrameAssembler(encoder.cameras, max_age_ns)
        self.poses = PoseReader()
        self._openings = GripperReader(runtime.gripper_joint, runtime.gripper_range)
        self.bad: dict[str, str] = {}  # source -> why its newest message was refused
        profile, is_raw = qos.observations(runtime.mode), runtime.image_transport == "raw"
        kind, suffix = (Image, "") if is_raw else (CompressedImage, "/compressed")
        topics = {camera: f"camera/{camera}/image_raw{suffix}" for camera in encoder.cameras}
        for camera, topic in topics.items():
            subscription(kind, topic, self._image_callback(camera), profile)
        subscription(PoseStamped, "ee_pose", self._on_pose, profile)
        subscription(JointState, "gripper/state", self._on_gripper, profile)
        self.single = (*topics.values(), "ee_pose")  # topics of one sensor each
        self.is_heard = True

    def clear(self) -> None:
        self.streams.clear()
        self.poses.clear()
        self._openings.clear()
        self.bad.clear()

    def missing(self, now_ns: int) -> list[str]:
        """One line for each source that keeps the node from observing now."""
        return [*self.bad.values(), *self.streams.missing(now_ns)]

    def _image_callback(self, camera: str) -> Callable[[Any], None]:
        target = self._encoder.target(camera)

        def store(msg: Any) -> None:
            if not self.is_heard:
                return
            try:
                pixels = images.to_picture(msg, camera, target)
            except (conversions.ConversionError, ImageSizeError) as error:
                self._refuse(camera, str(error), isinstance(error, images.DamagedImageError))
                return
            self.bad.pop(camera, None)
            stamp_ns = conversions.stamp_to_ns(msg.header.stamp)
            self.streams.images[camera].put(stamp_ns, pixels)
            self._on_sample(stamp_ns, camera)

        return store

    def _on_pose(self, msg: PoseStamped) -> None:
        if not self.is_heard:
            return
        stamp_ns = conversions.stamp_to_ns(msg.header.stamp)
        try:
            self.streams.ee_pose.put(stamp_ns, self.poses.read(msg))
        except conversions.ConversionError as error:
            self._refuse("ee_pose", str(error), True)
            return
        self.bad.pop("ee_pose", None)
        self._on_sample(stamp_ns, "ee_pose")

    def _on_gripper(self, msg: JointState) -> None:
        if not self.is_heard:
            return
        stamp_ns = conversions.stamp_to_ns(msg.header.stamp)
        try:
            opening = self._openings.read(msg)
            if opening is None:  # of other joints
                return
            self.streams.gripper.put(stamp_ns, opening)
        except conversions.ConversionError as error:
            self._refuse("gripper/state", f"gripper/state: {error}", True)
            return
        self.bad.pop("gripper/state", None)
        self._on_sample(stamp_ns, "gripper/state")

    def _refuse(self, source: str, why: str, is_damaged: bool) -> None:
        """Note a message that cannot be used; told once, until the source sends a good one."""
        is_new = source not in self.bad
        self.bad[source] = why
        if is_new:
            self._on_refused(why, is_damaged)
