"""Frames as messages: transforms for /tf, and the tree that a reader of /tf knows.

`tf2_msgs` is on no package registry, so a ROS from wheels lacks it. `transforms_message` is None there; nothing else
here needs it.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.poses import composed, inverted, is_unit, make_pose, orientation_of, position_of
from dp_ros.ros.messages.conversions import make_header

if TYPE_CHECKING:
    from geometry_msgs.msg import TransformStamped

Array = NDArray[np.float64]
WITHOUT_TF = "no /tf, because tf2_msgs is not installed (it comes with every ROS installation but the wheels)"
_DEEPEST = 100  # frames between one and its root; more are a loop


def transforms_message() -> Any:
    """The class tf2_msgs/TFMessage; None where it is not installed."""
    try:
        return import_module("tf2_msgs.msg").TFMessage
    except ImportError:
        return None


def pose_to_transform(pose: Array, stamp_ns: int, parent: str, child: str) -> TransformStamped:
    """Pose (7,) of the frame `child` in `parent` -> TransformStamped."""
    from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3

    (x, y, z), (qx, qy, qz, qw) = position_of(pose).tolist(), orientation_of(pose).tolist()
    transform = Transform(translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=qx, y=qy, z=qz, w=qw))
    return TransformStamped(header=make_header(stamp_ns, parent), child_frame_id=child, transform=transform)


class FrameTree:
    """The newest transform of each frame to its parent, as the messages of /tf and /tf_static say.

    Messages of any binding: only their fields are read. A transform that is not finite, or has no unit quaternion, is
    ignored.
    """

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, Array]] = {}  # frame -> its parent, and its pose (7,) there

    def add(self, transforms: Iterable[Any]) -> None:
        """The field `transforms` of a TFMessage."""
        for each in transforms:
            place, turn = each.transform.translation, each.transform.rotation
            pose = make_pose([place.x, place.y, place.z], [turn.x, turn.y, turn.z, turn.w])
            if np.isfinite(pose).all() and is_unit(orientation_of(pose)):
                self._parents[_name(each.child_frame_id)] = _name(each.header.frame_id), pose

    def pose(self, frame: str, base: str) -> Array | None:
        """Pose (7,) of `frame` in `base`; None where no chain of transforms connects them."""
        one, other = self._to_root(_name(frame)), self._to_root(_name(base))
        if one is None or other is None or one[0] != other[0]:
            return None
        return composed(inverted(other[1]), one[1])

    def _to_root(self, frame: str) -> tuple[str, Array] | None:
        """The root above a frame, and the frame's pose (7,) in it."""
        pose = make_pose(np.zeros(3), [0.0, 0.0, 0.0, 1.0])
        for _ in range(_DEEPEST):
            if frame not in self._parents:
                return frame, pose
            frame, step = self._parents[frame]
            pose = composed(step, pose)
        return None


def _name(frame: str) -> str:
    return frame.removeprefix("/")
