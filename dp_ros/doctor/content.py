"""Judgement of what messages hold: pictures, poses and their unit, and the gripper's range."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import LEAST_GRIPPER_SHARE
from dp_ros.doctor.findings import Finding, error, ok, warning
from dp_ros.doctor.measurements import CameraHeard, Expected, GripperHeard, PoseHeard
from dp_ros.pictures import ImageSizeError, aspect, check_fits
from dp_ros.poses import UNIT_TOLERANCE, orientation_of, position_of
from dp_ros.schema import as_vector

Array = NDArray[np.float64]

_UNITS = {1000.0: "millimetres", 100.0: "centimetres", 1.0 / 0.0254: "inches"}  # in a metre
_BEYOND = 0.5  # of the demonstrations' extent: further outside, the robot stands elsewhere
_LONGEST_M = 3.0  # no arm that dp_ros serves reaches further
_SMALL_SHARE = 0.25  # of a gripper's range: all that a gripper of a smaller range ever shows
_STRAY = 0.3  # of the opening: further from the demonstrations' openings is noted


def pictures(camera: CameraHeard, expected: Expected) -> list[Finding]:
    """Sizes, aspect ratio and look of one camera's pictures."""
    if not camera.sizes:
        unusable = error(camera.where, "its pictures cannot be used", camera.why_refused)
        return [unusable] if camera.refused and len(camera.stamps_ns) else []
    if len(camera.sizes) > 1:
        shown = ", ".join(f"{width}x{height}" for height, width in camera.sizes)
        return [
            error(
                camera.where,
                f"pictures of several sizes ({shown} px)",
                "publish one camera on it, in one size",
            )
        ]
    found = []
    size, target = camera.sizes[0], expected.policy.encoder.target(camera.camera)
    try:
        check_fits(size, target, camera.where)
        encoding = ", ".join(camera.encodings)
        shown = f"{size[1]}x{size[0]} px, {aspect(size)}, {encoding}, for {target}"
        found.append(ok(camera.where, shown))
    except ImageSizeError as wrong:
        what, _, remedy = str(wrong).removeprefix(f"{camera.where}: ").partition(": ")
        found.append(error(camera.where, what, remedy))
    least = expected.runtime.min_contrast
    if camera.contrast is not None and not camera.contrast >= least:
        found.append(
            error(
                camera.where,
                f"shows nothing (contrast {camera.contrast:.1f} of 255, min_contrast {least:g}), so the arm would hold",
                "uncover it, or switch the light on; min_contrast: 0.0 where it may look at a plain wall",
            )
        )
    if len(camera.frame_ids) > 1:
        found.append(
            warning(
                camera.where,
                f"pictures of several frames ({', '.join(camera.frame_ids)})",
                "publish one camera on it",
            )
        )
    return found


def pose(heard: PoseHeard, expected: Expected) -> list[Finding]:
    """Frame, unit and place of the measured pose, and length of its quaternion."""
    if not len(heard.poses):
        return []
    found = _frames(heard) + _orientation(heard)
    position = np.median(position_of(heard.poses), axis=0)
    if not np.isfinite(position_of(heard.poses)).all():
        return [
            *found,
            error(heard.where, "positions that are not finite", "its publisher must not send NaN"),
        ]
    if unit := _unit_of(position, expected):
        return [
            *found,
            error(
                heard.where,
                f"position {_shown(position)} is {unit}{_trained(expected)}",
                "publish metres (REP 103)",
            ),
        ]
    return found + _place(heard, position, expected)


def _frames(heard: PoseHeard) -> list[Finding]:
    if len(heard.frame_ids) > 1:
        return [
            error(
                heard.where,
                f"poses in several frames ({', '.join(heard.frame_ids)})",
                "publish all in the base frame",
            )
        ]
    if heard.frame_ids == ("",):
        return [
            warning(
                heard.where,
                "its header.frame_id is empty, and commands will bear it",
                "name the base frame, e.g. base_link",
            )
        ]
    return []


def _orientation(heard: PoseHeard) -> list[Finding]:
    lengths = np.linalg.norm(orientation_of(heard.poses), axis=1)
    if (np.abs(lengths - 1.0) <= UNIT_TOLERANCE).all():  # NaN fails
        return []
    worst = float(lengths[np.argmax(np.nan_to_num(np.abs(lengths - 1.0), nan=np.inf))])
    zero = worst == 0.0
    what = (
        "its quaternion is 0, 0, 0, 0"
        if zero
        else f"its quaternion has length {worst:.4g}, not 1 within 1e-3"
    )
    return [
        error(
            heard.where,
            what,
            "publish the measured orientation, x, y, z, w" + ("" if zero else ", normalised"),
        )
    ]


def _unit_of(position: Array, expected: Expected) -> str:
    """Phrase that names the unit in which the position lies where the robot works; empty for metres."""
    low, high = _expected_box(expected)
    if _outside_m(position, low, high) <= _BEYOND * _extent_m(low, high):
        return ""
    for per_metre, unit in _UNITS.items():
        scaled = position / per_metre
        if np.linalg.norm(position) > _LONGEST_M and _outside_m(scaled, low, high) <= _BEYOND * _extent_m(
            low, high
        ):
            return f"in {unit}"
    # Far beyond any arm: the unit is wrong, wherever the base frame is.
    return "not in metres, probably in millimetres" if np.linalg.norm(position) > 10 * _LONGEST_M else ""


def _expected_box(expected: Expected) -> tuple[Array, Array]:
    """Expected range of the arm's position: that of the demonstrations, else the workspace."""
    gate = expected.runtime.gate
    return expected.position_m or (as_vector(gate.workspace_low_m), as_vector(gate.workspace_high_m))


def _place(heard: PoseHeard, position: Array, expected: Expected) -> list[Finding]:
    """The arm's place against the workspace and the demonstrations, and these two against one another."""
    gate = expected.runtime.gate
    low, high = as_vector(gate.workspace_low_m), as_vector(gate.workspace_high_m)
    allowed_m = float(getattr(gate, "max_outside_m", 0.0))
    outside_m = _outside_m(position, low, high)
    box = f"the workspace {_shown(low)} to {_shown(high)} m"
    found = []
    if outside_m > allowed_m:
        found.append(
            error(
                heard.where,
                f"the tool is at {_shown(position)} m, {outside_m:.3f} m outside {box}: the arm would hold",
                "move the arm inside, or measure gate.workspace_low_m and workspace_high_m in this base frame",
            )
        )
    else:
        found.append(ok(heard.where, f"the tool is at {_shown(position)} m, frame '{heard.frame_ids[0]}'"))
    if expected.position_m is None:
        return found
    first, last = expected.position_m
    if _outside_m(position, first, last) > _BEYOND * _extent_m(first, last):
        found.append(
            warning(
                heard.where,
                f"the tool is {_outside_m(position, first, last):.2f} m from where the demonstrations were "
                f"({_shown(first)} to {_shown(last)} m)",
                "is it the same base frame, and the same tool? Begin where the demonstrations began",
            )
        )
    if (np.maximum(low - first, last - high) > 0.01).any():
        found.append(
            warning(
                "workspace",
                f"the demonstrations reached {_shown(first)} to {_shown(last)} m, beyond {box}",
                "the gate stops the policy there: enlarge the box if that place is safe (dp_ros limits DATASET)",
            )
        )
    return found


def gripper(heard: GripperHeard, expected: Expected) -> list[Finding]:
    """Openings against the range of the settings and the demonstrations."""
    if not len(heard.openings):
        return []
    low, high = float(heard.openings.min()), float(heard.openings.max())
    closed, opened = expected.runtime.gripper_range
    found = [ok(heard.where, f"opening {low:.2f} to {high:.2f} of 0 closed to 1 open")]
    trained = expected.opening
    is_new = trained is not None and (low < trained[0] - _STRAY or high > trained[1] + _STRAY)
    moved = high - low > LEAST_GRIPPER_SHARE / 10
    if moved and high - low < _SMALL_SHARE and (high < _SMALL_SHARE or low > 1 - _SMALL_SHARE):
        found.append(
            warning(
                heard.where,
                f"it moved, and only between {low:.3f} and {high:.3f} of gripper_range {closed:g} to {opened:g}",
                "give the positions that mean closed and open as gripper_range",
            )
        )
    elif is_new and trained is not None:
        found.append(
            warning(
                heard.where,
                f"opening {low:.2f} to {high:.2f}, in the demonstrations {trained[0]:.2f} to {trained[1]:.2f}",
                "open the gripper as the demonstrations began, or correct gripper_range (closed first, open last)",
            )
        )
    return found


def _outside_m(position: Array, low: Array, high: Array) -> float:
    return float(np.linalg.norm(position - np.clip(position, low, high)))


def _extent_m(low: Array, high: Array) -> float:
    return float(np.linalg.norm(high - low))


def _trained(expected: Expected) -> str:
    if expected.position_m is None:
        return ""
    low, high = expected.position_m
    return f"; the demonstrations were at {_shown(low)} to {_shown(high)} m"


def _shown(position: Array) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in position) + ")"
