"""Validity of quaternions, and the angle between two, against scipy's rotations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dp_ros.poses import angle_rad, is_unit


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
