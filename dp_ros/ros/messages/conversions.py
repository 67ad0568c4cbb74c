"""Stamps, poses and joint states: messages to numbers and back, for live topics, bags and tests. Images: see images.py.

Reading uses only a message's fields. It takes messages of rclpy, rosbags and rosless, and works without ROS. Building
needs the message packages, which are imported where they are used.
Times are integer nanoseconds, positions metres, quaternions (x, y, z, w).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp_ros.errors import UserError, shown
from dp_ros.poses import is_unit, make_pose, orientation_of, position_of
from dp_ros.streams import Selection

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import JointState
    from std_msgs.msg import Header

NS_PER_S = 1_000_000_000


class ConversionError(UserError):
    """A message that cannot be translated: one line that says what, where and what to do."""


def stamp_to_ns(stamp: Any) -> int:
    """builtin_interfaces/Time -> nanoseconds since its clock's zero."""
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def ns_to_stamp(stamp_ns: int) -> Time:
    """Nanoseconds -> builtin_interfaces/Time, exactly; ConversionError where its 32-bit seconds end."""
    from builtin_interfaces.msg import Time

    sec, nanosec = divmod(index(stamp_ns), NS_PER_S)  # index(): a float cannot hold today in nanoseconds
    if not -(2**31) <= sec < 2**31:
        raise ConversionError(f"stamp {stamp_ns} ns does not fit a ROS time: is it in nanoseconds?")
    return Time(sec=sec, nanosec=nanosec)


def position_to_pose(
    position_m: ArrayLike, quat_xyzw: ArrayLike, stamp_ns: int, frame_id: str
) -> PoseStamped:
    """(3,) in metres and a quaternion (4,) -> PoseStamped; ConversionError unless finite and of length 1."""
    from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion

    position, quat = np.asarray(position_m, np.float64), np.asarray(quat_xyzw, np.float64)
    if position.shape != (3,) or not np.isfinite(position).all():
        raise ConversionError(
            f"position {position} in '{frame_id}' is not 3 finite numbers: do not publish it"
        )
    if not is_unit(quat):
        raise ConversionError(
            f"quaternion {quat} in '{frame_id}' is not x, y, z, w of length 1: normalise it"
        )
    x, y, z = position.tolist()
    qx, qy, qz, qw = quat.tolist()
    pose = Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
    return PoseStamped(header=make_header(stamp_ns, frame_id), pose=pose)


def vector_to_pose(pose: ArrayLike, stamp_ns: int, frame_id: str) -> PoseStamped:
    """(7,), position [m] and quaternion -> PoseStamped; ConversionError as in `position_to_pose`."""
    vector = np.asarray(pose, np.float64)
    return position_to_pose(position_of(vector), orientation_of(vector), stamp_ns, frame_id)


def pose_to_position(msg: Any) -> NDArray[np.float64]:
    """PoseStamped -> (3,) in metres, as sent: whether it is finite and in reach, control decides."""
    position = msg.pose.position
    return np.array([position.x, position.y, position.z], np.float64)


def pose_to_vector(msg: Any) -> NDArray[np.float64]:
    """PoseStamped -> (7,), position [m] as sent and a valid quaternion x, y, z, w.

    ConversionError unless the quaternion is finite and of length 1 (within 1e-3): it is a measurement that commands
    will repeat.
    """
    q = msg.pose.orientation
    quat = np.array([q.x, q.y, q.z, q.w], np.float64)
    if not is_unit(quat):
        raise ConversionError(
            f"quaternion {quat.tolist()} in '{shown(msg.header.frame_id)}' is not x, y, z, w of length 1: the "
            "publisher must send the measured orientation"
        )
    return make_pose(pose_to_position(msg), quat)


def effort_to_joint_state(effort: float | None, stamp_ns: int, name: str = "gripper") -> JointState:
    """Gripper command in [-1 open, 1 closed] -> JointState; without effort for None. ConversionError outside of it."""
    if effort is None:
        return _joint_state(stamp_ns, name)
    if not -1.0 <= effort <= 1.0:
        raise ConversionError(f"effort {effort} of '{name}' is outside [-1, 1]: clip it before publishing")
    return _joint_state(stamp_ns, name, effort=[float(effort)])


def joint_state_to_effort(msg: Any, name: str = "") -> float:
    """JointState -> the effort of joint `name` as sent, see `joint_index`."""
    return float(msg.effort[joint_index(msg, name, "effort")])


def gripper_state(position: float, stamp_ns: int, name: str = "gripper") -> JointState:
    """Opening in the robot's own unit, larger is wider -> JointState; ConversionError unless finite."""
    if not math.isfinite(position):
        raise ConversionError(f"position {position} of '{name}' is not finite: do not publish it")
    return _joint_state(stamp_ns, name, position=[float(position)])


def joint_state_to_position(msg: Any, name: str = "") -> float:
    """JointState -> the position of joint `name` as sent, see `joint_index`."""
    return float(msg.position[joint_index(msg, name, "position")])


def selection_to_ages(selection: Selection, names: Sequence[str]) -> JointState:
    """The samples of a frame -> JointState: how old each stream's was at the tick [s], exact to the nanosecond.

    With these ages a reader of the messages can assemble the same frame again: stamps do not tell which messages had
    arrived.
    """
    ages_s = [(selection.stamp_ns - sample.stamp_ns) / NS_PER_S for sample in selection.samples]
    from sensor_msgs.msg import JointState

    return JointState(header=make_header(selection.stamp_ns), name=list(names), position=ages_s)


def ages_to_stamps(msg: Any) -> tuple[int, dict[str, int]]:
    """Message of `selection_to_ages` -> (tick [ns], stream -> stamp of its sample [ns])."""
    tick_ns = stamp_to_ns(msg.header.stamp)
    if len(msg.name) != len(msg.position):
        raise ConversionError(
            f"policy/ages: {len(msg.name)} names but {len(msg.position)} ages; is it our node's?"
        )
    ages_ns = [round(age_s * NS_PER_S) for age_s in msg.position]
    return tick_ns, {name: tick_ns - age_ns for name, age_ns in zip(msg.name, ages_ns, strict=True)}


def times_to_message(times_s: Mapping[str, float | None], stamp_ns: int) -> JointState:
    """Times [s] of the command with that stamp, by name, without those that are None -> JointState."""
    from sensor_msgs.msg import JointState

    known = {name: value for name, value in times_s.items() if value is not None}
    return JointState(header=make_header(stamp_ns), name=list(known), position=list(known.values()))


def _joint_state(stamp_ns: int, name: str, **values: Sequence[float]) -> JointState:
    from sensor_msgs.msg import JointState

    return JointState(header=make_header(stamp_ns), name=[name], **values)


def joint_index(msg: Any, name: str, field: str) -> int:
    """Place of joint `name` in a field of a JointState; ConversionError where the field has no value for it.

    Without a name: the only value, or the joint called `gripper`.
    """
    count, names = len(getattr(msg, field)), list(msg.name)
    if not name and count == 1:
        return 0
    wanted = name or "gripper"
    if wanted in names and names.index(wanted) < count:
        return names.index(wanted)
    found = f"{count} {field} values for joints {shown(names, 200)}"
    raise ConversionError(
        f"joint state: {found}, none for '{wanted}'; publish one, or name the gripper's joint (gripper_joint)"
    )


def make_header(stamp_ns: int, frame_id: str = "") -> Header:
    from std_msgs.msg import Header

    return Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id)
