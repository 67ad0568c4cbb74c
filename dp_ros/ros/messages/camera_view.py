"""Points in the base frame to pixels of the picture that a policy sees of a camera. Works without ROS."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dp_ros.poses import inverted, orientation_of, position_of, rotated
from dp_ros.schema.pictures import Target

Array = NDArray[np.float64]
_NEAR_M = 0.01  # nearer points are behind the lens, or on it
_KNOWN_DISTORTIONS = ("plumb_bob", "rational_polynomial")
_BESIDE = (
    0.5  # of the picture's size; farther outside, the polynomial of the distortion folds points back into it
)


def project(points_m: Array, camera_pose: Array, info: Any, target: Target) -> Array | None:
    """Points (n, 3) -> pixels (n, 2), x to the right and y down, (0, 0) the middle of the first pixel; NaN: not seen.

    camera_pose (7,): the camera's optical frame in the points' frame. info: sensor_msgs/CameraInfo of the recorded
    picture. target: how that picture becomes the policy's. None where the lens is not calibrated or is of an unknown
    kind.
    """
    size, matrix = (int(info.height), int(info.width)), np.array(info.k, np.float64).reshape(3, 3)
    if min(size) < 1 or not matrix[0, 0] > 0:  # ROS: K is 0 where nobody has calibrated the camera
        return None
    distortion = np.array(info.d, np.float64)
    if distortion.any() and info.distortion_model not in _KNOWN_DISTORTIONS:
        return None
    into = inverted(camera_pose)
    in_camera = rotated(orientation_of(into), points_m) + position_of(into)
    pixels = np.full((len(in_camera), 2), np.nan)
    seen = in_camera[:, 2] > _NEAR_M
    straight = in_camera[seen] @ matrix.T
    straight = straight[:, :2] / straight[:, 2:]
    width_height = np.array(size[::-1])
    near = ((straight > -_BESIDE * width_height) & (straight < (1 + _BESIDE) * width_height)).all(1)
    seen[seen] = near
    if seen.any():
        found, _ = cv2.projectPoints(in_camera[seen], np.zeros(3), np.zeros(3), matrix, distortion)
        pixels[seen] = _fitted(found.reshape(-1, 2), size, target)
    return pixels


def _fitted(pixels: Array, size: tuple[int, int], target: Target) -> Array:
    """Pixels of a picture of `size` -> of the picture that `fit_image` makes of it."""
    cut, inside = np.array(target.cut(size)), np.array(target.inside(size))
    start, margin = (np.array(size) - cut) // 2, (np.array(target.size) - inside) // 2
    fitted: Array = (pixels + 0.5 - start[::-1]) * (inside / cut)[::-1] + margin[::-1] - 0.5
    return fitted
