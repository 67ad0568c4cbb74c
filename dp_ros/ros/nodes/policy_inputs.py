"""Inputs of a policy node: cameras, pose and gripper as streams of samples. One bad message is one lost sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CompressedImage, Image, JointState

from dp_ros.control.health import InputHealth
from dp_ros.pictures import ImageSizeError
from dp_ros.ros.messages import conversions, images
from dp_ros.ros.messages.gripper_reader import GripperReader
from dp_ros.ros.messages.pose_reader import PoseReader
from dp_ros.ros.node import qos
from dp_ros.schema import EncoderConfig, GateConfig, RuntimeConfig, TopicMap
from dp_ros.schema.topics import COMPRESSED
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
        topics: TopicMap,
        from_stamp: Callable[[int], int] = lambda stamp_ns: stamp_ns,
    ) -> None:
        """`subscription(kind, topic, callback, qos)` makes a subscription; `topics` says which are compressed.

        from_stamp: stamp [ns] -> control time.
        """
        self._from_stamp = from_stamp
        self._encoder, self._on_sample, self._on_refused = encoder, on_sample, on_refused
        self._is_lockstep = runtime.mode == "lockstep"
        self.streams = FrameAssembler(encoder.cameras, 0)
        self.limit(runtime.gate)
        self.health = InputHealth(tuple(self.streams.streams()))
        self.poses = PoseReader()
        self._openings = GripperReader(runtime.gripper_joint, runtime.gripper_range)
        self.bad: dict[str, str] = {}  # source -> why its newest message was refused
        profile, pictures = qos.observations(runtime.mode), []
        for camera in encoder.cameras:
            is_compressed = topics.is_compressed(camera, runtime.image_transport)
            kind, suffix = (CompressedImage, COMPRESSED) if is_compressed else (Image, "")
            pictures.append(f"camera/{camera}/image_raw{suffix}")
            subscription(kind, pictures[-1], self._image_callback(camera), profile)
        subscription(PoseStamped, "ee_pose", self._on_pose, profile)
        subscription(JointState, "gripper/state", self._on_gripper, profile)
        self.single = (*pictures, "ee_pose")  # topics of one sensor each
        self.is_heard = True

    def clear(self) -> None:
        self.streams.clear()
        self.health.clear()
        self.poses.clear()
        self._openings.clear()
        self.bad.clear()

    def limit(self, gate: GateConfig) -> None:
        """Take the oldest age of a sample from new limits; in lockstep all samples of a frame have one time."""
        self.streams.max_age_ns = 0 if self._is_lockstep else round(gate.max_obs_age_s * 1e9)

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
                self.health.refuse(f"camera {camera}")
                self._refuse(camera, str(error), isinstance(error, images.DamagedImageError))
                return
            self.bad.pop(camera, None)
            time_ns, ahead_ns = self._time_of(msg)
            self.streams.images[camera].put(time_ns, pixels, ahead_ns)
            self.health.arrive(f"camera {camera}")
            self._on_sample(time_ns, camera)

        return store

    def _time_of(self, msg: Any) -> tuple[int, int]:
        """Control time of a message's stamp, and by how much the stamp is ahead of it."""
        stamp_ns = conversions.stamp_to_ns(msg.header.stamp)
        time_ns = self._from_stamp(stamp_ns)
        return time_ns, stamp_ns - time_ns

    def _on_pose(self, msg: PoseStamped) -> None:
        if not self.is_heard:
            return
        time_ns, ahead_ns = self._time_of(msg)
        try:
            self.streams.ee_pose.put(time_ns, self.poses.read(msg), ahead_ns)
        except conversions.ConversionError as error:
            self.health.refuse("ee_pose")
            self._refuse("ee_pose", str(error), True)
            return
        self.health.arrive("ee_pose")
        self.bad.pop("ee_pose", None)
        self._on_sample(time_ns, "ee_pose")

    def _on_gripper(self, msg: JointState) -> None:
        if not self.is_heard:
            return
        time_ns, ahead_ns = self._time_of(msg)
        try:
            opening = self._openings.read(msg)
            if opening is None:  # of other joints
                return
            self.streams.gripper.put(time_ns, opening, ahead_ns)
        except conversions.ConversionError as error:
            self.health.refuse("gripper")
            self._refuse("gripper/state", f"gripper/state: {error}", True)
            return
        self.health.arrive("gripper")
        self.bad.pop("gripper/state", None)
        self._on_sample(time_ns, "gripper/state")

    def _refuse(self, source: str, why: str, is_damaged: bool) -> None:
        """Note a message that cannot be used; told once, until the source sends a good one."""
        is_new = source not in self.bad
        self.bad[source] = why
        if is_new:
            self._on_refused(why, is_damaged)
