"""Attack on the way from image messages to frames: random messages, most of them broken, without DDS.

Each message goes through the subscriptions of a policy's node. It must become a picture of the policy's size, or be
refused in one line; the next good message must make a frame. Raw messages have wrong encodings, sizes, steps and
lengths. Compressed ones are damaged JPEG and PNG files, files of other formats, and small files that declare up to
65,535 pixels a side.
"""

from __future__ import annotations

import array
import os
import resource
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from dp_ros.poses import make_pose
from dp_ros.ros.messages import conversions, images
from dp_ros.ros.nodes.policy_inputs import PolicyInputs
from dp_ros.schema import EncoderConfig, RuntimeConfig, TopicMap
from dp_ros.streams import to_frame

_CAMERA, _SIDE_PX = "wrist", 48
_GOOD_EVERY = 20  # messages
_ENCODINGS = (
    *("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16", "rgb16", "bayer_rggb8", "bayer_gbrg16", "8UC3"),
    *("16UC1", "uyvy", "yuyv", "yuv422", "32FC1", "", "nv21", "rgb8\n", "RGB8", "jpeg", "8UC" + "9" * 300),
)
_FORMATS = (
    *("jpeg", "png", "rgb8; jpeg compressed bgr8", "bayer_rggb8; png compressed bayer_rggb8", "", ";;;"),
    "x" * 500,
)
_OTHER_FILES = (".bmp", ".webp", ".tiff", ".ppm", ".jp2", ".gif")
_STEPS_TO = (0, 1, 2, 3, 4, 6, 8)  # bytes of a pixel


def attack_pictures(count: int, seed: int = 0) -> dict[str, Any]:
    """Numbers of an attack with so many messages; `count` and `seed` determine them, times and memory aside."""
    rng, began_s = np.random.default_rng(seed), time.perf_counter()
    paths = [_Path("raw"), _Path("compressed")]
    files = _files(rng)
    before_mb = _peak_mb()
    outcomes: Counter[str] = Counter()
    slowest_s = 0.0
    with _quiet():
        for i in range(count):
            path = paths[i % 2]
            message = _raw(rng) if path.transport == "raw" else _compressed(rng, files)
            began_one_s = time.perf_counter()
            outcomes[path.offer(message)] += 1
            slowest_s = max(slowest_s, time.perf_counter() - began_one_s)
            if i % _GOOD_EVERY < 2:
                outcomes["good, taken" if path.offer(path.good) == "taken" else "good, lost"] += 1
    return {
        "messages": count,
        "outcomes": dict(sorted(outcomes.items())),
        "grown_mb": _peak_mb() - before_mb,
        "slowest_ms": slowest_s * 1e3,
        "took_s": time.perf_counter() - began_s,
        "is_safe": not outcomes["raised"] and not outcomes["wrong picture"] and not outcomes["good, lost"],
    }


class _Path:
    """Inputs of a policy with one camera, and its newest frame."""

    def __init__(self, transport: str) -> None:
        self.transport = transport
        self._callbacks: list[Callable[[Any], None]] = []
        encoder = EncoderConfig(
            cameras=(_CAMERA,),
            height_px=_SIDE_PX,
            width_px=_SIDE_PX,
            crop_height_px=_SIDE_PX,
            crop_width_px=_SIDE_PX,
        )
        runtime = RuntimeConfig.model_validate({"mode": "realtime", "image_transport": transport})
        self._inputs = PolicyInputs(
            encoder, runtime, self._subscribe, self._on_sample, lambda why, damaged: None, TopicMap()
        )
        self._stamp_ns, self._taken = 10**18, False
        picture = np.random.default_rng(0).integers(0, 256, (_SIDE_PX, _SIDE_PX, 3), np.uint8)
        if transport == "raw":
            self.good: Any = images.rgb_to_image(picture, 0, "")
        else:
            self.good = CompressedImage(format="png", data=_encoded(".png", picture))

    def _subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None], profile: Any) -> None:
        self._callbacks.append(callback)

    def _on_sample(self, stamp_ns: int, source: str) -> None:
        self._taken = True

    def offer(self, message: Any) -> str:
        """The outcome of one message."""
        self._stamp_ns += 1_000_000
        message.header.stamp = conversions.ns_to_stamp(self._stamp_ns)
        streams, self._taken = self._inputs.streams, False
        streams.ee_pose.put(self._stamp_ns, make_pose([0.0, 0.5, 0.2], [0.0, 1.0, 0.0, 0.0]))
        streams.gripper.put(self._stamp_ns, 1.0)
        try:
            self._callbacks[0](message)
            selection = streams.select(self._stamp_ns)
            frame = to_frame(selection) if selection else None
        except Exception:  # whatever it is, it would end the node
            return "raised"
        if not self._taken:
            why = self._inputs.bad.get(_CAMERA, "")
            return "refused" if why and "\n" not in why and len(why) < 1000 else "raised"
        picture = frame.images[0] if frame else np.zeros(0)
        is_right = picture.shape == (_SIDE_PX, _SIDE_PX, 3) and picture.dtype == np.uint8
        return "taken" if is_right else "wrong picture"


def _raw(rng: np.random.Generator) -> Image:
    sides = (0, 1, 2, 3, _SIDE_PX, _SIDE_PX, _SIDE_PX, 2 * _SIDE_PX, 97, 65_535, 2**31, 2**32 - 1)
    height, width = int(rng.choice(sides)), int(rng.choice(sides))
    step = width * int(rng.choice(_STEPS_TO)) + int(rng.choice([0, 0, 0, 1, -1, 17]))
    if rng.random() < 0.1:
        step = int(rng.choice([0, 1, 2**31, 2**32 - 1]))
    step = min(max(step, 0), 2**32 - 1)
    length = min(height * step + int(rng.choice([0, 0, 0, -1, 1, -step, 1000])), 200_000)
    if rng.random() < 0.1:
        length = int(rng.integers(0, 5000))
    data = array.array("B")
    data.frombytes(rng.bytes(max(length, 0)))
    message = Image(height=height, width=width, encoding=str(rng.choice(_ENCODINGS)), step=step)
    message.is_bigendian = int(rng.choice([0, 0, 1, 255]))
    message.data = data
    return message


def _compressed(rng: np.random.Generator, files: list[bytes]) -> CompressedImage:
    data = bytearray(files[rng.integers(len(files))])
    kind = rng.random()
    if kind < 0.15:
        data = _declaring(rng, data)
    elif kind < 0.6:
        for _ in range(int(rng.choice([1, 1, 3, 30]))):
            end = len(data) if rng.random() < 0.5 else min(len(data), 200)
            data[rng.integers(end)] ^= 1 << int(rng.integers(8))
    elif kind < 0.8:
        del data[int(rng.integers(len(data))) :]
        data += b"\xff\xd9" * int(rng.integers(2))  # the end of a JPEG
    elif kind < 0.85:
        data = bytearray(rng.bytes(int(rng.integers(0, 300))))
    message = CompressedImage(format=str(rng.choice(_FORMATS)))
    message.data = array.array("B", bytes(data))
    return message


def _declaring(rng: np.random.Generator, data: bytearray) -> bytearray:
    """The file with another size in its header, and a valid checksum where it has one."""
    sides = [int(rng.choice([0, 1, 10, 1000, 20_000, 65_535])) for _ in range(2)]
    if data[1:4] == b"PNG":
        sides = [side * int(rng.choice([1, 1, 30_000])) for side in sides]
        data[16:24] = b"".join(min(side, 2**31 - 1).to_bytes(4, "big") for side in sides)
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    else:
        at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        if at > 0:
            data[at + 5 : at + 9] = b"".join(side.to_bytes(2, "big") for side in sides)
    return data


def _files(rng: np.random.Generator) -> list[bytes]:
    """Whole files of one picture: JPEG and PNG of several kinds, mostly, and other formats that OpenCV reads."""
    smooth = np.add.outer(np.arange(_SIDE_PX), np.arange(_SIDE_PX)).astype(np.uint8)
    colour = np.dstack([smooth, smooth.T[::-1], rng.integers(0, 256, smooth.shape, np.uint8)])
    pictures = [colour, smooth, np.dstack([colour, smooth]), colour.astype(np.uint16) * 257]
    ours = [_encoded(".png", picture) for picture in pictures]
    ours += [_encoded(".jpg", colour), _encoded(".jpg", smooth)]
    ours += [_encoded(".jpg", colour, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2])]
    others = [_encoded(suffix, colour) for suffix in _OTHER_FILES]
    return [*ours * 3, *filter(None, others)]


def _encoded(suffix: str, picture: NDArray[Any], options: list[int] | None = None) -> bytes:
    """The file; empty where this OpenCV cannot write the format."""
    try:
        done, data = cv2.imencode(suffix, picture, options or [])
    except cv2.error:
        return b""
    return bytes(data) if done else b""


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def _quiet() -> Iterator[None]:
    """Without stderr, on which the libraries in C tell each damaged file."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
