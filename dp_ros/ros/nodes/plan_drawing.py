"""The plan for RViz and Foxglove: path, markers, and the pictures that the policy sees. Drawn for subscribers only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from nav_msgs.msg import Path
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

from dp_ros.control.controller import PolicyDecision
from dp_ros.pictures import side_by_side
from dp_ros.ros.messages import images
from dp_ros.ros.messages.markers import chunk_to_path, plan_markers
from dp_ros.streams import FrameAssembler


class PlanDrawing:
    """Publisher of `policy/path`, `policy/markers` and `policy/image`."""

    def __init__(self, publisher: Callable[..., Any], streams: FrameAssembler) -> None:
        """`publisher(kind, topic, qos)` makes a publisher."""
        self._streams = streams
        self._path = publisher(Path, "policy/path", 10)
        self._markers = publisher(MarkerArray, "policy/markers", 10)
        self._view = publisher(Image, "policy/image", 10)

    def draw(self, decision: PolicyDecision, frame_id: str) -> None:
        chunk, command = decision.chunk, decision.command
        if chunk is not None and np.isfinite(chunk.actions).all():
            if self._path.get_subscription_count():
                self._path.publish(chunk_to_path(chunk, command.orientation, frame_id))
            if self._markers.get_subscription_count():
                self._markers.publish(plan_markers(chunk, command, decision.verdict, frame_id))
        if self._view.get_subscription_count():
            newest = [stream.at(command.stamp_ns) for stream in self._streams.images.values()]
            pictures = [sample.value for sample in newest if sample is not None]
            if pictures:
                view = images.rgb_to_image(side_by_side(pictures), command.stamp_ns, frame_id)
                self._view.publish(view)
