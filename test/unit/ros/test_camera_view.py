"""Points to pixels of a policy's picture, and the frames that /tf tells, without ROS."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dp_ros.pictures import fit_image
from dp_ros.poses import composed, make_pose
from dp_ros.ros.messages.camera_view import project
from dp_ros.ros.messages.frames import FrameTree
from dp_ros.schema.pictures import Target

STILL = make_pose(np.zeros(3), [0, 0, 0, 1])


def lens(width: int, height: int, f: float, d: tuple[float, ...] = (), model: str = "plumb_bob") -> Any:
    k = [f, 0.0, (width - 1) / 2, 0.0, f, (height - 1) / 2, 0.0, 0.0, 1.0]
    return SimpleNamespace(width=width, height=height, k=k, d=list(d), distortion_model=model)


def test_points_are_seen_by_an_optical_frame() -> None:
    """z forward, x to the right, y down; a camera that is turned sees the same turned points."""
    points = np.array([[0.0, 0.0, 2.0], [0.2, 0.0, 2.0], [0.0, 0.1, 1.0], [0.0, 0.0, -1.0]])
    expected = np.array([[49.5, 29.5], [59.5, 29.5], [49.5, 39.5], [np.nan, np.nan]])
    info, target = lens(100, 60, 100.0), Target(60, 100)
    np.testing.assert_allclose(project(points, STILL, info, target), expected, atol=1e-9)
    pose = make_pose([1.0, 2.0, 3.0], Rotation.from_euler("xyz", [0.3, -2.0, 1.0]).as_quat())
    moved = np.array([composed(pose, make_pose(point, [0, 0, 0, 1]))[:3] for point in points])
    np.testing.assert_allclose(project(moved, pose, info, target), expected, atol=1e-6)


@pytest.mark.parametrize("target", [Target(48, 64, "crop"), Target(48, 64, "pad"), Target(36, 64)])
def test_pixels_are_those_of_the_picture_that_the_policy_gets(target: Target) -> None:
    """A dot in a picture of 16:9 is found again after the picture was fitted."""
    info, rgb = lens(640, 360, 300.0), np.zeros((360, 640, 3), np.uint8)
    point = np.array([[0.2, -0.15, 1.0]])
    ((x, y),) = project(point, STILL, info, Target(360, 640))  # type: ignore[misc]
    rows, columns = np.ogrid[:360, :640]
    rgb[(columns - x) ** 2 + (rows - y) ** 2 < 100] = 255
    fitted = fit_image(rgb, target).astype(float)[..., 0]
    rows, columns = np.indices(fitted.shape)
    centre = [(fitted * columns).sum() / fitted.sum(), (fitted * rows).sum() / fitted.sum()]
    np.testing.assert_allclose(project(point, STILL, info, target), [centre], atol=0.1)


def test_distortion_bends_what_is_seen_and_folds_nothing_in_from_outside() -> None:
    points, target = np.array([[0.5, 0.0, 1.0], [30.0, 0.0, 1.0]]), Target(480, 640)
    straight = project(points, STILL, lens(640, 480, 400.0), target)
    bent = project(points, STILL, lens(640, 480, 400.0, (-0.3, 0.0, 0.0, 0.0, 0.0)), target)
    assert straight is not None
    assert bent is not None
    assert bent[0, 0] == pytest.approx(319.5 + 400 * 0.5 * (1 - 0.3 * 0.25))
    assert np.isnan([straight[1], bent[1]]).all()


@pytest.mark.parametrize(
    "info", [lens(640, 480, 0.0), lens(0, 0, 400.0), lens(640, 480, 400.0, (0.1,) * 4, "equidistant")]
)
def test_nothing_is_drawn_through_a_lens_that_is_not_known(info: Any) -> None:
    assert project(np.ones((1, 3)), STILL, info, Target(480, 640)) is None


def transform(parent: str, child: str, pose: np.ndarray) -> Any:
    x, y, z, qx, qy, qz, qw = pose
    return SimpleNamespace(
        header=SimpleNamespace(frame_id=parent),
        child_frame_id=child,
        transform=SimpleNamespace(
            translation=SimpleNamespace(x=x, y=y, z=z), rotation=SimpleNamespace(x=qx, y=qy, z=qz, w=qw)
        ),
    )


def test_a_frame_is_found_through_its_common_root() -> None:
    rng = np.random.default_rng(0)
    a, b, c = (make_pose(rng.normal(size=3), Rotation.random(rng=rng).as_quat()) for _ in range(3))
    tree = FrameTree()
    tree.add([transform("world", "base", a), transform("world", "hand", STILL)])
    tree.add([transform("/world", "hand", b), transform("hand", "eye", c)])
    pose = tree.pose("eye", "base")
    assert pose is not None
    np.testing.assert_allclose(composed(a, pose)[:3], composed(b, c)[:3], atol=1e-9)
    assert tree.pose("eye", "elsewhere") is None
    assert tree.pose("base", "base") is not None


def test_transforms_that_no_frame_can_have_are_ignored_and_a_loop_ends() -> None:
    tree = FrameTree()
    tree.add([transform("base", "eye", make_pose([np.nan, 0, 0], [0, 0, 0, 1]))])
    tree.add([transform("base", "eye", make_pose([0, 0, 0], [0, 0, 0, 0]))])
    assert tree.pose("eye", "base") is None
    tree.add([transform("one", "two", STILL), transform("two", "one", STILL)])
    assert tree.pose("one", "base") is None
