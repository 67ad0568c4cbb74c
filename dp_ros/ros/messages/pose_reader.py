"""Reader of a live `ee_pose` topic: one frame for all poses, and a valid orientation in each."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from dp_ros.errors import shown
from dp_ros.ros.messages.conversions import ConversionError, pose_to_vector


class PoseReader:
    """Poses in one frame, that of the first valid pose. Commands are published in the same frame."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the frame: the next valid pose sets it."""
        self._frame_id: str | None = None

    @property
    def frame_id(self) -> str:
        """The frame of the poses; empty before the first one."""
        return self._frame_id or ""

    def read(self, msg: Any) -> NDArray[Any]:
        """PoseStamped -> (7,), see `pose_to_vector`. ConversionError in one line for an invalid quaternion or frame."""
        try:
            pose = pose_to_vector(msg)
        except ConversionError as error:
            raise ConversionError(f"ee_pose: {error}") from None
        if self._frame_id is None:
            self._frame_id = msg.header.frame_id
        if msg.header.frame_id != self._frame_id:
            frames = f"'{shown(msg.header.frame_id)}', but the first pose was in '{shown(self._frame_id)}'"
            raise ConversionError(
                f"ee_pose: is in frame {frames}: publish all poses in one frame, or "
                "deactivate and activate to change it"
            )
        return pose
