"""Reasons why an arm holds or may not begin, in words."""

from __future__ import annotations

from dp_ros.control.safety import Array
from dp_ros.pictures import contrast
from dp_ros.poses import angle_rad
from dp_ros.schema import EncoderConfig, GateConfig
from dp_ros.streams import Frame


def covered_camera(frame: Frame, encoder: EncoderConfig, least: float) -> str:
    """Message about the first camera whose picture is of one colour; empty where there is none."""
    for camera, picture in zip(encoder.cameras, frame.images, strict=True):
        if (found := contrast(picture, encoder.target(camera).fit == "pad")) < least:
            measured = f"contrast {found:.1f}, min_contrast {least:g}"
            return f"camera {camera} shows nothing ({measured}): is it covered?"
    return ""


def outside(position_m: Array, gate: GateConfig) -> str:
    x, y, z = position_m
    return (
        f"the arm is measured at ({x:g}, {y:g}, {z:g}) m, outside the workspace {gate.workspace_low_m} to "
        f"{gate.workspace_high_m}: drive it inside, or correct gate.workspace_low_m and _high_m"
    )


def turned(orientation: Array, measured: Array, gate: GateConfig) -> str:
    return (
        f"the tool is {angle_rad(orientation, measured):.2f} rad from its orientation at the start of the episode, "
        f"more than gate.max_turn_rad {gate.max_turn_rad:g}: turn it back, or deactivate and activate"
    )
