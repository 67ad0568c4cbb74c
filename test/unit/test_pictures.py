"""Pictures to their stored size: cropped, padded, shrunk, or refused with the reason."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp_ros.pictures import ImageSizeError, aspect, contrast, fit_image, side_by_side
from dp_ros.schema import Target

SIDE = st.integers(1, 80)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("fit", ["same", "crop", "pad"])
def test_picture_of_the_right_size_is_passed_on_untouched(fit: Any) -> None:
    rgb = noise(48, 64)
    assert fit_image(rgb, Target(48, 64, fit)) is rgb


def test_larger_picture_is_averaged_down() -> None:
    """Area interpolation: each pixel is the mean of those it covers, so thin things do not vanish."""
    rgb = noise(96, 128)
    small = fit_image(rgb, Target(48, 64))
    assert (small.shape, small.dtype) == ((48, 64, 3), np.uint8)
    means = rgb.reshape(48, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 0.5


def area(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA))


def test_crop_keeps_the_centre() -> None:
    wide, tall = noise(720, 1280), noise(1280, 720)
    np.testing.assert_array_equal(fit_image(wide, Target(96, 96, "crop")), area(wide[:, 280:1000], 96, 96))
    np.testing.assert_array_equal(fit_image(tall, Target(96, 96, "crop")), area(tall[280:1000], 96, 96))
    np.testing.assert_array_equal(
        fit_image(wide, Target(480, 640, "crop")), area(wide[:, 160:1120], 480, 640)
    )


def test_crop_without_scaling_is_a_cut() -> None:
    rgb = noise(48, 64)
    cut = fit_image(rgb, Target(48, 48, "crop"))
    np.testing.assert_array_equal(cut, rgb[:, 8:56])
    assert not np.shares_memory(cut, rgb)  # else 1 MB of a message is kept for a small part of it


def test_pad_keeps_everything_between_black_sides() -> None:
    wide, tall = noise(720, 1280), noise(1280, 720)
    padded = fit_image(wide, Target(480, 640, "pad"))
    np.testing.assert_array_equal(padded[60:420], area(wide, 360, 640))
    assert not padded[:60].any()
    assert not padded[420:].any()
    padded = fit_image(tall, Target(320, 320, "pad"))
    np.testing.assert_array_equal(padded[:, 70:250], area(tall, 320, 180))
    assert not padded[:, :70].any()
    assert not padded[:, 250:].any()


@given(SIDE, SIDE, SIDE, SIDE, st.sampled_from(["crop", "pad"]))
def test_every_picture_fits_or_is_refused_because_it_is_small(
    height: int, width: int, target_height: int, target_width: int, fit: Any
) -> None:
    """With crop, a picture as large as the target on both sides always fits; with pad, on one side."""
    rgb, target = noise(height, width), Target(target_height, target_width, fit)
    large = height >= target_height, width >= target_width
    if all(large) if fit == "crop" else any(large):
        fitted = fit_image(rgb, target)
        assert (fitted.shape, fitted.dtype) == ((*target.size, 3), np.uint8)
    else:
        with pytest.raises(ImageSizeError, match="never enlarged"):
            fit_image(rgb, target)


@pytest.mark.parametrize(
    ("size", "target", "says"),
    [
        (
            (720, 1280),
            Target(480, 640),
            "front: its pictures are 1280x720 px, aspect 16:9, but 640x480 px, aspect 4:3, are wanted: set the camera "
            "to 4:3, or make dataset and policy with fit: crop, with fit: pad, or with a size of 16:9 such as 640x360",
        ),
        ((768, 1366), Target(480, 640), "1366x768 px, aspect 1.78:1, but 640x480 px, aspect 4:3"),
        (
            (24, 32),
            Target(48, 64),
            "32x24 px, aspect 4:3, fewer than the 64x48 px, aspect 4:3, that are wanted",
        ),
        ((47, 63), Target(48, 64), "fewer than"),
        (
            (480, 640),
            Target(720, 1280, "crop"),
            "640x480 px, aspect 4:3 (640x360 after the crop), fewer than the 1280x720 px, aspect 16:9, that are "
            "wanted, and pictures are never enlarged: raise the camera's resolution, or make dataset and policy with "
            "at most 640x360",
        ),
        ((480, 640), Target(720, 1280, "pad"), "(853x480 after the padding), fewer than the 1280x720 px"),
    ],
)
def test_picture_that_does_not_fit_is_refused_in_one_line(
    size: tuple[int, int], target: Target, says: str
) -> None:
    with pytest.raises(ImageSizeError) as caught:
        fit_image(np.zeros((*size, 3), dtype=np.uint8), target, "front")
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"front: its pictures are {size[1]}x{size[0]} px")
    assert "\n" not in str(caught.value)


def test_rounding_of_the_aspect_ratio_is_no_distortion() -> None:
    """1080p to 96 px high is 170.67 px wide."""
    assert fit_image(np.zeros((1080, 1920, 3), dtype=np.uint8), Target(96, 171)).shape == (96, 171, 3)


def test_aspect_ratios_are_named_as_cameras_name_them() -> None:
    sizes = [(480, 640), (720, 1280), (1080, 1920), (1280, 720), (96, 96), (10, 4000)]
    assert [aspect(size) for size in sizes] == ["4:3", "16:9", "16:9", "9:16", "1:1", "400.00:1"]


@pytest.mark.parametrize("target", [Target(96, 96, "pad"), Target(100, 100, "pad"), Target(480, 640, "pad")])
def test_black_sides_are_no_contrast_of_a_covered_camera(target: Target) -> None:
    covered = np.full((720, 1280, 3), (200, 180, 170), dtype=np.uint8)
    padded = fit_image(covered, target)
    assert contrast(padded) > 5
    assert contrast(padded, padded=True) < 1
    seen = fit_image(noise(720, 1280), target)
    assert contrast(seen, padded=True) > 5
    dark = fit_image(np.zeros((720, 1280, 3), dtype=np.uint8), target)
    assert contrast(dark, padded=True) == 0


def test_pictures_of_several_heights_make_one_row() -> None:
    left, right = noise(4, 6), noise(2, 3)
    row = side_by_side([left, right])
    np.testing.assert_array_equal(row[:, :6], left)
    np.testing.assert_array_equal(row[:2, 6:], right)
    assert not row[2:, 6:].any()
