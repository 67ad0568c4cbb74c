"""Pictures with and without frustum culling are equal, bit by bit, and culling leaves out what no camera sees."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mujoco")

import mujoco

from dp_ros.sim.arm import ArmSpec, make_arm
from dp_ros.sim.frustum import FrustumCulling
from dp_ros.sim.rendering import Renderer

pytestmark = pytest.mark.sim

SIZES = [(64, 64), (96, 48)]


def ball_mesh(scale: str) -> str:
    """A unit sphere of 24 x 16 points and 720 faces, enough for a test of its hull."""
    columns, rows = 24, 16
    angles = [(2 * np.pi * j / columns, np.pi * i / (rows - 1)) for i in range(rows) for j in range(columns)]
    points = [(np.cos(a) * np.sin(b), np.sin(a) * np.sin(b), np.cos(b)) for a, b in angles]
    faces = []
    for i in range(rows - 1):
        for j in range(columns):
            a, b = i * columns + j, i * columns + (j + 1) % columns
            faces += [(a, a + columns, b), (b, a + columns, b + columns)]
    vertex, face = (" ".join(str(x) for row in table for x in row) for table in (points, faces))
    return f'<mesh name="ball" scale="{scale}" vertex="{vertex}" face="{face}"/>'


# Of all that MuJoCo draws something: two reflective boxes, of which it treats the first in a way of its own, and one
# that is transparent, overlapping transparent geoms, an infinite plane, and geoms that a group or an alpha of 0 hides.
SCENE = """
<mujoco>
  <statistic extent="3"/>
  <asset>
    <texture type="skybox" builtin="gradient" rgb1="0.3 0.5 0.7" rgb2="0 0 0" width="32" height="32"/>
    <texture name="squares" type="2d" builtin="checker" rgb1="1 1 1" rgb2="0.2 0.2 0.2" width="32" height="32"/>
    <material name="shiny" texture="squares" reflectance="0.5"/>
    <material name="matt" texture="squares"/>
    {mesh}
    <hfield name="hills" nrow="3" ncol="3" size="0.3 0.3 0.1 0.05" elevation="0 1 0 1 0 1 0 1 0"/>
  </asset>
  <worldbody>
    <light pos="0 0 3" castshadow="true"/>
    <camera name="eye" pos="0 0 0.5" fovy="50"/>
    <camera name="lens" pos="0 0 0.5" focal="0.004 0.006" sensorsize="0.008 0.006"
      resolution="8 6" principal="0.001 0"/>
    <geom name="floor" type="plane" size="0 0 0.1" material="shiny" rgba="1 1 1 0.9"/>
    {boxes}
    {others}
    <geom type="sphere" size="0.3" pos="0.5 0 0.5" rgba="1 0 0 0"/>
    <geom type="sphere" size="0.2" pos="-0.5 0 0.5" rgba="1 0 0 1" group="4"/>
    <geom type="hfield" hfield="hills" pos="-0.8 -0.8 0.1" rgba="0.4 0.3 0.1 1"/>
    <site name="near" type="box" size="0.05 0.05 0.05" pos="0.6 0.6 0.6" rgba="0 1 1 1"/>
    <body name="link" pos="0.2 0.7 0.5"><freejoint/>
      <geom type="mesh" mesh="ball" rgba="0.3 0.9 0.3 1"/>
      <site name="far" type="sphere" size="0.04" pos="0 0 0.3"/>
    </body>
  </worldbody>
  <tendon><spatial width="0.02" rgba="1 0.5 0 1"><site site="near"/><site site="far"/></spatial></tendon>
</mujoco>
"""


def crowded() -> mujoco.MjModel:
    rng = np.random.default_rng(0)
    kinds = ("sphere", "capsule", "ellipsoid", "cylinder", "box", "mesh")

    def place() -> str:
        (x, y, z), angles = rng.uniform(-1.2, 1.2, 3), rng.uniform(-180, 180, 3)
        return f'pos="{x} {y} {z + 0.6}" euler="{" ".join(map(str, angles))}"'

    def shape(kind: str) -> str:
        size = " ".join(map(str, rng.uniform(0.05, 0.25, 3)))
        return 'type="mesh" mesh="ball"' if kind == "mesh" else f'type="{kind}" size="{size}"'

    others = [
        f'<geom {shape(kinds[i % 6])} {place()} rgba="{rng.uniform()} {rng.uniform()} 0.5 {(1, 0.5)[i % 3 == 0]}"/>'
        for i in range(40)
    ]
    boxes = [
        f'<geom type="box" size="0.3 0.2 0.1" {place()} material="{material}" rgba="1 1 1 {alpha}"/>'
        for material, alpha in (("shiny", 0.6), ("shiny", 1), ("matt", 1), ("shiny", 1), ("shiny", 1))
    ]
    scene = SCENE.format(mesh=ball_mesh("0.2 0.1 0.15"), boxes="\n".join(boxes), others="\n".join(others))
    return mujoco.MjModel.from_xml_string(scene)


@pytest.fixture(scope="module")
def can_render(make_scene: Callable[[str], Any]) -> None:
    make_scene("<mujoco><worldbody><camera name='eye'/></worldbody></mujoco>")


def draw(renderer: Renderer, moments: list[mujoco.MjData], cameras: tuple[str, ...]) -> list[np.ndarray]:
    return [renderer.render(data, camera, *size) for data in moments for camera in cameras for size in SIZES]


def assert_equal_pictures(
    model: mujoco.MjModel, moments: list[mujoco.MjData], cameras: tuple[str, ...], markers: bool
) -> None:
    culled = draw(Renderer(model, markers), moments, cameras)
    whole = draw(Renderer(model, markers, cull=False), moments, cameras)
    for a, b in zip(culled, whole, strict=True):
        np.testing.assert_array_equal(a, b)
    different = len({picture.tobytes() for picture in whole})
    assert different > 0.9 * len(whole)  # not one black picture after another


@pytest.mark.parametrize("markers", [True, False])
def test_pictures_of_a_crowded_scene_are_equal_wherever_the_camera_looks(
    can_render: None, markers: bool
) -> None:
    """From among the geoms, from below the floor, and from inside them."""
    model = crowded()
    rng = np.random.default_rng(1)
    moments = []
    for _ in range(16):
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        for camera in range(model.ncam):
            quat = rng.normal(size=4)
            mujoco.mju_quat2Mat(data.cam_xmat[camera], quat / np.linalg.norm(quat))
            data.cam_xpos[camera] = rng.uniform((-1.5, -1.5, -0.5), (1.5, 1.5, 2.0))
        moments.append(data)
    assert_equal_pictures(model, moments, ("eye", "lens"), markers)


@pytest.mark.parametrize(
    "task", ["drawer-open-v3", "coffee-push-v3", "handle-press-v3", "pick-place-wall-v3", "assembly-v3"]
)
def test_pictures_of_an_episode_are_equal(can_render: None, task: str) -> None:
    """Both cameras of the hand, and one that sees the whole scene."""
    pytest.importorskip("metaworld")
    arm = make_arm(ArmSpec(task, ("gripperPOV", "behindGripper")))
    moments = []
    for seed in (3, 4):
        arm.reset(seed)
        for _ in range(4):
            moments.append(copy.copy(arm.data))
            for _ in range(20):
                arm.advance(arm.expert_command())
    assert_equal_pictures(arm.model, moments, ("gripperPOV", "behindGripper", "corner2"), task < "e")
    arm.close()


def test_what_is_outside_the_frustum_is_left_out_and_nothing_else_is() -> None:
    """The camera looks along -z with half an angle of 45 degrees; a reflective box stays, because it is the first."""
    scene = """
    <mujoco>
      <statistic extent="1"/>
      <asset>
        <material name="shiny" reflectance="0.5"/>MESH
      </asset>
      <worldbody>
        <camera name="eye" fovy="90"/>
        <geom name="seen" type="sphere" size="0.1" pos="0 0 -1"/>
        <geom name="across the edge" type="sphere" size="0.1" pos="1.1 0 -1"/>
        <geom name="beside it" type="sphere" size="0.1" pos="1.2 0 -1"/>
        <geom name="above it" type="sphere" size="0.1" pos="0 1.2 -1"/>
        <geom name="behind it" type="sphere" size="0.1" pos="0 0 0.2"/>
        <geom name="beside it, but long" type="mesh" mesh="ball" pos="2.3 0 -2"/>
        <geom name="beside it, by its hull" type="mesh" mesh="ball" pos="2.4 0 -2" euler="0 0 90"/>
        <geom name="reflects, behind it" type="box" size="0.1 0.1 0.1" pos="0 0 1" material="shiny"/>
        <geom name="plane" type="plane" size="1 1 1" pos="0 0 1"/>
      </worldbody>
    </mujoco>
    """
    model = mujoco.MjModel.from_xml_string(scene.replace("MESH", ball_mesh("1 0.1 0.1")))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    eye = mujoco.MjvGLCamera()
    eye.pos, eye.forward, eye.up = (0, 0, 0), (0, 0, -1), (0, 1, 0)
    eye.frustum_near, eye.frustum_top, eye.frustum_bottom = 0.01, 0.01, -0.01
    hidden = FrustumCulling(model).hidden(data, eye, 1.0)
    assert {model.geom(i).name for i in np.flatnonzero(hidden)} == {
        *("beside it", "above it", "behind it", "beside it, by its hull"),
    }
    hidden = FrustumCulling(model).hidden(data, eye, 2.0)  # twice as wide
    assert {model.geom(i).name for i in np.flatnonzero(hidden)} == {"above it", "behind it"}
    eye.orthographic = 1
    assert not FrustumCulling(model).hidden(data, eye, 1.0).any()
