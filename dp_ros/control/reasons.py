"""Reasons why an arm holds or may not begin, in words."""

from __future__ import annotations

import math

import numpy as np

from dp_ros.control.safety import Array, Verdict
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


def skewed(frame: Frame, gate: GateConfig) -> str:
    """Message about a picture and a pose that are too far apart in time; empty where they are not."""
    skew_s, most = frame.skew_ns / 1e9, gate.max_skew_s
    if not most or skew_s <= most:
        return ""
    return f"a picture and the pose are {skew_s * 1e3:.0f} ms apart, more than gate.max_skew_s {most:g}"


def outside(position_m: Array, gate: GateConfig) -> str:
    x, y, z = position_m
    return (
        f"the arm is measured at ({x:g}, {y:g}, {z:g}) m, outside the workspace {gate.workspace_low_m} to "
        f"{gate.workspace_high_m}: drive it inside, or correct gate.workspace_low_m and _high_m"
    )


def of_gate(
    verdict: Verdict, action: Array | None, orientation: Array, measured: Array, gate: GateConfig
) -> str:
    """Why the gate holds; empty where it does not know the cause. orientation, measured: of the tool."""
    if verdict is Verdict.HOLD_TURNED:
        return (
            f"the tool is {angle_rad(orientation, measured):.2f} rad from its orientation at the start of the episode, "
            f"and was more than gate.max_turn_rad {gate.max_turn_rad:g} from it: turn it back, or deactivate and "
            "activate; if it turned by itself, the driver's tool frame is not that of ee_pose"
        )
    if verdict is Verdict.HOLD_NOT_FINITE:
        return f"the planned action {np.array2string(np.asarray(action), precision=3)} is not finite"
    return ""


def stale(obs_age_s: float, lost: str) -> str:
    """About an observation that is too old; infinite: of before the clock went back, or the commands were `lost`."""
    if math.isinf(obs_age_s):
        return f"the newest observation is from before {lost or 'time went back'}"
    return f"the newest observation is {obs_age_s * 1e3:.0f} ms old"
