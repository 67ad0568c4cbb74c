"""Pictures of a video: the spectator camera beside the policy's cameras; a filmstrip of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dp_ros.files import write_bytes

Picture = NDArray[np.uint8]  # (H, W, 3) RGB


def with_policy_view(spectator: Picture, seen: Sequence[Picture], told: str = "") -> Picture:
    """The spectator's picture with the policy's pictures in a column at its right.

    spectator (H, H, 3); seen: any number of (h, w, 3) -> (H, H + H / 2, 3). Without `seen` the spectator's alone.
    told: the sentence that the policy follows, written below.
    """
    if told:
        spectator = _captioned(spectator, f'"{told}"')
    if not seen:
        return spectator
    height = spectator.shape[0]
    column = np.full((height, height // 2, 3), 255, dtype=np.uint8)
    each = height // max(2, len(seen))
    for i, picture in enumerate(seen):
        width = min(column.shape[1], round(each * picture.shape[1] / picture.shape[0]))
        # Nearest neighbour shows the policy's own pixels.
        scaled = cv2.resize(picture, (width, each), interpolation=cv2.INTER_NEAREST)
        column[i * each : (i + 1) * each, :width] = scaled
    return np.hstack([spectator, column])


def _captioned(picture: Picture, text: str) -> Picture:
    """A copy with one line of text on a bar at its lower edge."""
    (height, width), font = picture.shape[:2], cv2.FONT_HERSHEY_SIMPLEX
    (wide, tall), _ = cv2.getTextSize(text, font, 1.0, 2)
    scale = min(height / 480, 0.95 * width / wide)
    bar = round(2.2 * tall * scale)
    shown = picture.copy()
    shown[height - bar :] = 255
    at = round((width - wide * scale) / 2), height - round(0.65 * tall * scale)
    cv2.putText(shown, text, at, font, scale, (0, 0, 0), max(1, round(2 * scale)), cv2.LINE_AA)
    return shown


def write_filmstrip(path: str | Path, pictures: Sequence[Picture], count: int = 4) -> None:
    """`count` pictures, evenly spread over an episode, side by side as one PNG; OSError where writing fails."""
    if not pictures:
        return
    chosen = [pictures[round(i * (len(pictures) - 1) / max(1, count - 1))] for i in range(count)]
    gap = np.full((chosen[0].shape[0], 8, 3), 255, dtype=np.uint8)
    row = np.hstack([part for picture in chosen for part in (picture, gap)][:-1])
    small = cv2.resize(row, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    encoded, png = cv2.imencode(".png", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise OSError(f"{path}: the picture could not be encoded")
    write_bytes(path, png.tobytes())
