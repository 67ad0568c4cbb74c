"""CameraInfo of a simulated camera."""

from __future__ import annotations

from sensor_msgs.msg import CameraInfo


def pinhole(width_px: int, height_px: int, focal_length_px: float, frame_id: str) -> CameraInfo:
    """An ideal pinhole with the optical axis in the picture's centre, without a stamp.

    As OpenCV counts, (0, 0) is the middle of the first pixel.
    """
    f, cx, cy = focal_length_px, (width_px - 1) / 2, (height_px - 1) / 2
    info = CameraInfo(width=width_px, height=height_px, distortion_model="plumb_bob")
    info.header.frame_id = frame_id
    info.d = [0.0] * 5
    info.k = [f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [f, 0.0, cx, 0.0, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info
