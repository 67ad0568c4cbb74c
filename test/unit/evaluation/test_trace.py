"""Traces: a saved trace is read back unchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dp_ros.control.safety import Verdict
from dp_ros.evaluation.trace import Trace, load_traces, save_traces


def trace(ticks: int, plans: int, seed: int = 0) -> Trace:
    rng = np.random.default_rng(seed)
    verdicts = tuple(rng.choice(list(Verdict), ticks)) if ticks else ()
    return Trace(
        rng.normal(size=(ticks, 4)),
        rng.normal(size=(ticks + 1, 3)),
        tuple(Verdict(verdict) for verdict in verdicts),
        rng.random(plans),
        rng.integers(-1, 5, ticks),
    )


@pytest.mark.parametrize("lengths", [[(5, 2), (0, 0), (9, 3)], [], [(1, 1)]])
def test_traces_are_read_back_to_the_bit(lengths: list[tuple[int, int]], tmp_path: Path) -> None:
    traces = [trace(ticks, plans, i) for i, (ticks, plans) in enumerate(lengths)]
    save_traces(tmp_path / "new" / "traces.npz", traces)
    again = load_traces(tmp_path / "new" / "traces.npz")
    assert len(again) == len(traces)
    for ours, theirs in zip(traces, again, strict=True):
        assert ours.verdict == theirs.verdict
        for name in ("command", "ee_position_m", "plan_s", "plan"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["traces.npz"]


def test_scores_are_read_back_where_the_policy_has_them(tmp_path: Path) -> None:
    """Of some episodes only, as where the evaluation of several models is kept in one file."""
    scored = replace(
        trace(4, 2), ood_score=np.array([np.nan, 0.5, 1.5, 1.2]), warned=np.array([False, False, False, True])
    )
    save_traces(tmp_path / "traces.npz", [trace(5, 2), scored])
    bare, again = load_traces(tmp_path / "traces.npz")
    assert (bare.ood_score, bare.warned) == (None, None)
    np.testing.assert_array_equal(again.ood_score, scored.ood_score)
    np.testing.assert_array_equal(again.warned, scored.warned)


def test_traces_of_older_files_have_no_plans(tmp_path: Path) -> None:
    save_traces(tmp_path / "new.npz", [trace(5, 2), trace(3, 1)])
    with np.load(tmp_path / "new.npz") as file:
        later = ("plan", "ood_score", "warned")
        np.savez(tmp_path / "old.npz", **{name: file[name] for name in file if name not in later})
    old = load_traces(tmp_path / "old.npz")
    assert [each.plan.tolist() for each in old] == [[-1] * 5, [-1] * 3]
    assert [each.ood_score for each in old] == [None, None]


def test_changes_are_where_the_verdict_becomes_another() -> None:
    verdicts = (Verdict.PASS, Verdict.PASS, Verdict.LIMITED_SPEED, Verdict.LIMITED_SPEED, Verdict.PASS)
    changed = Trace(np.zeros((5, 4)), np.zeros((6, 3)), verdicts, np.zeros(0), np.zeros(5, int)).changes
    assert changed == [(0, Verdict.PASS), (2, Verdict.LIMITED_SPEED), (4, Verdict.PASS)]
