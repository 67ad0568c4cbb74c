"""Other light (brightness, contrast, saturation) and things before the lens: one for all frames of a window or run."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dp_ros.schema import AugmentationConfig

COVER_SIDES = (0.2, 0.7)  # of the picture's, between which those of what covers it are drawn
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def draw_colours(
    config: AugmentationConfig, n: int, views: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """n changes of colour for each camera, (n, V, 4, 3): the rows are what R, G, B and 1 add to (R, G, B).

    A pixel p becomes brightness * (0.5 + contrast * (mixed - 0.5)), mixed = grey + saturation * (p - grey). All of
    it is affine, so a picture is gone through once.
    """
    strength = [config.brightness, config.contrast, config.saturation]
    factors = 1.0 + np.array(strength) * rng.uniform(-1.0, 1.0, (n, views, 3))
    brightness, contrast, saturation = (factors[..., i, None, None] for i in range(3))
    grey = np.repeat(_LUMA[:, None], 3, axis=1)  # (r, g, b) @ grey is the luma, three times
    mix = brightness * contrast * (saturation * np.eye(3) + (1.0 - saturation) * grey)
    offset = np.broadcast_to(brightness * 0.5 * (1.0 - contrast), (n, views, 1, 3))
    return np.concatenate([mix, offset], axis=-2).astype(np.float32)


def recolour(images: Tensor, colours: Tensor) -> Tensor:
    """images (..., V, H, W, 3) in [0, 1], colours (N, V, 4, 3) with N the first dimension of images -> same shape."""
    shape = images.shape
    per_image = colours.reshape(len(colours), *[1] * (images.ndim - 5), *colours.shape[1:])
    change = per_image.expand(*shape[:-3], 4, 3).reshape(-1, 4, 3)
    pixels = images.reshape(len(change), -1, 3)
    return torch.baddbmm(change[:, 3:], pixels, change[:, :3]).clamp_(0.0, 1.0).reshape(shape)


def draw_covers(
    share: float, n: int, views: int, height: int, width: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """What is before each camera in n windows, (n, V, 7): top, bottom, left, right and the colour of a rectangle.

    It is empty in all but `share` of them. In the manner of random erasing (Zhong et al. 2020) and cutout (DeVries and
    Taylor 2017), of one colour.
    """
    there = rng.random((n, views)) < share
    sides = rng.uniform(*COVER_SIDES, (n, views, 2)) * there[..., None]
    size = np.round(sides * (height, width)).astype(np.int64)
    corner = (rng.random((n, views, 2)) * ((height, width) - size + 1)).astype(np.int64)
    colour = rng.integers(0, 256, (n, views, 3))
    (top, left), (bottom, right) = np.moveaxis(corner, -1, 0), np.moveaxis(corner + size, -1, 0)
    return np.concatenate([np.stack([top, bottom, left, right], axis=-1), colour], axis=-1)


def cover(images: NDArray[np.uint8], covers: NDArray[np.int64]) -> None:
    """In place: images (N, ..., V, H, W, 3), covers (N, V, 7)."""
    for image, of_views in zip(images, covers, strict=True):
        for view, (top, bottom, left, right, *colour) in enumerate(of_views):
            image[..., view, top:bottom, left:right, :] = colour
