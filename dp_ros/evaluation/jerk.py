"""Jerk of the commanded motion, at the boundaries of chunks and inside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dp_ros.actions import POSITION
from dp_ros.evaluation.trace import Array, Trace


def jerk(trace: Trace, rate_hz: float) -> tuple[Array, Array]:
    """Norm of the third difference of the commanded positions [m/s^3]: (at boundaries, inside chunks), one a step.

    A step from one tick to the next is judged by the four commands around it. It is at a boundary where its two
    commands come from different plans, or where a hold begins or ends. Steps of a hold count in neither.
    """
    third_m = np.linalg.norm(np.diff(POSITION.of(trace.command), n=3, axis=0), axis=-1)
    before, after = trace.plan[1:-2], trace.plan[2:-1]
    values = third_m * rate_hz**3
    return values[before != after], values[(before == after) & (after >= 0)]


def jerk_summary(traces: Sequence[Trace], rate_hz: float) -> dict[str, float | None]:
    """Means over all steps of all episodes, and their difference [m/s^3]; None where there are no such steps."""
    of_each = [jerk(trace, rate_hz) for trace in traces]
    boundary, inside = (_mean([values[i] for values in of_each]) for i in range(2))
    difference = None if boundary is None or inside is None else boundary - inside
    return {"boundary": boundary, "inside": inside, "difference": difference}


def _mean(parts: Sequence[Array]) -> float | None:
    values = np.concatenate([np.zeros(0), *parts])
    return float(values.mean()) if len(values) else None
