"""Trace of an episode, tick by tick: enough to plot it, and to replay it to the same states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import ACTION_DIM, POSITION
from dp_ros.control.safety import Verdict
from dp_ros.files import replacing

Array = NDArray[np.float64]
_VERDICTS = tuple(Verdict)


@dataclass(frozen=True)
class Trace:
    """One episode of T ticks."""

    command: Array  # (T, 4) after the gate: x, y, z [m, base frame], gripper [-1, 1]
    ee_position_m: Array  # (T + 1, 3) measured before each command, and at the end
    verdict: tuple[Verdict, ...]  # (T,) of the gate
    plan_s: Array  # (P,) duration of each plan
    plan: NDArray[
        np.int64
    ]  # (T,) number of the plan whose action each command executes; -1 in a hold, or unknown
    # (T,) score of the newest plan's pictures (`dp_ros.control.ood`), NaN before it, and whether it warns. None: the
    # policy has no statistics of its training pictures.
    ood_score: Array | None = None
    warned: NDArray[np.bool_] | None = None

    def top_speed_m_s(self, rate_hz: float) -> float:
        """Highest speed of the commands but for the fastest percent; 1 m/s where there is no motion to measure."""
        steps_m = np.linalg.norm(np.diff(POSITION.of(self.command), axis=0), axis=1)
        top = float(np.percentile(steps_m, 99)) * rate_hz if len(steps_m) else 0.0
        return top or 1.0

    @property
    def changes(self) -> list[tuple[int, Verdict]]:
        """(tick, verdict) of the first tick and of every tick at which the verdict changes."""
        before = (None, *self.verdict)
        return [
            (t, new) for t, (old, new) in enumerate(zip(before, self.verdict, strict=False)) if new != old
        ]


def save_traces(path: str | Path, traces: Sequence[Trace]) -> None:
    """Write flat arrays of all episodes, and the end of each, as one compressed .npz; it appears whole."""
    arrays: dict[str, Any] = {
        "command": _flat([trace.command for trace in traces], ACTION_DIM),
        "ee_position_m": _flat([trace.ee_position_m for trace in traces], POSITION.size),
        "verdict": np.array([_VERDICTS.index(v) for trace in traces for v in trace.verdict], dtype=np.uint8),
        "plan_s": np.concatenate([np.zeros(0), *(trace.plan_s for trace in traces)]),
        "plan": np.concatenate([np.zeros(0, dtype=np.int64), *(trace.plan for trace in traces)]),
        "ood_score": np.concatenate([np.zeros(0), *map(_scores, traces)]),
        "warned": np.concatenate([np.zeros(0, dtype=bool), *map(_warned, traces)]),
        "episode_ends": np.cumsum([len(trace.command) for trace in traces]),
        "plan_ends": np.cumsum([len(trace.plan_s) for trace in traces]),
    }
    with replacing(path) as staging, staging.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_traces(path: str | Path) -> list[Trace]:
    """Traces that `save_traces` wrote."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    ticks = len(arrays["command"])
    plan = arrays.get("plan", np.full(ticks, -1))  # files of older versions have none, nor scores
    scores = arrays.get("ood_score", np.full(ticks, np.nan))
    warned = arrays.get("warned", np.zeros(ticks, dtype=bool))
    traces = []
    t = p = 0
    for i, (t_end, p_end) in enumerate(zip(arrays["episode_ends"], arrays["plan_ends"], strict=True)):
        traces.append(
            Trace(
                arrays["command"][t:t_end],
                arrays["ee_position_m"][t + i : t_end + i + 1],  # one more than commands in each episode
                tuple(_VERDICTS[code] for code in arrays["verdict"][t:t_end]),
                arrays["plan_s"][p:p_end],
                plan[t:t_end],
                *((scores[t:t_end], warned[t:t_end]) if np.isfinite(scores[t:t_end]).any() else ()),
            )
        )
        t, p = int(t_end), int(p_end)
    return traces


def _scores(trace: Trace) -> Array:
    return np.full(len(trace.command), np.nan) if trace.ood_score is None else trace.ood_score


def _warned(trace: Trace) -> NDArray[np.bool_]:
    return np.zeros(len(trace.command), dtype=bool) if trace.warned is None else trace.warned


def _flat(parts: Sequence[Array], width: int) -> Array:
    return np.concatenate([np.zeros((0, width)), *parts])
