"""Stand-in robot: the small simulated arm with topics, frames, rates and units of its own, not those of dp_ros.

It has the streams of a robot with a wrist camera: pictures of 640x480 at 30 Hz, joint states and the measured tool pose
at 125 Hz, all on the wall clock, a tilted tool, a gripper in metres. It follows absolute poses, and stops where it is
when no command comes. config/stand_in.yaml names its topics, as a `topics_file`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.timer import Timer
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_srvs.srv import Trigger

from dp_ros.errors import UserError
from dp_ros.poses import angle_rad, orientation_of, position_of
from dp_ros.resources import share_file
from dp_ros.ros.messages import conversions, images
from dp_ros.ros.messages.camera_info import pinhole
from dp_ros.ros.messages.gripper_reader import GripperCommandReader
from dp_ros.ros.node import qos
from dp_ros.ros.node.node_main import run_process
from dp_ros.ros.node.parameters import read_config
from dp_ros.ros.node.scheduling import set_priority
from dp_ros.ros.nodes.realtime_loop import RealtimeLoop
from dp_ros.ros.nodes.stand_in_demonstrations import Demonstrations
from dp_ros.schema import ConfigError, TopicMap, load_yaml
from dp_ros.schema.stand_in import StandInConfig
from dp_ros.schema.topics import picture_topics
from dp_ros.sim.stand_in_arm import CAMERA, StandInArm

TOPICS = "config/stand_in.yaml"
BASE_FRAME, CAMERA_FRAME = "arm_base", "camera_color_optical_frame"
NAME, WIDTH_PX, HEIGHT_PX, CAMERA_HZ = "wrist", 640, 480, 30.0
_SPREAD_AFTER = 0.5
_ANSWER_S = 10.0
_PRIORITY = 1  # of real-time scheduling, where the system allows it
_MOST_TURN_RAD = 0.05  # its tool cannot turn


class StandInError(UserError):
    """A stand-in robot that does not answer."""


class StandIn(Node):
    """Robot driver and simulated arm. Its topics are those of `config/stand_in.yaml`."""

    def __init__(self) -> None:
        super().__init__("stand_in")
        self.fatal: str | None = None
        self._config = read_config(self, StandInConfig)
        topics = load_yaml(TopicMap, share_file(TOPICS))
        self._arm = StandInArm(WIDTH_PX, HEIGHT_PX)
        self._next_seed = self._config.first_seed
        self._arm.reset(self._next_seed)
        self._grippers = GripperCommandReader(
            topics.command_gripper_joint, topics.command_gripper_field, topics.command_gripper_range
        )
        self._gripper_joint = topics.gripper_joint
        self._position_m: np.ndarray | None = None
        self._gripper: float | None = None
        self._heard_s = -math.inf
        name = NAME
        info_topic = picture_topics(NAME, topics.cameras[NAME])[f"camera/{NAME}/camera_info"]
        publish, sensor = self.create_publisher, qos_profile_sensor_data
        self._pictures = publish(Image, topics.cameras[NAME], sensor)
        self._infos = publish(CameraInfo, info_topic, sensor)
        self._camera_poses = publish(PoseStamped, f"camera/{name}/pose", sensor)
        self._poses = publish(PoseStamped, topics.ee_pose, sensor)
        self._joints = publish(JointState, topics.gripper, 10)
        self._info = pinhole(WIDTH_PX, HEIGHT_PX, self._arm.focal_length_px(CAMERA), CAMERA_FRAME)
        self.create_subscription(PoseStamped, topics.command_pose, self._on_pose, qos.RELIABLE)
        self.create_subscription(JointState, topics.command_gripper, self._on_gripper, qos.RELIABLE)
        self.create_service(Trigger, "stand_in/put_back", self._on_put_back)
        self.get_logger().info(f"ready: topics as in {share_file(TOPICS)}")
        self._demonstrations: Demonstrations | None = None
        if self._config.demonstrations:
            self._demonstrations = Demonstrations(
                self, self._arm, self._config, topics, BASE_FRAME, self.put_back
            )
        self._loops = (
            RealtimeLoop(1.0 / self._arm.rate_hz, self._on_tick, self._add_timer),
            RealtimeLoop(1.0 / CAMERA_HZ, self._on_picture, self._add_timer),
        )

    def close(self) -> None:
        self._arm.close()

    def _add_timer(self, period_s: float, callback: Callable[[], None]) -> Timer:
        return self.create_timer(period_s, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # ---- commands --------------------------------------------------------------------------------------

    def put_back(self) -> None:
        """Drive to the start of the next seed; the block is put back when the arm is there.

        After demonstrations, the starts lie among those of the demonstrations.
        """
        self._next_seed += 1
        is_after = self._config.demonstrations and self._demonstrations is None
        self._arm.put_back(self._next_seed, _SPREAD_AFTER if is_after else 1.0)
        self._position_m = self._gripper = None

    def _on_put_back(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.put_back()
        response.success, response.message = (
            True,
            "drives to its start; the block is put back when it is there",
        )
        return response

    def _on_pose(self, msg: PoseStamped) -> None:
        try:
            pose = conversions.pose_to_vector(msg)
        except conversions.ConversionError as error:
            self._refuse(f"command: {error}")
            return
        turn_rad = angle_rad(orientation_of(pose), orientation_of(self._arm.measure()[0]))
        if not np.isfinite(position_of(pose)).all():
            self._refuse("command: the position is not finite")
        elif msg.header.frame_id != BASE_FRAME:
            self._refuse(f"command: is in frame '{msg.header.frame_id}', not '{BASE_FRAME}'")
        elif not turn_rad <= _MOST_TURN_RAD:
            self._refuse(f"command: turns the tool by {turn_rad:.2f} rad, which this arm cannot")
        else:
            self._position_m, self._heard_s = position_of(pose), time.monotonic()

    def _on_gripper(self, msg: JointState) -> None:
        try:
            value = self._grippers.read(msg) if self._grippers.is_of_gripper(msg) else None
        except conversions.ConversionError as error:
            self._refuse(f"gripper command: {error}")
            return
        if value is not None:
            self._gripper = value

    def _refuse(self, why: str) -> None:
        self.get_logger().error(f"{why}; it was ignored", throttle_duration_sec=1.0)

    # ---- motion and sensors ----------------------------------------------------------------------------

    def _on_tick(self) -> None:
        is_commanded = time.monotonic() - self._heard_s <= self._config.command_timeout_s
        position_m = self._position_m if is_commanded else None
        self._arm.tick(position_m, self._gripper)
        stamp_ns = self.get_clock().now().nanoseconds
        names, positions = self._arm.joint_positions()
        arm = [name.startswith("hand") for name in names]
        joints = JointState(
            header=conversions.make_header(stamp_ns),
            name=[*(n for n, is_arm in zip(names, arm, strict=True) if is_arm), self._gripper_joint],
            position=[*(p for p, is_arm in zip(positions, arm, strict=True) if is_arm), self._arm.finger_m],
        )
        self._joints.publish(joints)
        self._poses.publish(conversions.vector_to_pose(self._arm.measure()[0], stamp_ns, BASE_FRAME))
        if self._demonstrations is not None and self._demonstrations.tick(stamp_ns):
            self._demonstrations = None
            self.put_back()

    def _on_picture(self) -> None:
        stamp_ns = self.get_clock().now().nanoseconds
        picture = self._arm.render(CAMERA)
        self._info.header.stamp = conversions.ns_to_stamp(stamp_ns)
        self._infos.publish(self._info)
        if self._camera_poses.get_subscription_count():
            pose = conversions.vector_to_pose(self._arm.camera_pose(CAMERA), stamp_ns, BASE_FRAME)
            self._camera_poses.publish(pose)
        self._pictures.publish(images.rgb_to_image(picture, stamp_ns, CAMERA_FRAME))


def ask_put_back() -> str:
    """Ask the stand-in of this domain to drive to its start; its answer. StandInError where there is none."""
    rclpy.init()
    node = Node("stand_in_client")
    try:
        client = node.create_client(Trigger, "stand_in/put_back")
        if not client.wait_for_service(_ANSWER_S):
            raise StandInError("no stand-in robot answers in this ROS domain: start `dp_ros stand-in`")
        answer = client.call_async(Trigger.Request())
        rclpy.spin_until_future_complete(node, answer, timeout_sec=_ANSWER_S)
        if not answer.done():
            raise StandInError(f"the stand-in robot did not answer within {_ANSWER_S:g} s: try again")
        return str(answer.result().message)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def main(args: Sequence[str] | None = None) -> None:
    """Main function; `args` in place of the process's own. ConfigError where an argument is not for ROS."""
    if unknown := remove_ros_args(args) if args else []:
        raise ConfigError(f"{' '.join(unknown)}: give parameters and remappings after --ros-args")
    set_priority(
        _PRIORITY, inherited=True
    )  # before ROS makes its threads; a robot does not share this processor
    run_process(StandIn, args)


if __name__ == "__main__":
    main()
