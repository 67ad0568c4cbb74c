"""Scores of injected faults, on commands made up here."""

from __future__ import annotations

import math

import pytest

from dp_ros.evaluation.faults import (
    Bounds,
    Fault,
    Heard,
    Score,
    Trial,
    is_moving,
    largest,
    markdown,
    percentiles_ms,
    reaction_s,
)

MS = 1_000_000
BOUNDS = Bounds(period_s=0.05, speed_m_s=0.2, leap_m=0.1)
FAULT = Fault("pose-stops", "no more poses", "stops", 0.1, "max_obs_age_s 0.1", "automatic")
KEPT = Trial(reaction_s=0.15, step_m=0.006, speed_m_s=0.12, leap_m=0.01, recovery="automatic")


def commands(*at: tuple[float, float], arm_x: float | None = None, followed_ms: float = 1.0) -> list[Heard]:
    """Commands (ms, x [m]), which the robot hears 1 ms late; the arm is where it is told to be."""
    return [
        Heard(
            received_ns=round(ms * MS) + MS,
            followed_ns=round((ms + followed_ms) * MS),
            stamp_ns=round(ms * MS),
            position_m=(x, 0.6, 0.2),
            arm_m=(x if arm_x is None else arm_x, 0.6, 0.2),
        )
        for ms, x in at
    ]


STOPPING = commands((0, 0.0), (50, 0.005), (100, 0.01), (150, 0.012), (200, 0.012), (250, 0.012))


def test_reaction_ends_with_the_last_command_that_moves_the_arm():
    assert reaction_s("stops", STOPPING, 75 * MS, 251 * MS) == pytest.approx(0.076)
    assert reaction_s("stops", STOPPING, 160 * MS, 251 * MS) == 0.0


def test_motion_that_begins_again_counts():
    again = [*STOPPING, *commands((300, 0.013))]
    assert reaction_s("stops", again, 75 * MS, 400 * MS) == pytest.approx(0.226)


def test_motion_after_the_cause_was_taken_away_does_not_count():
    again = [*STOPPING, *commands((300, 0.013))]
    assert reaction_s("stops", again, 75 * MS, 290 * MS) == pytest.approx(0.076)


def test_a_dead_policy_is_held_by_a_command_that_was_made_after_its_death():
    """A command that was in flight does not count."""
    heard = [*commands((0, 0.0), (50, 0.005)), *commands((120, 0.005))]
    assert reaction_s("is held", heard, 50 * MS + MS // 2, 300 * MS) == pytest.approx(0.0705)
    assert reaction_s("is held", heard[:2], 50 * MS + MS // 2, 300 * MS) == math.inf


def test_an_arm_that_should_go_on_is_judged_by_the_longest_silence():
    heard = commands((0, 0.0), (50, 0.005), (170, 0.01), (200, 0.015))
    assert reaction_s("goes on", heard, 10 * MS, 201 * MS) == pytest.approx(0.12)


def test_an_arm_that_should_go_on_and_stops_fails():
    heard = commands((0, 0.01), (50, 0.01), (100, 0.01))
    assert reaction_s("goes on", heard, 10 * MS, 101 * MS) == math.inf


def test_steps_and_speeds_are_those_after_the_fault():
    heard = commands((0, 0.0), (50, 0.03), (100, 0.034), (130, 0.04))
    step_m, speed_m_s, leap_m = largest(heard, 60 * MS, BOUNDS)
    assert step_m == pytest.approx(0.006)
    assert speed_m_s == pytest.approx(0.12)  # two commands close together are a period apart
    assert leap_m == 0.0


def test_after_a_silence_a_command_is_compared_with_the_arm():
    """A new episode begins where the arm is; a stale hold would not."""
    before = commands((0, 0.0), (50, 0.0))
    at_home = commands((900, 0.3))
    stale = commands((900, 0.0), arm_x=0.3)
    assert largest(before + at_home, 60 * MS, BOUNDS) == (0.0, 0.0, 0.0)
    assert largest(before + stale, 60 * MS, BOUNDS) == pytest.approx((0.3, 6.0, 0.3))


def test_an_arm_that_followed_late_is_no_reason_for_a_longer_step():
    """A busy robot follows a command 110 ms late: when the next one comes, it is still on its way."""
    late = commands((0, 0.01), followed_ms=110.0)
    after = commands((210, 0.02), arm_x=0.008)
    step_m, speed_m_s, leap_m = largest(late + after, MS, BOUNDS)
    assert step_m == pytest.approx(0.01)
    assert speed_m_s == pytest.approx(0.01 / 0.21)
    assert leap_m == pytest.approx(0.012)


def test_hold_is_no_motion():
    assert is_moving(STOPPING, 120 * MS)
    assert not is_moving(STOPPING, 160 * MS)


def test_p99_of_few_trials_is_one_of_them():
    assert percentiles_ms([0.01 * i for i in range(1, 21)]) == {"p50": 100.0, "p99": 200.0, "max": 200.0}
    assert percentiles_ms([0.1, math.inf]) == {"p50": 100.0, "p99": None, "max": None}


def test_a_fault_that_keeps_its_promise_is_ok():
    score = Score(FAULT, BOUNDS, [KEPT, KEPT])
    assert score.as_dict()["ok"]
    assert score.as_dict()["limit_ms"] == 200.0
    assert "| pose-stops |" in markdown([score.as_dict()])


def trial(**changed: object) -> Trial:
    return Trial(**{**vars(KEPT), **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (trial(reaction_s=0.21), "reaction 0.21 s in 1 of 2, allowed 0.2"),
        (trial(reaction_s=math.inf), "reaction inf s in 1 of 2"),
        (trial(reaction_s=math.nan), "reaction nan s in 1 of 2"),
        (trial(step_m=0.011), "step 0.011 m in 1 of 2"),
        (trial(speed_m_s=0.21), "speed 0.21 m/s in 1 of 2"),
        (trial(leap_m=0.2), "distance from the arm 0.2 m in 1 of 2"),
        (trial(recovery="explicit"), "recovery explicit in 1, not automatic"),
        (trial(problem="policy_node ended with code 1"), "policy_node ended with code 1"),
    ],
)
def test_one_bad_trial_fails_the_fault(bad: Trial, problem: str):
    score = Score(FAULT, BOUNDS, [KEPT, bad])
    assert problem in "; ".join(score.problems)
    assert not score.as_dict()["ok"]


def test_a_fault_without_trials_fails():
    assert Score(FAULT, BOUNDS).problems == ["no trial"]
