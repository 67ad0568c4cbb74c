"""The pictures that a policy sees, with its plan drawn in: one row, and below it lines of text. Works without ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from dp_ros.pictures import side_by_side

Array = NDArray[np.float64]
Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

EXECUTED, REMAINING, HELD = (40, 220, 70), (235, 235, 235), (255, 70, 50)
SPREAD = (150, 150, 150)
COMMAND, MEASURED = (70, 130, 255), (240, 130, 240)
_LOWEST_PX = 240  # smaller pictures are enlarged, by a whole number
_LINE_PX, _LETTER_PX, _TEXT_SCALE = 18, 8, 0.45
_SHIFT = 4  # cv2 takes coordinates in parts of 1 / 16 px


@dataclass(frozen=True)
class View:
    """One camera's picture (H, W, 3) and the points in it, (n, 2) px each; NaN where a point is not seen."""

    name: str
    picture: Picture
    lines: Mapping[Colour, Array] = field(default_factory=dict)
    dots: Mapping[Colour, Array] = field(default_factory=dict)


def draw_views(views: Sequence[View], text: Sequence[tuple[str, Colour]]) -> Picture:
    """The views side by side, and below them the text in its colours; a line that is too long is cut."""
    row = side_by_side([draw_view(view) for view in views])
    band = np.zeros((_LINE_PX * len(text) + 6, row.shape[1], 3), np.uint8)
    for number, (words, colour) in enumerate(text, 1):
        longest = row.shape[1] // _LETTER_PX
        shown = words if len(words) <= longest else f"{words[: longest - 3]}..."
        _write(band, shown, (4, _LINE_PX * number - 3), colour)
    return np.vstack([row, band])


def enlargement(height_px: int) -> int:
    """The factor by which a picture of that height is enlarged."""
    return -(-_LOWEST_PX // height_px)


def draw_view(view: View, named: bool = True) -> Picture:
    """The picture, enlarged, with the points and the name of the camera in it; without the name if not `named`."""
    by = enlargement(view.picture.shape[0])
    drawn = np.ascontiguousarray(view.picture.repeat(by, 0).repeat(by, 1))
    for colour, pixels in view.dots.items():
        for point in _places(pixels, by):
            if point is not None:
                cv2.circle(drawn, point, 4 << _SHIFT, colour, -1, cv2.LINE_AA, _SHIFT)
    for colour, pixels in view.lines.items():
        points = _places(pixels, by)
        for one, other in pairwise(points):
            if one is not None and other is not None:
                cv2.line(drawn, one, other, colour, 1 if colour == SPREAD else 2, cv2.LINE_AA, _SHIFT)
    if named:
        _write(drawn, view.name, (4, 14), (255, 255, 255))
    return drawn


def _places(pixels: Array, by: int) -> list[tuple[int, int] | None]:
    """Pixels of the picture -> cv2's points in the enlarged one; None where not seen."""
    points = ((pixels + 0.5) * by - 0.5) * (1 << _SHIFT)
    return [(round(x), round(y)) if np.isfinite([x, y]).all() else None for x, y in points.tolist()]


def _write(picture: Picture, words: str, at: tuple[int, int], colour: Colour) -> None:
    for thickness, ink in ((3, (0, 0, 0)), (1, colour)):
        cv2.putText(picture, words, at, cv2.FONT_HERSHEY_SIMPLEX, _TEXT_SCALE, ink, thickness, cv2.LINE_AA)
