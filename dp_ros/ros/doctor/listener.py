"""Listener to a robot's topics: what the policy node would hear, measured before it is activated."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image, JointState

from dp_ros.doctor.measurements import (
    CameraHeard,
    CommandTopic,
    Endpoint,
    Expected,
    GripperHeard,
    PoseHeard,
    RobotHeard,
)
from dp_ros.pictures import contrast
from dp_ros.poses import make_pose
from dp_ros.ros.messages import conversions, images
from dp_ros.ros.messages.gripper_reader import GripperReader
from dp_ros.ros.node import qos
from dp_ros.ros.node.managed_node import why_apart
from dp_ros.ros.processes.environment import PROFILE_VARIABLES, node_environment
from dp_ros.schema import TopicMap

NAME = "dp_ros_doctor"
_DISCOVERY_S, _DISCOVERY_STEP_S = 5.0, 0.1  # a node is discovered within a second, on a busy machine in some
_LOOK_EVERY_S = 0.25  # a picture is decoded so often
# Nodes that hear commands and do not move an arm, and the one whose place the doctor takes.
_NO_ROBOTS = ("recorder_node", "rosbag2_recorder", "policy_node", "teleop_node", NAME)
_COMPRESSED = "/compressed"


def type_name(kind: type) -> str:
    """ "sensor_msgs/msg/Image" """
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


class _Topic:
    """Arrivals on one topic."""

    def __init__(self, name: str, topic: str, kind: type) -> None:
        self.name, self.topic, self.kind = name, topic, kind
        self.stamps: list[int] = []
        self.received: list[int] = []
        self.frames: dict[str, None] = {}
        self.refused = 0
        self.why = ""

    def arrived(self, msg: Any, now_ns: int) -> None:
        self.stamps.append(conversions.stamp_to_ns(msg.header.stamp))
        self.received.append(now_ns)
        self.frames.setdefault(msg.header.frame_id)

    def refuse(self, why: str) -> None:
        self.refused += 1
        self.why = self.why or why

    def common(self, publishers: tuple[Endpoint, ...]) -> dict[str, Any]:
        return {
            "name": self.name,
            "topic": self.topic,
            "type": type_name(self.kind),
            "publishers": publishers,
            "stamps_ns": np.array(self.stamps, dtype=np.int64),
            "received_ns": np.array(self.received, dtype=np.int64),
            "frame_ids": tuple(self.frames),
            "refused": self.refused,
            "why_refused": self.why,
        }


class _Camera(_Topic):
    def __init__(self, camera: str, topic: str, kind: type) -> None:
        super().__init__(f"camera {camera}", topic, kind)
        self.camera = camera
        self.sizes: dict[tuple[int, int], None] = {}
        self.encodings: dict[str, None] = {}
        self.contrasts: list[float] = []
        self._looked_s = float("-inf")

    def look(self, msg: Any) -> None:
        """Decode a picture now and then, as the policy node does."""
        if time.monotonic() - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = time.monotonic()
        try:
            rgb = images.to_rgb(msg)
        except conversions.ConversionError as error:
            self.refuse(str(error))
            return
        self.sizes.setdefault((rgb.shape[0], rgb.shape[1]))
        self.encodings.setdefault(msg.encoding if hasattr(msg, "encoding") else msg.format)
        self.contrasts.append(contrast(rgb))


class Listener:
    """A node in the place of the policy node: `with Listener(...) as listener: listener.listen(3.0)`."""

    def __init__(self, expected: Expected, topics: TopicMap, sim_time: bool = False) -> None:
        """`topics`: the robot's names, and its namespace."""
        environment = node_environment()
        os.environ.update({name: environment[name] for name in PROFILE_VARIABLES if name in environment})
        self._expected, self._sim_time = expected, sim_time
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        parameters = [Parameter("use_sim_time", value=sim_time)]
        self.node = Node(NAME, context=self._context, parameter_overrides=parameters)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._profile = qos.observations(expected.runtime.mode)
        self._poses: list[np.ndarray] = []
        self._openings: list[float] = []
        self._joints: dict[str, None] = {}
        runtime = expected.runtime
        self._gripper_reader = GripperReader(runtime.gripper_joint, runtime.gripper_range)
        self._cameras = [self._camera(camera, topics) for camera in expected.policy.encoder.cameras]
        self._pose = self._subscribe(
            _Topic("ee_pose", topics.absolute(topics.ee_pose), PoseStamped), self._on_pose
        )
        self._gripper = self._subscribe(
            _Topic("gripper", topics.absolute(topics.gripper), JointState), self._on_gripper
        )
        self.pose_command = topics.absolute(topics.command_pose)
        self._commands = {
            "command/ee_pose": (self.pose_command, PoseStamped),
            "command/gripper": (topics.absolute(topics.command_gripper), JointState),
        }
        self._commanded = dict.fromkeys(self._commands, 0)
        for name, (topic, kind) in self._commands.items():
            self.node.create_subscription(kind, topic, self._counter(name), qos.RELIABLE)

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def now_ns(self) -> int:
        return int(self.node.get_clock().now().nanoseconds)

    def spin_until(self, deadline_s: float) -> None:
        """Take messages until this time of the monotonic clock."""
        while (left_s := deadline_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left_s)

    def listen(self, seconds: float) -> RobotHeard:
        """Messages received in this time, which starts once all nodes are discovered, or should be."""
        latest_s = time.monotonic() + max(_DISCOVERY_S, seconds)
        while not self._is_complete() and time.monotonic() < latest_s:
            self.spin_until(time.monotonic() + _DISCOVERY_STEP_S)
        self.spin_until(time.monotonic() + seconds)
        return self.heard(seconds)

    def _is_complete(self) -> bool:
        """Whether every sensor has sent something and somebody hears each command."""
        subscribers = [
            self.node.get_subscriptions_info_by_topic(topic) for topic, _ in self._commands.values()
        ]
        return all(each.received for each in (*self._cameras, self._pose, self._gripper)) and all(
            any(info.node_name not in _NO_ROBOTS for info in infos) for infos in subscribers
        )

    def newest_pose(self) -> tuple[int, np.ndarray] | None:
        """(stamp [ns], pose (7,)) of the newest measured pose."""
        return (self._pose.stamps[-1], self._poses[-1]) if self._poses else None

    @property
    def frame_id(self) -> str:
        """The frame of the measured poses."""
        return next(iter(self._pose.frames), "")

    def heard(self, seconds: float) -> RobotHeard:
        cameras = tuple(
            CameraHeard(
                **each.common(self._publishers(each)),
                camera=each.camera,
                sizes=tuple(each.sizes),
                encodings=tuple(each.encodings),
                contrast=float(np.median(each.contrasts)) if each.contrasts else None,
            )
            for each in self._cameras
        )
        stands_still = self._sim_time and not self.now_ns()
        return RobotHeard(
            listened_s=seconds,
            cameras=cameras,
            ee_pose=PoseHeard(
                **self._pose.common(self._publishers(self._pose)),
                poses=np.array(self._poses, dtype=np.float64).reshape(-1, 7),
            ),
            gripper=GripperHeard(
                **self._gripper.common(self._publishers(self._gripper)),
                joints=tuple(self._joints),
                openings=np.array(self._openings, dtype=np.float64),
            ),
            commands=tuple(self._command_topic(name) for name in self._commands),
            topics={
                name: tuple(kinds)
                for name, kinds in self.node.get_topic_names_and_types()
                if self.node.count_publishers(name)  # not those that only the doctor subscribes to
            },
            sim_time=self._sim_time,
            without_time="no time on /clock: start the simulator" if stands_still else "",
        )

    # ---- subscriptions ---------------------------------------------------------------------------------

    def _camera(self, camera: str, topics: TopicMap) -> _Camera:
        kind = Image if self._expected.runtime.image_transport == "raw" else CompressedImage
        topic = topics.cameras.get(camera) or f"camera/{camera}/image_raw"
        topic = topics.absolute(topic)
        if kind is CompressedImage and not topic.endswith(_COMPRESSED):
            topic += _COMPRESSED
        return self._subscribe(_Camera(camera, topic, kind), lambda each, msg: each.look(msg))

    def _subscribe(self, topic: Any, then: Callable[[Any, Any], None]) -> Any:
        def store(msg: Any) -> None:
            topic.arrived(msg, self.now_ns())
            then(topic, msg)

        self.node.create_subscription(topic.kind, topic.topic, store, self._profile)
        return topic

    def _on_pose(self, topic: _Topic, msg: PoseStamped) -> None:
        q = msg.pose.orientation
        self._poses.append(make_pose(conversions.pose_to_position(msg), [q.x, q.y, q.z, q.w]))

    def _on_gripper(self, topic: _Topic, msg: JointState) -> None:
        self._joints.update(dict.fromkeys(msg.name))
        try:
            opening = self._gripper_reader.read(msg)
        except conversions.ConversionError as error:
            topic.refuse(str(error))
            opening = None
        if opening is None:  # no message of the gripper
            topic.stamps.pop(), topic.received.pop()
        else:
            self._openings.append(opening)

    def _counter(self, name: str) -> Callable[[Any], None]:
        def count(msg: Any) -> None:
            self._commanded[name] += 1

        return count

    # ---- graph -----------------------------------------------------------------------------------------

    def _publishers(self, topic: _Topic) -> tuple[Endpoint, ...]:
        infos = self.node.get_publishers_info_by_topic(topic.topic)
        return tuple(
            self._endpoints(infos, lambda info: why_apart(topic.kind, info, info.qos_profile, self._profile))
        )

    def _command_topic(self, name: str) -> CommandTopic:
        topic, kind = self._commands[name]
        publishers = self.node.get_publishers_info_by_topic(topic)
        subscribers = self.node.get_subscriptions_info_by_topic(topic)
        # A profile that was asked for has no deadline; the graph has the real one, and our subscription's is the same.
        ours: QoSProfile = next((i.qos_profile for i in subscribers if i.node_name == NAME), qos.RELIABLE)
        return CommandTopic(
            name=name,
            topic=topic,
            type=type_name(kind),
            publishers=tuple(
                each
                for each in self._endpoints(publishers, lambda info: "")
                if each.node not in ("policy_node", NAME)
            ),
            subscribers=tuple(
                each
                for each in self._endpoints(
                    subscribers, lambda info: why_apart(kind, info, ours, info.qos_profile)
                )
                if each.node not in _NO_ROBOTS
            ),
            messages=self._commanded[name],
        )

    def _endpoints(self, infos: Iterable[Any], apart: Callable[[Any], str]) -> Iterable[Endpoint]:
        for info in infos:
            yield Endpoint(
                node=info.node_name, type=info.topic_type, apart=apart(info).strip("()").replace("): ", ": ")
            )
