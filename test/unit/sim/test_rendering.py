"""The renderer on a scene small enough to know every pixel of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mujoco")

import mujoco

from dp_ros.sim.rendering import Renderer, RenderingError

pytestmark = pytest.mark.sim

# Cameras at the origin that look along -z. One red ball to the left and above, 1 m away; a green marker below.
SCENE = """
<mujoco>
  <visual><headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual>
  <worldbody>
    <camera name="eye" pos="0 0 0" fovy="60"/>
    <camera name="tele" pos="0 0 0" fovy="30"/>
    <geom type="sphere" size="0.02" pos="-0.2 0.1 -1" rgba="1 0 0 1"/>
    <site name="goal" type="sphere" size="0.02" pos="0 -0.1 -1" rgba="0 1 0 1"/>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope="module")
def scene(make_scene: Callable[[str], Any]) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model, data = make_scene(SCENE)
    return model, data


def centre(mask: np.ndarray) -> tuple[float, float]:
    """Mean (column, row) of what is set, from the picture's centre, in pixels."""
    rows, columns = np.nonzero(mask)
    return columns.mean() + 0.5 - mask.shape[1] / 2, rows.mean() + 0.5 - mask.shape[0] / 2


@pytest.mark.parametrize(
    ("camera", "width", "height"), [("eye", 320, 240), ("tele", 480, 240), ("eye", 100, 400)]
)
def test_point_is_drawn_where_a_pinhole_would_see_it(
    scene: tuple[mujoco.MjModel, mujoco.MjData], camera: str, width: int, height: int
) -> None:
    """Red before blue, first row on top, and the focal length that camera_info will publish."""
    model, data = scene
    renderer = Renderer(model)
    pixels = renderer.render(data, camera, width, height)
    assert (pixels.shape, pixels.dtype) == ((height, width, 3), np.uint8)
    red = (pixels[..., 0] > 100) & (pixels[..., 2] < 50)
    focal_px = renderer.focal_length_px(camera, height)
    expected = (-0.2 * focal_px, -0.1 * focal_px)
    if abs(expected[0]) < width / 2:
        assert centre(red) == pytest.approx(expected, abs=1.0)
    else:
        assert not red.any()


def test_markers_are_drawn_only_when_asked_for(scene: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    model, data = scene
    for markers in (True, False):
        pixels = Renderer(model, markers).render(data, "eye", 320, 240)
        green = (pixels[..., 1] > 100) & (pixels[..., 0] < 50)
        assert green.any() == markers
        if markers:
            assert centre(green)[1] > 0  # below the centre


def test_picture_does_not_depend_on_the_sizes_drawn_before(
    scene: tuple[mujoco.MjModel, mujoco.MjData],
) -> None:
    model, data = scene
    renderer = Renderer(model)
    sizes = [(8, 8), (300, 20), (20, 300), (8, 8), (640, 480), (300, 20)]
    after_others = [renderer.render(data, "eye", *size) for size in sizes]
    for size, picture in zip(sizes, after_others, strict=True):
        np.testing.assert_array_equal(picture, Renderer(model).render(data, "eye", *size))


def test_unknown_camera_is_named(scene: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    model, data = scene
    assert Renderer(model).camera_names() == ["eye", "tele"]
    with pytest.raises(KeyError, match="ear"):
        Renderer(model).render(data, "ear", 8, 8)


@pytest.mark.parametrize("size", [(0, 8), (8, 0), (-1, 8)])
def test_size_of_nothing_is_refused(
    scene: tuple[mujoco.MjModel, mujoco.MjData], size: tuple[int, int]
) -> None:
    with pytest.raises(RenderingError, match="is outside 1x1 to 640x480"):
        Renderer(scene[0]).render(scene[1], "eye", *size)
