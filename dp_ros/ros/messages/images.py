"""Image messages to RGB pixels and back: raw encodings, JPEG and PNG.

Reading uses only a message's fields. It takes messages of rclpy, rosbags and rosless, and works without ROS.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dp_ros.encoded import decode_picture
from dp_ros.errors import shown
from dp_ros.pictures import fit_image
from dp_ros.ros.messages.conversions import ConversionError, make_header
from dp_ros.schema import Target

if TYPE_CHECKING:
    from sensor_msgs.msg import Image


class DamagedImageError(ConversionError):
    """An image of which a part is missing or unreadable. The next one may be whole: it is a lost frame."""


@dataclass(frozen=True)
class _Layout:
    """Storage of one pixel, and OpenCV's code that converts it to R, G, B (None: its first channels are R, G, B)."""

    channels: int
    code: int | None = None
    dtype: type[np.unsignedinteger[Any]] = np.uint8

    @property
    def pixel_bytes(self) -> int:
        return self.channels * np.dtype(self.dtype).itemsize


# OpenCV names a Bayer pattern by its second row and column, ROS by its first.
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
_LAYOUTS = {
    f"{colour}{bits}": _Layout(channels, code, dtype)
    for bits, dtype in ((8, np.uint8), (16, np.uint16))
    for colour, channels, code in (
        ("rgb", 3, None),
        ("rgba", 4, None),
        ("bgr", 3, cv2.COLOR_BGR2RGB),
        ("bgra", 4, cv2.COLOR_BGRA2RGB),
        ("mono", 1, cv2.COLOR_GRAY2RGB),
        *((f"bayer_{pattern}", 1, code) for pattern, code in _BAYER.items()),
    )
}
_LAYOUTS["yuv422"] = _LAYOUTS["uyvy"] = _Layout(2, cv2.COLOR_YUV2RGB_UYVY)
_LAYOUTS["yuv422_yuy2"] = _LAYOUTS["yuyv"] = _Layout(2, cv2.COLOR_YUV2RGB_YUY2)

# Newer names cv_bridge may not know, and types that name no colours: there OpenCV's habit holds, blue first.
_SAME_AS = {"uyvy": "yuv422", "yuyv": "yuv422_yuy2", "8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8"}
_SAME_AS |= {"16UC1": "mono16", "16UC3": "bgr16", "16UC4": "bgra16"}
_PLAIN = {"rgb8", "rgba8", "bgr8", "bgra8", "mono8"}  # the rest goes through cv_bridge where it is installed


def to_rgb(msg: Any) -> NDArray[np.uint8]:
    """sensor_msgs Image or CompressedImage -> uint8 (H, W, 3): `image_to_rgb` or `compressed_to_rgb`."""
    if hasattr(msg, "encoding"):
        return image_to_rgb(msg)
    if hasattr(msg, "format"):
        return compressed_to_rgb(msg)
    raise ConversionError(f"{type(msg).__name__} is no image: use sensor_msgs/Image or CompressedImage")


def to_picture(msg: Any, camera: str, target: Target) -> NDArray[np.uint8]:
    """The message of a camera -> uint8 (height_px, width_px, 3) of the target, as the policy takes it.

    ConversionError or ImageSizeError, which name the camera.
    """
    try:
        rgb = to_rgb(msg)
    except ConversionError as error:
        raise type(error)(f"camera {camera}: {error}") from None
    return fit_image(rgb, target, f"camera {camera}")


def image_to_rgb(msg: Any) -> NDArray[np.uint8]:
    """sensor_msgs/Image -> uint8 (H, W, 3) in [0, 255].

    `rgb8` and `rgba8` are views on the message's own bytes: do not write; rows may be padded. All else is a
    new contiguous array. Alpha is dropped. 16 bits become 8 over the full scale, round(v * 255 / 65535),
    independent of the sensor's range; 16UC1 counts as mono16, so depth in mm comes out dark. YUV is BT.601, limited
    range. Floats have no range to scale from and are refused.
    ConversionError: no defined meaning in RGB, or size, step and data that contradict each other.
    """
    name = _SAME_AS.get(msg.encoding, msg.encoding)
    if name not in _LAYOUTS:
        raise _unusable(msg, f"this encoding has no defined meaning in RGB; publish {', '.join(_LAYOUTS)}")
    return _pixels_to_rgb(_pixels(msg, _LAYOUTS[name]), name)


def compressed_to_rgb(msg: Any) -> NDArray[np.uint8]:
    """sensor_msgs/CompressedImage, JPEG or PNG -> new uint8 (H, W, 3) in [0, 255].

    The format is image_transport's "<encoding>; <codec> compressed <encoding in the file>", or a bare codec.
    Files hold true colours unless it says "compressed rgb" (red and blue swapped by the publisher).
    16-bit PNGs follow `image_to_rgb`. Bytes after the end of a JPEG are ignored, because some cameras pad it.
    DamagedImageError: data truncated or of another kind. ConversionError: compressedDepth.
    """
    if "compressedDepth" in msg.format:
        raise _unusable(msg, "this is depth, not colour; subscribe to the camera's compressed colour topic")
    data = bytes(msg.data)
    pixels = decode_picture(data)
    if pixels is None:
        raise _damaged(msg, f"{len(data)} bytes, not one whole JPEG or PNG; check publisher and link")
    declared, _, stored = msg.format.partition(";")
    bits = 8 * pixels.itemsize
    if pixels.ndim == 3:
        name = f"{'rgb' if 'compressed rgb' in stored else 'bgr'}{'a' * (pixels.shape[2] == 4)}{bits}"
    elif declared in {f"bayer_{pattern}{bits}" for pattern in _BAYER} and "mono" not in stored:
        name = declared  # PNG keeps the mosaic; JPEG publishers make it grey first, and say so
    else:
        name = f"mono{bits}"
    return np.ascontiguousarray(_pixels_to_rgb(pixels, name))


def rgb_to_image(rgb: NDArray[np.uint8], stamp_ns: int, frame_id: str) -> Image:
    """uint8 (H, W, 3) -> sensor_msgs/Image `rgb8` with unpadded rows; the pixels are copied once."""
    from sensor_msgs.msg import Image

    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ConversionError(f"{rgb.dtype} {rgb.shape} is no image to publish: pass uint8 (H, W, 3)")
    height, width, _ = rgb.shape
    msg = Image(header=make_header(stamp_ns, frame_id), height=height, width=width, encoding="rgb8")
    msg.step = 3 * width
    data = array.array("B")  # the one type a message field takes as it is, without visiting each byte
    data.frombytes(np.ascontiguousarray(rgb).data)
    msg.data = data
    return msg


def _pixels(msg: Any, layout: _Layout) -> NDArray[Any]:
    """The message's pixels (H, W, channels): a view in its own byte order that skips the row padding."""
    row_bytes = msg.width * layout.pixel_bytes
    if not (msg.height > 0 and msg.width > 0):
        raise _damaged(msg, f"{msg.width}x{msg.height} pixels; check the camera driver")
    if layout.channels == 2 and msg.width % 2:
        raise _unusable(msg, f"{msg.width} pixels wide, but 4:2:2 pixels come in pairs; crop it")
    if msg.step < row_bytes:
        raise _unusable(msg, f"step {msg.step} but {row_bytes} bytes a row; the publisher must set step")
    if len(msg.data) < msg.height * msg.step:
        size = f"{len(msg.data)} bytes but height * step is {msg.height * msg.step}"
        raise _damaged(msg, f"{size}; the publisher must send whole images")
    dtype = np.dtype(layout.dtype).newbyteorder(">" if msg.is_bigendian else "<")
    shape = (msg.height, msg.width, layout.channels)
    return np.ndarray(shape, dtype, msg.data, strides=(msg.step, layout.pixel_bytes, dtype.itemsize))


def _pixels_to_rgb(pixels: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Pixels of the encoding `name`, (H, W, channels) or (H, W) for one -> uint8 (H, W, 3)."""
    layout = _LAYOUTS[name]
    if name in _PLAIN:
        return pixels[..., :3] if layout.code is None else cv2.cvtColor(pixels, layout.code)
    pixels = np.ascontiguousarray(pixels, layout.dtype)  # now in this machine's byte order
    if bridge := _cv_bridge():
        return np.asarray(bridge(_packed(pixels, name), "rgb8"))
    rgb = pixels[..., :3] if layout.code is None else cv2.cvtColor(pixels, layout.code)
    return rgb if rgb.dtype == np.uint8 else cv2.convertScaleAbs(rgb, alpha=255 / 65535)


@lru_cache(maxsize=1)
def _cv_bridge() -> Callable[[Image, str], NDArray[np.uint8]] | None:
    """cv_bridge's converter; None where it is missing or fails on four pixels, as PyPI's ROS 1 build does."""
    try:
        from cv_bridge import CvBridge

        convert = CvBridge().imgmsg_to_cv2
        probe = convert(_packed(np.array([[0, 900], [30000, 65535]], np.uint16), "mono16"), "rgb8")
        return convert if np.array_equal(probe[..., 0], [[0, 4], [117, 255]]) else None
    except Exception:  # a foreign build may raise anything, and OpenCV makes the same image
        return None


def _packed(pixels: NDArray[Any], name: str) -> Image:
    """Contiguous pixels as an unpadded Image in this machine's byte order, which cv_bridge reads right."""
    from sensor_msgs.msg import Image

    msg = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=name)
    msg.step = pixels.strides[0]
    msg.is_bigendian = int(sys.byteorder == "big")
    msg.data = array.array("B", pixels.tobytes())
    return msg


def _unusable(msg: Any, why: str) -> ConversionError:
    return ConversionError(_described(msg, why))


def _damaged(msg: Any, why: str) -> DamagedImageError:
    return DamagedImageError(_described(msg, why))


def _described(msg: Any, why: str) -> str:
    kind = msg.encoding if hasattr(msg, "encoding") else msg.format
    return f"image '{shown(kind)}' of frame '{shown(msg.header.frame_id)}': {why}"
