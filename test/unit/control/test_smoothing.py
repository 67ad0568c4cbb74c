"""The way near a chunk's actions: no further than the tolerance, and only where the limits need it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dp_ros.control.chunk import Chunk
from dp_ros.control.limiter import Limits
from dp_ros.control.smoothing import smoothed
from dp_ros.schema import Horizons

DT = 12_500_000
LIMITS = Limits((-1.0,) * 3, (1.0,) * 3, speed_m_s=1.0, acceleration_m_s2=4.0, jerk_m_s3=400.0)
STILL = (0.0, 0.0, 0.0)
Array = NDArray[np.float64]


def chunk(positions: Array, closes_at: int = 99) -> Chunk:
    """closes_at: index of the first action with a closed gripper."""
    grips = np.where(np.arange(len(positions)) < closes_at, -0.5, 0.5)[:, None]
    return Chunk.after(DT, DT, np.append(positions, grips, axis=1), Horizons())


def trembling(n: int = 16) -> Array:
    side_m = 0.003 * (-1.0) ** np.arange(n)
    return np.stack([0.005 * np.arange(n), side_m, 0.0 * side_m], axis=1)


def turn_m(positions: Array) -> float:
    return float(np.linalg.norm(np.diff(positions, n=2, axis=0), axis=1).max())


@pytest.mark.parametrize("tolerance_m", [0.001, 0.003, 0.02])
def test_turns_become_smaller_within_the_tolerance(tolerance_m: float) -> None:
    before = chunk(trembling())
    after = smoothed(before, 0.0, STILL, (0.4, 0.0, 0.0), tolerance_m, LIMITS)
    away_m = np.linalg.norm(after.actions[:, :3] - before.actions[:, :3], axis=1)
    assert 0.0 < away_m.max() <= tolerance_m * (1 + 1e-9)
    assert turn_m(after.actions[1:, :3]) < turn_m(before.actions[1:, :3])
    np.testing.assert_array_equal(after.actions[:, 3], before.actions[:, 3])


def test_what_is_done_and_where_the_chunk_ends_stay() -> None:
    before = chunk(trembling())
    after = smoothed(before, 4.5, STILL, (0.4, 0.0, 0.0), 0.003, LIMITS)
    np.testing.assert_array_equal(after.actions[:5], before.actions[:5])
    np.testing.assert_array_equal(after.actions[-1], before.actions[-1])


def test_a_rest_stays_where_it_is() -> None:
    before = chunk(np.concatenate([trembling(), np.tile(trembling()[-1], (6, 1))]))
    after = smoothed(before, 0.0, STILL, (0.4, 0.0, 0.0), 0.003, LIMITS)
    np.testing.assert_array_equal(after.actions[15:], before.actions[15:])
    assert (after.actions[:15] != before.actions[:15]).any()


def test_the_arm_rests_and_grips_where_the_chunk_does() -> None:
    positions = np.concatenate(
        [trembling(8), np.tile(trembling(8)[-1], (2, 1)), trembling(8) + np.array([0.035, 0.0, 0.0])]
    )
    before = chunk(positions, closes_at=4)
    after = smoothed(before, 0.0, STILL, (0.4, 0.0, 0.0), 0.003, LIMITS)
    np.testing.assert_array_equal(after.actions[[3, 4, 7, 8, 9]], before.actions[[3, 4, 7, 8, 9]])
    assert (after.actions[[1, 2, 5, 6, 12, 13], 1] != before.actions[[1, 2, 5, 6, 12, 13], 1]).all()


@pytest.mark.parametrize("velocity", [STILL, (-1e-15, 0.0, 0.0), (0.0, 8e-5, 0.0)])
def test_an_arm_at_rest_may_begin_in_any_direction(velocity: tuple[float, float, float]) -> None:
    """However the numbers of its rest are rounded."""
    straight = chunk(0.0005 * np.outer(np.arange(16), [1.0, 0.0, 0.0]))
    assert smoothed(straight, 0.0, STILL, velocity, 0.003, LIMITS) is straight


def test_what_is_outside_the_box_stays_outside() -> None:
    """So that the wall is told of."""
    before = chunk(trembling() + np.array([0.95, 0.0, 0.0]))
    after = smoothed(before, 0.0, (0.95, 0.0, 0.0), (0.4, 0.0, 0.0), 0.003, LIMITS)
    assert (after.actions[12:, 0] > 1.0).all()


def test_a_chunk_that_the_limits_allow_stays_the_same() -> None:
    before = chunk(trembling())
    free = Limits(LIMITS.low_m, LIMITS.high_m, 1.0)
    assert smoothed(before, 0.0, STILL, STILL, 0.003, free) is before
    straight = chunk(trembling() * [1.0, 0.0, 1.0])
    assert smoothed(straight, 0.0, STILL, (0.4, 0.0, 0.0), 0.003, LIMITS) is straight
    rest = chunk(np.zeros((16, 3)))
    assert smoothed(rest, 0.0, (0.1, 0.0, 0.0), STILL, 0.003, LIMITS) is rest


def test_a_slow_arm_needs_less() -> None:
    """At a tenth of the chunk's speed, its turns are a hundredth for the arm."""
    before, slow = chunk(trembling()), Limits(LIMITS.low_m, LIMITS.high_m, 0.02, 4.0, 400.0)
    assert smoothed(before, 0.0, STILL, (0.02, 0.0, 0.0), 0.003, slow) is before


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_before_actions_that_are_not_finite_or_huge_the_way_is_smooth(value: float) -> None:
    positions = trembling()
    positions[10] = value
    before = chunk(positions)
    with np.errstate(all="raise"):
        after = smoothed(before, 0.0, STILL, (0.4, 0.0, 0.0), 0.003, LIMITS)
    assert np.isfinite(after.actions[:10]).all()
    assert (after.actions[2:8, 1] != before.actions[2:8, 1]).all()
    away_m = np.linalg.norm(after.actions[:10, :3] - before.actions[:10, :3], axis=1)
    assert away_m.max() <= 0.003 * (1 + 1e-9)
