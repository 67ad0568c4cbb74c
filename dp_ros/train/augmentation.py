"""Augmentation of training pictures: brightness, contrast, saturation, and covered rectangles.

All frames of a window, or of a run of windows, get the same change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dp_ros.schema import AugmentationConfig

COVER_SIDES = (0.2, 0.7)  # range of a cover's sides, as shares of the picture's
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def draw_colours(
    config: AugmentationConfig, n: int, views: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """n random colour changes for each of V cameras: (n, V, 4, 3), affine maps (R, G, B, 1) -> (R, G, B).

    A pixel p becomes brightness * (0.5 + contrast * (mixed - 0.5)), mixed = grey + saturation * (p - grey). The three
    changes are one affine map, so that a picture is passed over once.
    """
    strength = [config.brightness, config.contrast, config.saturation]
    factors = 1.0 + np.array(strength) * rng.uniform(-1.0, 1.0, (n, views, 3))
    brightness, contrast, saturation = (factors[..., i, None, None] for i in range(3))
    grey = np.repeat(_LUMA[:, None], 3, axis=1)  # (r, g, b) @ grey is (luma, luma, luma)
    mix = brightness * contrast * (saturation * np.eye(3) + (1.0 - saturation) * grey)
    offset = np.broadcast_to(brightness * 0.5 * (1.0 - contrast), (n, views, 1, 3))
    return np.concatenate([mix, offset], axis=-2).astype(np.float32)


def recolour(images: Tensor, colours: Tensor) -> Tensor:
    """One camera's images (N, ..., H, W, 3) in [0, 1], with its colours (N, 4, 3) of `draw_colours` -> recoloured."""
    shape = images.shape
    per_image = colours.reshape(len(colours), *[1] * (images.ndim - 4), *colours.shape[1:])
    change = per_image.expand(*shape[:-3], 4, 3).reshape(-1, 4, 3)
    pixels = images.reshape(len(change), -1, 3)
    return torch.baddbmm(change[:, 3:], pixels, change[:, :3]).clamp_(0.0, 1.0).reshape(shape)


def draw_covers(
    share: float, n: int, sizes: Sequence[tuple[int, int]], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Random covers of n windows and V cameras, (n, V, 7): top, bottom, left, right [px], R, G, B of a rectangle.

    sizes: (height, width) of each camera's pictures [px].

    `share` of the rectangles are not empty. One colour each, as in random erasing (Zhong et al. 2020) and cutout
    (DeVries and Taylor 2017).
    """
    views, whole = len(sizes), np.array(sizes)
    covered = rng.random((n, views)) < share
    sides = rng.uniform(*COVER_SIDES, (n, views, 2)) * covered[..., None]
    size = np.round(sides * whole).astype(np.int64)
    corner = (rng.random((n, views, 2)) * (whole - size + 1)).astype(np.int64)
    colour = rng.integers(0, 256, (n, views, 3))
    (top, left), (bottom, right) = np.moveaxis(corner, -1, 0), np.moveaxis(corner + size, -1, 0)
    return np.concatenate([np.stack([top, bottom, left, right], axis=-1), colour], axis=-1)


def cover(images: NDArray[np.uint8], covers: NDArray[np.int64]) -> None:
    """Draw one camera's covers (N, 7) of `draw_covers` into its images (N, ..., H, W, 3), in place."""
    for image, (top, bottom, left, right, *colour) in zip(images, covers, strict=True):
        image[..., top:bottom, left:right, :] = colour
