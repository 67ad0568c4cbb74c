"""Pictures of a camera to their stored size: as datasets hold them and policies take them.

The live node, the conversion of bags, the import of datasets and the simulator's rollouts call `fit_image`, so a policy
sees what it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from dp_ros.errors import USAGE, UserError
from dp_ros.schema.pictures import Size, Target

_ASPECT_TOLERANCE = 0.02
_LARGEST_TERM = 32  # an aspect ratio of larger whole numbers is shown as a decimal


class ImageSizeError(UserError):
    """Pictures of a camera that cannot be brought to their stored size; one line."""

    exit_code = USAGE


def fit_image(rgb: NDArray[np.uint8], target: Target, camera: str = "camera") -> NDArray[np.uint8]:
    """uint8 (h, w, 3) -> (height_px, width_px, 3): shrunk by area, and cropped before or padded after it.

    ImageSizeError where `check_fits` raises it. A picture of the target's size is returned as it is.
    """
    size = rgb.shape[0], rgb.shape[1]
    check_fits(size, target, camera)
    rgb = _cut(rgb, target.cut(size))
    scaled = target.inside(size)
    if rgb.shape[:2] != scaled:
        rgb = np.asarray(cv2.resize(rgb, scaled[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return _padded(rgb, target.size)


def check_fits(size: Size, target: Target, camera: str = "camera") -> None:
    """ImageSizeError unless `fit_image` can make the target of pictures of `size`.

    The aspect ratio must be the target's if `fit` is same. Pictures are never enlarged.
    """
    height, width = size
    ratio = target.width_px / target.height_px
    sent = f"{camera}: its pictures are {width}x{height} px, aspect {aspect(size)}"
    wanted = f"{target.width_px}x{target.height_px} px, aspect {aspect(target.size)}"
    if target.fit == "same" and abs(width / height - ratio) > _ASPECT_TOLERANCE * ratio:
        scaled = f"{target.width_px}x{max(1, round(target.width_px * height / width))}"
        raise ImageSizeError(
            f"{sent}, but {wanted}, are wanted: set the camera to {aspect(target.size)}, or make dataset and policy "
            f"with fit: crop, with fit: pad, or with a size of {aspect(size)} such as {scaled}"
        )
    largest = target.largest(size)
    if largest[0] < target.height_px or largest[1] < target.width_px:
        most = f"{largest[1]}x{largest[0]}"
        after = {"same": "", "crop": f" ({most} after the crop)", "pad": f" ({most} after the padding)"}[
            target.fit
        ]
        raise ImageSizeError(
            f"{sent}{after}, fewer than the {wanted}, that are wanted, and pictures are never enlarged: raise the "
            f"camera's resolution, or make dataset and policy with at most {most}"
        )


def aspect(size: Size) -> str:
    """(720, 1280) -> "16:9"; a decimal, as in "1.78:1", where the whole numbers are large."""
    ratio = Fraction(size[1], size[0])
    if max(ratio.numerator, ratio.denominator) <= _LARGEST_TERM:
        return f"{ratio.numerator}:{ratio.denominator}"
    return f"{float(ratio):.2f}:1"


def contrast(rgb: NDArray[np.uint8], padded: bool = False) -> float:
    """uint8 (H, W, 3) -> the largest standard deviation of a colour, of 255, over about 32 x 32 pixels.

    `padded`: without black rows and columns at the sides, which would be contrast of their own.
    """
    if padded:
        rgb = _without_padding(rgb)
    every = max(1, min(rgb.shape[:2]) // 32)
    if not rgb.size:
        return 0.0
    return float(cv2.meanStdDev(np.ascontiguousarray(rgb[::every, ::every]))[1].max())


def side_by_side(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures (H, W, 3) as one row; below those that are less high, black."""
    height = max(picture.shape[0] for picture in pictures)
    return np.hstack([np.pad(p, ((0, height - p.shape[0]), (0, 0), (0, 0))) for p in pictures])


def _cut(rgb: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """The centre of a picture."""
    height, width = rgb.shape[:2]
    if size == (height, width):
        return rgb
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return np.ascontiguousarray(rgb[top : top + size[0], left : left + size[1]])


def _padded(rgb: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """The picture between black sides."""
    down, across = size[0] - rgb.shape[0], size[1] - rgb.shape[1]
    if not (down or across):
        return rgb
    sides = (down // 2, down - down // 2, across // 2, across - across // 2)
    return np.asarray(cv2.copyMakeBorder(rgb, *sides, cv2.BORDER_CONSTANT, value=(0, 0, 0)), dtype=np.uint8)


def _without_padding(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Without the black sides."""

    def lit(other_axes: tuple[int, int]) -> slice:
        (found,) = np.nonzero(rgb.any(axis=other_axes))
        return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0)

    return rgb[lit((1, 2)), lit((0, 2))]
