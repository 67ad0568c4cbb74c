"""Validity of quaternions, and the angle between two, against scipy's rotations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dp_ros.poses import angle_rad, axis_angle, composed, inverted, is_unit, make_pose, rotated


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 0.5, np.pi / 2, np.pi - 1e-6, np.pi])
def test_angle_is_that_of_the_rotation_between_them(angle: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        start = Rotation.random(rng=rng)
        axis = rng.normal(size=3)
        turned = Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle) * start
        a, b = start.as_quat(), turned.as_quat()
        assert angle_rad(a, b) == pytest.approx(angle, rel=1e-6, abs=1e-12)
        assert angle_rad(a, -b) == pytest.approx(angle, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    "quat",
    [(0, 0, 0, 0), (0, 0, 0, 1.002), (0, 0, 0, np.nan), (np.inf, 0, 0, 1), (0, 0, 1), (1, 1, 0, 0)],
)
def test_what_is_no_unit_quaternion_is_refused(quat: tuple[float, ...]) -> None:
    assert not is_unit(quat)


def test_rounding_of_other_programs_is_allowed() -> None:
    assert is_unit((0.0, 0.0, 0.0, 1.0009))
    assert is_unit(np.array([0.0, 1.0, 0.0, 0.0], np.float32))


def test_poses_are_composed_and_inverted_as_transforms() -> None:
    rng = np.random.default_rng(4)
    turns, places = Rotation.random(2, rng=rng), rng.normal(size=(2, 3))
    a, b = (make_pose(place, turn.as_quat()) for place, turn in zip(places, turns, strict=True))
    c = composed(a, b)
    np.testing.assert_allclose(c[:3], places[0] + turns[0].apply(places[1]), atol=1e-12)
    assert angle_rad(c[3:], (turns[0] * turns[1]).as_quat()) < 1e-7
    still = composed(inverted(a), a)
    np.testing.assert_allclose(still[:3], 0.0, atol=1e-12)
    assert angle_rad(still[3:], [0, 0, 0, 1]) < 1e-7


def test_vectors_are_turned_as_by_rotations() -> None:
    rng = np.random.default_rng(5)
    turn, vectors = Rotation.random(rng=rng), rng.normal(size=(6, 3))
    np.testing.assert_allclose(rotated(turn.as_quat(), vectors), turn.apply(vectors), atol=1e-12)
    axis = np.array([0.0, 0.6, 0.8])
    np.testing.assert_allclose(axis_angle(axis, 2.0), Rotation.from_rotvec(2.0 * axis).as_quat(), atol=1e-12)
