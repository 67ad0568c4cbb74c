"""Summary of an evaluation for the report: durations, reasons of failures, verdicts, end positions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from dp_ros.evaluation.results import Report


def summarise(report: Report) -> dict[str, Any]:
    """The "details" of a report's JSON."""
    steps = {outcome: [r.steps for r in report.results if r.success is outcome] for outcome in (True, False)}
    reasons = Counter(result.reason for result in report.results if not result.success)
    ticks = Counter(verdict.value for trace in report.traces for verdict in trace.verdict)
    plans_ms = [plan_s * 1e3 for plan_s in report.plan_s]
    return {
        "successes": report.successes,
        "failures": len(report.results) - report.successes,
        "steps_of_successes": _spread(steps[True]),
        "reasons": [{"reason": reason, "episodes": count} for reason, count in reasons.most_common()],
        "plans": len(report.plan_s),
        "plan_ms": _spread(plans_ms),
        **({} if report.traces else {"plan_samples_ms": [round(plan_ms, 3) for plan_ms in plans_ms]}),
        "verdicts": dict(ticks),
        "ticks": sum(ticks.values()),
        "end_m": [[float(x) for x in trace.ee_position_m[-1]] for trace in report.traces],
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    """Minimum, percentiles and maximum; None for no values."""
    if not values:
        return None
    p50, p90, p99 = (float(p) for p in np.percentile(values, (50, 90, 99)))
    return {"min": float(min(values)), "p50": p50, "p90": p90, "p99": p99, "max": float(max(values))}
