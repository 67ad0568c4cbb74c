"""Jerk at the boundaries of chunks and inside them."""

from __future__ import annotations

import numpy as np
import pytest

from dp_ros.control.safety import Verdict
from dp_ros.evaluation.jerk import jerk, jerk_summary
from dp_ros.evaluation.trace import Trace

RATE_HZ = 10.0


def trace(x_m: list[float], plan: list[int]) -> Trace:
    command = np.zeros((len(x_m), 4))
    command[:, 0] = x_m
    verdicts = tuple(Verdict.HOLD_NO_PLAN if number < 0 else Verdict.PASS for number in plan)
    return Trace(command, np.zeros((len(x_m) + 1, 3)), verdicts, np.zeros(0), np.array(plan, dtype=np.int64))


def test_jerk_of_a_cubic_is_its_third_derivative_everywhere() -> None:
    t_s = np.arange(12) / RATE_HZ
    boundary, inside = jerk(trace(list(0.5 * t_s**3), [0] * 4 + [1] * 4 + [2] * 4), RATE_HZ)
    np.testing.assert_allclose(
        boundary, [3.0, 3.0]
    )  # a chunk of four has three steps, of which all are judged
    np.testing.assert_allclose(inside, [3.0] * 7)


def test_a_jump_between_chunks_counts_double_where_it_happens() -> None:
    """It is 1, -2, 1 in third differences: what it does to the steps beside it is inside the chunks."""
    boundary, inside = jerk(trace([0.0] * 4 + [0.001] * 4, [0] * 4 + [1] * 4), RATE_HZ)
    np.testing.assert_allclose(boundary, [2.0])
    np.testing.assert_allclose(inside, [0.0, 1.0, 1.0, 0.0])


def test_holds_begin_and_end_at_boundaries_and_do_not_count_in_between() -> None:
    x_m = [0.001 * t for t in range(5)] + [0.004] * 4 + [0.004 + 0.001 * t for t in range(1, 5)]
    boundary, inside = jerk(trace(x_m, [0] * 5 + [-1] * 4 + [1] * 4), RATE_HZ)
    assert len(boundary) == 2
    assert len(boundary) + len(inside) == len(x_m) - 3 - 3  # but for three steps of the hold
    np.testing.assert_allclose(boundary, [1.0, 1.0])


@pytest.mark.parametrize("length", [0, 1, 3])
def test_episodes_that_are_too_short_have_no_jerk(length: int) -> None:
    short = trace([0.0] * length, [0] * length)
    assert jerk_summary([short], RATE_HZ) == {"boundary": None, "inside": None, "difference": None}


def test_summary_is_the_mean_over_steps_of_all_episodes() -> None:
    jumps = trace([0.0] * 4 + [0.001] * 4, [0] * 4 + [1] * 4)
    calm = trace([0.0] * 8, [0] * 4 + [1] * 4)
    summary = jerk_summary([jumps, calm], RATE_HZ)
    assert summary == pytest.approx({"boundary": 1.0, "inside": 0.25, "difference": 0.75})
    assert jerk_summary([trace([0.0] * 6, [0] * 6)], RATE_HZ)["difference"] is None
