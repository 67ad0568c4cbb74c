"""Messages that RViz draws of a plan: the path of the chunk, its executed part and the command."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from nav_msgs.msg import Path
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from dp_ros.actions import POSITION
from dp_ros.control.chunk import Chunk
from dp_ros.control.safety import Command, Verdict
from dp_ros.ros.messages.conversions import ns_to_stamp, position_to_pose

_PLANNED = ColorRGBA(r=0.6, g=0.6, b=0.6, a=0.8)
_EXECUTED = ColorRGBA(r=0.1, g=0.7, b=0.2, a=1.0)
_HELD = ColorRGBA(r=0.9, g=0.2, b=0.1, a=1.0)


def chunk_to_path(chunk: Chunk, orientation: NDArray[np.float64], frame_id: str) -> Path:
    """Every action of the chunk, with the orientation (4,) of the command, stamped with the time it is for."""
    path = Path()
    path.header.frame_id, path.header.stamp = frame_id, ns_to_stamp(chunk.t0_ns)
    path.poses = [
        position_to_pose(POSITION.of(action), orientation, stamp_ns, frame_id)
        for action, stamp_ns in zip(chunk.actions, chunk.times_ns(), strict=True)
    ]
    return path


def plan_markers(chunk: Chunk, command: Command, verdict: Verdict, frame_id: str) -> MarkerArray:
    """Grey: the whole chunk; green: the part that is executed; a ball at the command, red while it holds."""
    stamp = ns_to_stamp(command.stamp_ns)

    def marker(
        number: int, kind: int, scale_m: float, color: ColorRGBA, positions: NDArray[np.float64]
    ) -> Marker:
        result = Marker(ns="plan", id=number, type=kind, action=Marker.ADD, color=color)
        result.header.frame_id, result.header.stamp = frame_id, stamp
        result.scale.x = result.scale.y = result.scale.z = scale_m
        result.pose.orientation.w = 1.0
        result.lifetime = Duration(sec=1)
        points = [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in positions]
        if kind == Marker.SPHERE:
            result.pose.position = points[0]
        else:
            result.points = points
        return result

    positions = POSITION.of(chunk.actions)
    return MarkerArray(
        markers=[
            marker(0, Marker.LINE_STRIP, 0.003, _PLANNED, positions),
            marker(1, Marker.SPHERE_LIST, 0.008, _EXECUTED, positions[chunk.executed]),
            marker(2, Marker.SPHERE, 0.015, _HELD if verdict.holds else _EXECUTED, command.position_m[None]),
        ]
    )
