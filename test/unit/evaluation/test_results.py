"""Results in real time: what share of the ticks the policy held."""

from __future__ import annotations

import pytest

from dp_ros.evaluation.results import EpisodeResult, Report, held_ticks

HOLD, PASS = "hold_no_plan", "pass"


@pytest.mark.parametrize(
    ("verdicts", "share", "first_move"),
    [
        ([HOLD, HOLD, PASS, PASS, PASS, PASS], 0.0, 2),
        ([HOLD, PASS, PASS, HOLD, PASS], 0.25, 1),
        ([PASS, PASS, HOLD, HOLD, HOLD, PASS, "limited_speed"], 0.0, 3),  # two are of the episode before
        ([HOLD, HOLD], 1.0, 2),
        ([], 1.0, 0),
    ],
)
def test_holds_count_from_the_first_move_on(verdicts: list[str], share: float, first_move: int) -> None:
    assert held_ticks(verdicts) == {"held_share": share, "first_move": first_move}


def test_means_are_weighted_by_the_length_of_the_episodes_and_lockstep_has_none() -> None:
    fast = EpisodeResult(0, True, 100, realtime_factor=1.0, held_share=0.0, first_move=2)
    slow = EpisodeResult(1, False, 300, "time limit", realtime_factor=0.5, held_share=0.4, first_move=6)
    data = Report("t", "c", "ros", results=[fast, slow]).as_dict()
    assert (data["realtime_factor"], data["held_share"], data["first_move"]) == pytest.approx((0.625, 0.3, 5))
    assert data["per_episode"][0]["realtime_factor"] == 1.0
    lockstep = Report("t", "c", "ros", results=[EpisodeResult(0, True, 100)]).as_dict()
    assert "held_share" not in lockstep
    assert lockstep["per_episode"] == [{"seed": 0, "success": True, "steps": 100, "reason": ""}]
