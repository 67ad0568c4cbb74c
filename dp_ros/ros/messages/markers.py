"""Messages that RViz draws of a plan: the path of the chunk, and markers of all that belongs to it.

Each kind of marker has a namespace of its own, which RViz can switch off: plan, executed, command, verdict, workspace,
commanded, measured, spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from nav_msgs.msg import Path
from numpy.typing import ArrayLike, NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from dp_ros.actions import POSITION
from dp_ros.control.chunk import Chunk
from dp_ros.control.safety import Command
from dp_ros.ros.messages.conversions import ns_to_stamp, position_to_pose

Array = NDArray[np.float64]

_PLANNED = ColorRGBA(r=0.6, g=0.6, b=0.6, a=0.8)
_EXECUTED = ColorRGBA(r=0.1, g=0.7, b=0.2, a=1.0)
_HELD = ColorRGBA(r=0.9, g=0.2, b=0.1, a=1.0)
_BOX = ColorRGBA(r=0.9, g=0.7, b=0.1, a=0.5)
_COMMANDED = ColorRGBA(r=0.2, g=0.4, b=1.0, a=0.9)
_SPREAD = ColorRGBA(r=0.6, g=0.6, b=0.6, a=0.35)
_MEASURED = ColorRGBA(r=0.9, g=0.5, b=0.9, a=0.9)
_TEXT_ABOVE = np.array([0.0, 0.0, 0.08])  # of the command [m]


@dataclass(frozen=True)
class Scene:
    """Scene that is drawn beside the chunk. Positions are in the base frame [m]."""

    text: str  # verdict and its cause
    holds: bool
    workspace_m: tuple[ArrayLike, ArrayLike]  # lowest and highest corner of the gate's box
    commanded_m: Array  # (n, 3), the last commands
    measured_m: Array  # (n, 3)
    spread_m: Array | None = None  # (n, T_p, 3), further samples of the chunk


def chunk_to_path(chunk: Chunk, orientation: Array, frame_id: str) -> Path:
    """Every action of the chunk, with the orientation (4,) of the command, stamped with the time it is for."""
    path = Path()
    path.header.frame_id, path.header.stamp = frame_id, ns_to_stamp(chunk.t0_ns)
    path.poses = [
        position_to_pose(POSITION.of(action), orientation, stamp_ns, frame_id)
        for action, stamp_ns in zip(chunk.actions, chunk.times_ns(), strict=True)
    ]
    return path


def plan_markers(chunk: Chunk | None, command: Command, scene: Scene, frame_id: str) -> MarkerArray:
    """Grey: the whole chunk, and faint its further samples; green: its executed part; yellow: the workspace; blue: the
    commands; violet: the measured path; a ball at the command and the verdict above it, red while the arm holds.

    Without a chunk, that of the message before disappears after a second.
    """
    stamp = ns_to_stamp(command.stamp_ns)

    def marker(name: str, kind: int, scale_m: float, color: ColorRGBA, points_m: Array) -> Marker:
        result = Marker(ns=name, id=0, type=kind, action=Marker.ADD, color=color)
        result.header.frame_id, result.header.stamp = frame_id, stamp
        result.scale.x = result.scale.y = result.scale.z = scale_m
        result.pose.orientation.w = 1.0
        result.lifetime = Duration(sec=1)
        points = [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in points_m]
        if kind in (Marker.SPHERE, Marker.TEXT_VIEW_FACING):
            result.pose.position = points[0]
        else:
            result.points = points
        return result

    colour, at_m = _HELD if scene.holds else _EXECUTED, np.asarray(command.position_m)[None]
    markers = []
    if chunk is not None:
        positions = POSITION.of(chunk.actions)
        markers = [
            marker("plan", Marker.LINE_STRIP, 0.003, _PLANNED, positions),
            marker("executed", Marker.SPHERE_LIST, 0.008, _EXECUTED, positions[chunk.executed]),
        ]
    if chunk is not None and scene.spread_m is not None:
        # Both ends of each piece of each sample.
        pieces = np.stack([scene.spread_m[:, :-1], scene.spread_m[:, 1:]], axis=2).reshape(-1, 3)
        markers.append(marker("spread", Marker.LINE_LIST, 0.0015, _SPREAD, pieces))
    text = marker("verdict", Marker.TEXT_VIEW_FACING, 0.025, colour, at_m + _TEXT_ABOVE)
    text.text = scene.text
    markers += [
        marker("command", Marker.SPHERE, 0.015, colour, at_m),
        text,
        marker("workspace", Marker.LINE_LIST, 0.002, _BOX, box_edges(*scene.workspace_m)),
    ]
    for name, colour, path_m in (
        ("commanded", _COMMANDED, scene.commanded_m),
        ("measured", _MEASURED, scene.measured_m),
    ):
        if len(path_m) > 1:  # RViz refuses a line of one point
            markers.append(marker(name, Marker.LINE_STRIP, 0.002, colour, path_m))
    return MarkerArray(markers=markers)


def box_edges(low_m: ArrayLike, high_m: ArrayLike) -> Array:
    """Both ends of each of the 12 edges of a box, (24, 3)."""
    corners = np.array(list(product(*zip(low_m, high_m, strict=True))))
    pairs = [(a, b) for a in range(8) for b in range(a + 1, 8) if (a ^ b).bit_count() == 1]
    return corners[np.array(pairs).ravel()]
