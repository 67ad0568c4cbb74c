"""Traces: a saved trace is read back unchanged."""

from __future__ import annotations

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
    )


@pytest.mark.parametrize("lengths", [[(5, 2), (0, 0), (9, 3)], [], [(1, 1)]])
def test_traces_are_read_back_to_the_bit(lengths: list[tuple[int, int]], tmp_path: Path) -> None:
    traces = [trace(ticks, plans, i) for i, (ticks, plans) in enumerate(lengths)]
    save_traces(tmp_path / "new" / "traces.npz", traces)
    again = load_traces(tmp_path / "new" / "traces.npz")
    assert len(again) == len(traces)
    for ours, theirs in zip(traces, again, strict=True):
        assert ours.verdict == theirs.verdict
        for name in ("command", "ee_position_m", "plan_s"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["traces.npz"]


def test_changes_are_where_the_verdict_becomes_another() -> None:
    verdicts = (Verdict.PASS, Verdict.PASS, Verdict.LIMITED_STEP, Verdict.LIMITED_STEP, Verdict.PASS)
    changed = Trace(np.zeros((5, 4)), np.zeros((6, 3)), verdicts, np.zeros(0)).changes
    assert changed == [(0, Verdict.PASS), (2, Verdict.LIMITED_STEP), (4, Verdict.PASS)]
