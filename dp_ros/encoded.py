"""Decoder of JPEG and PNG from anybody. What is cut, of another format, or declares more than it holds is refused.

OpenCV allocates the declared pixels before it reads them, decodes a dozen other formats, and fills the rest of a cut
JPEG with grey.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 100_000_000  # three times those of a camera of 8K
_MAX_PIXELS_PER_BYTE = 1_100  # of a black PNG in grey: 1,032; of a black JPEG as cameras write it: 64
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_MARKER = re.compile(rb"\xff+([\x01-\xfe])", re.DOTALL)
_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]", re.DOTALL)  # not a stuffed byte, not a restart marker
_START_OF_SCAN, _END_OF_IMAGE = b"\xda", b"\xd9"
_START_OF_FRAME = {bytes([code]) for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC)}


def decode_picture(data: bytes, flags: int = cv2.IMREAD_UNCHANGED) -> NDArray[Any] | None:
    """Pixels, uint8 or uint16, of one whole JPEG or PNG, as `cv2.imdecode` gives them; None where the data is not one.

    Bytes after the end of a JPEG are ignored, because some cameras pad it.
    """
    size = _jpeg_size(data) if data[:2] == _JPEG else _png_size(data) if data[:8] == _PNG else None
    if size is None or not 0 < size <= min(MAX_PIXELS, _MAX_PIXELS_PER_BYTE * len(data)):
        return None
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError):
        return None
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        return None
    return pixels


def _png_size(data: bytes) -> int | None:
    """The number of pixels that a PNG declares; None unless all its chunks are there with their checksums."""
    at, size = len(_PNG), None
    while (end := at + 12 + int.from_bytes(data[at : at + 4], "big")) <= len(data):
        kind = data[at + 4 : at + 8]
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return None
        if size is None:
            if kind != b"IHDR":
                return None
            size = int.from_bytes(data[at + 8 : at + 12], "big") * int.from_bytes(
                data[at + 12 : at + 16], "big"
            )
        if kind == b"IEND":
            return size
        at = end
    return None


def _jpeg_size(data: bytes) -> int | None:
    """The number of pixels that a JPEG declares; None unless its end follows its segments and scans.

    See ITU-T T.81, annex B. A search for the two bytes of the end would also find that of an embedded thumbnail.
    """
    at, size = 2, None
    while marker := _MARKER.match(data, at):
        code = marker[1]
        if code == _END_OF_IMAGE:
            return size
        at = marker.end()
        if code in _START_OF_FRAME:
            sides = int.from_bytes(data[at + 3 : at + 5], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
            size = max(size or 0, sides[0] * sides[1])
        at += int.from_bytes(data[at : at + 2], "big")  # the segment's length counts its own two bytes
        if code == _START_OF_SCAN:
            following = _AFTER_SCAN.search(data, at)
            at = following.start() if following else len(data)
    return None
