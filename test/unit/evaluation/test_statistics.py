"""Success intervals, the report of an evaluation, and its JSON file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp_ros.evaluation.results import EpisodeResult, Report
from dp_ros.evaluation.statistics import wilson_interval
from dp_ros.files import write_json

counts = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # the paper's results, and the textbook's corners
        (46, 50, 0.812, 0.968),
        (38, 50, 0.626, 0.857),
        (10, 10, 0.722, 1.0),
        (0, 10, 0.0, 0.278),
        (5, 10, 0.237, 0.763),
        (0, 0, 0.0, 1.0),
    ],
)
def test_interval_has_the_published_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == (
        pytest.approx(low, abs=5e-4),
        pytest.approx(high, abs=5e-4),
    )


@given(counts)
def test_interval_is_where_the_score_test_just_accepts(count: tuple[int, int]) -> None:
    """Wilson's definition: each bound p is z standard deviations, of p itself, from the observed share."""
    successes, trials = count
    low, high = wilson_interval(successes, trials)
    share = successes / trials
    assert 0 <= low <= share + 1e-12 <= high + 2e-12 <= 1 + 2e-12
    for p in (low, high):
        if 1e-9 < p < 1 - 1e-9:
            assert abs(share - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / trials), rel=1e-6)


@given(counts)
def test_interval_of_failures_mirrors_that_of_successes(count: tuple[int, int]) -> None:
    successes, trials = count
    low, high = wilson_interval(successes, trials)
    mirrored = wilson_interval(trials - successes, trials)
    assert mirrored == (pytest.approx(1 - high), pytest.approx(1 - low, abs=1e-12))


def report() -> Report:
    report = Report("drawer-open-v3", "models/x", "in-process", policy_seed=4)
    report.results = [EpisodeResult(0, True, 80), EpisodeResult(1, False, 200, "time limit")]
    report.plan_s = [0.010, 0.020, 0.030]
    return report


def test_report_has_the_documented_keys() -> None:
    low, high = wilson_interval(1, 2)
    assert report().as_dict() == {
        "task": "drawer-open-v3",
        "checkpoint": "models/x",
        "transport": "in-process",
        "policy_seed": 4,
        "episodes": 2,
        "success_rate": 0.5,
        "wilson_low": low,
        "wilson_high": high,
        "per_episode": [
            {"seed": 0, "success": True, "steps": 80, "reason": ""},
            {"seed": 1, "success": False, "steps": 200, "reason": "time limit"},
        ],
        "plan_ms": {"p50": pytest.approx(20.0), "p99": pytest.approx(29.8)},
    }


def test_report_without_episodes_claims_nothing_and_can_be_written(tmp_path: Path) -> None:
    empty = Report("t", "c", "in-process")
    data = empty.as_dict()
    assert (data["episodes"], data["success_rate"]) == (0, None)
    assert (data["wilson_low"], data["wilson_high"]) == (0.0, 1.0)
    assert data["plan_ms"] == {"p50": None, "p99": None}
    write_json(tmp_path / "empty.json", data)
    assert "no episode" in empty.summary()


def test_summary_is_one_line_with_count_share_and_interval() -> None:
    text = report().summary()
    assert "\n" not in text
    assert "1/2 = 50%" in text
    assert "[9%, 91%]" in text


def test_written_json_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "report.json"
    write_json(path, report().as_dict())
    assert json.loads(path.read_text())["episodes"] == 2
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


def test_place_that_cannot_be_written_to_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "report.json"
    folder.mkdir()
    with pytest.raises(OSError, match=r"report\.json"):
        write_json(folder, {"value": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, object()])
def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path: Path, bad: object) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"value": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, {"padding": "x" * 100_000, "value": bad})
    assert json.loads(path.read_text()) == {"value": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
