"""Pictures of a video: the spectator camera beside the policy's cameras; a filmstrip of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dp_ros.files import write_bytes

Picture = NDArray[np.uint8]  # (H, W, 3) RGB


def with_policy_view(spectator: Picture, seen: Sequence[Picture]) -> Picture:
    """The spectator's picture with the policy's pictures in a column at its right.

    spectator (H, H, 3); seen: any number of (h, w, 3) -> (H, H + H / 2, 3). Without `seen` the spectator's alone.
    """
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
