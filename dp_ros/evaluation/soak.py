"""Scores of a soak test: memory, handles, threads, shared memory and logs of long-running processes, and the latency
of the commands. Times are seconds since the measurement began.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MEMORY_GROWTH, LATENCY_GROWTH = 0.02, 0.10
PARTS = 6  # of the whole time, for the latency
WARM_UP = 0.1  # of the whole time, before which the processes may still grow
_LEVEL = 0.05  # of the samples, at either end, whose median is a level; so that noise is no growth
_LEAST_SAMPLES = 3  # of a level
_LEAST_PLANS = 20  # of a part; of fewer, the slowest percent says nothing
LOG_MB_PER_H, _LOG_FREE_MB = 1.0, 0.1  # growth of the logs of one process; so much at once is no growth


@dataclass(frozen=True)
class Sample:
    """A process at one time."""

    time_s: float
    rss_mb: float  # resident memory
    handles: int  # open files and sockets
    threads: int
    segments: int  # of shared memory, in /dev/shm, that it has mapped
    logs_mb: float  # of the log files that it has open


@dataclass(frozen=True)
class Plan:
    """Latency of the first command from one plan; see `CommandTimes`."""

    time_s: float
    plan_s: float
    overhead_s: float

    @property
    def latency_s(self) -> float:
        return self.plan_s + self.overhead_s


@dataclass
class Soak:
    """All that was measured."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)  # process -> samples, in order
    plans: list[Plan] = field(default_factory=list)
    ticks: list[tuple[float, bool]] = field(default_factory=list)  # time [s]; whether the policy held
    episodes: int = 0
    successes: int = 0
    duration_s: float = 0.0

    @property
    def problems(self) -> list[str]:
        """Why the test fails; empty where nothing grew."""
        lines = [f"{name}: {line}" for name in self.samples for line in self._problems_of(name)]
        return lines + self._latency_problems() + ([] if self.samples else ["nothing was measured"])

    def _warm(self, name: str) -> list[Sample]:
        """The samples after the warm-up."""
        return [each for each in self.samples[name] if each.time_s >= WARM_UP * self.duration_s]

    def _problems_of(self, name: str) -> list[str]:
        warm = self._warm(name)
        if len(warm) < 2 * _LEAST_SAMPLES:
            return [f"{len(warm)} samples after the warm-up, {2 * _LEAST_SAMPLES} are needed: measure longer"]
        lines = []
        begin_mb, end_mb = levels([each.rss_mb for each in warm])
        if not end_mb <= begin_mb * (1.0 + MEMORY_GROWTH):
            lines.append(
                f"resident memory grew by {end_mb / begin_mb - 1.0:.1%}, from {begin_mb:.1f} to {end_mb:.1f} MB, "
                f"allowed {MEMORY_GROWTH:.0%}"
            )
        for what in ("handles", "threads", "segments"):
            begin, end = levels([getattr(each, what) for each in warm])
            if not end <= begin:
                lines.append(f"{what} grew from {begin:g} to {end:g}")
        grew_mb = warm[-1].logs_mb - warm[0].logs_mb
        most_mb = _LOG_FREE_MB + LOG_MB_PER_H * (warm[-1].time_s - warm[0].time_s) / 3600
        if not grew_mb <= most_mb:
            lines.append(f"logs grew by {grew_mb:.2f} MB, allowed {most_mb:.2f}")
        return lines

    def _latency_problems(self) -> list[str]:
        parts = self._parts(self.plans, lambda plan: plan.time_s)
        for number in (0, PARTS - 1):
            if len(parts[number]) < _LEAST_PLANS:
                return [
                    f"latency: {len(parts[number])} plans in part {number + 1} of {PARTS}, {_LEAST_PLANS} are needed"
                ]
        first_ms, last_ms = (_percentiles_ms([p.latency_s for p in parts[i]])["p99"] for i in (0, -1))
        assert first_ms is not None
        assert last_ms is not None
        if last_ms <= first_ms * (1.0 + LATENCY_GROWTH):
            return []
        return [
            f"latency: p99 grew by {last_ms / first_ms - 1.0:.0%}, from {first_ms:.1f} ms in the first part of {PARTS} "
            f"to {last_ms:.1f} ms in the last, allowed {LATENCY_GROWTH:.0%}"
        ]

    def _parts(self, values: Sequence[Any], time_s: Callable[[Any], float]) -> list[list[Any]]:
        parts: list[list[Any]] = [[] for _ in range(PARTS)]
        for value in values:
            at = int(PARTS * time_s(value) / self.duration_s) if self.duration_s else 0
            parts[min(max(at, 0), PARTS - 1)].append(value)
        return parts

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        problems = self.problems
        return {
            "duration_s": round(self.duration_s, 1),
            "episodes": self.episodes,
            "successes": self.successes,
            "held_share": _share([held for _, held in self.ticks]),
            "processes": [self._process(name) for name in self.samples],
            "parts": self._latency(),
            "allowed": {
                "memory_growth": MEMORY_GROWTH,
                "latency_p99_growth": LATENCY_GROWTH,
                "logs_mb_per_h": LOG_MB_PER_H,
                "warm_up_share": WARM_UP,
            },
            "problems": problems,
            "ok": not problems,
        }

    def _process(self, name: str) -> dict[str, Any]:
        warm, problems = self._warm(name), self._problems_of(name)
        figures: dict[str, Any] = {"name": name, "samples": len(self.samples[name])}
        for what in ("rss_mb", "handles", "threads", "segments"):
            values = [getattr(each, what) for each in warm]
            begin, end = levels(values) if values else (None, None)
            figures[what] = {"begin": begin, "end": end, "max": max(values, default=None)}
        logs = [each.logs_mb for each in self.samples[name]]
        figures["logs_mb"] = {"begin": logs[0], "end": logs[-1]} if logs else {"begin": None, "end": None}
        series = [[round(vars(each)[key], 4) for key in SERIES] for each in self.samples[name]]
        return {**figures, "series": {"of": list(SERIES), "rows": series}, "problems": problems}

    def _latency(self) -> list[dict[str, Any]]:
        plans = self._parts(self.plans, lambda plan: plan.time_s)
        ticks = self._parts(self.ticks, lambda tick: tick[0])
        return [
            {
                "until_s": round(self.duration_s * (i + 1) / PARTS, 1),
                "plans": len(plans[i]),
                "latency_ms": _percentiles_ms([plan.latency_s for plan in plans[i]]),
                "plan_ms": _percentiles_ms([plan.plan_s for plan in plans[i]]),
                "overhead_ms": _percentiles_ms([plan.overhead_s for plan in plans[i]]),
                "held_share": _share([held for _, held in ticks[i]]),
            }
            for i in range(PARTS)
        ]


SERIES = ("time_s", "rss_mb", "handles", "threads", "segments", "logs_mb")


def levels(values: Sequence[float]) -> tuple[float, float]:
    """Median of the first and of the last values: a twentieth of them each, at least three, or all."""
    count = min(len(values), max(_LEAST_SAMPLES, math.ceil(_LEVEL * len(values))))
    return float(np.median(values[:count])), float(np.median(values[-count:]))


def _percentiles_ms(seconds: Sequence[float]) -> dict[str, float | None]:
    if not seconds:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(seconds, (50, 99)) * 1e3
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2)}


def _share(held: Sequence[bool]) -> float | None:
    return round(sum(held) / len(held), 5) if held else None


Table = tuple[list[str], list[list[str]]]  # head and rows


def process_table(score: Mapping[str, Any]) -> Table:
    """The processes of `Soak.as_dict`, for people: each at the end of the warm-up and at the end."""
    head = ["process", "memory MB", "handles", "threads", "segments", "logs MB", "flat"]
    rows = []
    for each in score["processes"]:
        memory = each["rss_mb"]
        change = f" ({memory['end'] / memory['begin'] - 1.0:+.1%})" if memory["begin"] else ""
        counts = [_from_to(each[what], "g") for what in ("handles", "threads", "segments")]
        logs = _from_to(each["logs_mb"], ".3f")
        verdict = "no: " + "; ".join(each["problems"]) if each["problems"] else "yes"
        rows.append([each["name"], _from_to(memory, ".1f") + change, *counts, logs, verdict])
    return head, rows


def latency_table(score: Mapping[str, Any]) -> Table:
    """The parts of the time of `Soak.as_dict`, for people."""
    head = ["until s", "plans", "latency ms p50, p99", "plan ms p50, p99", "overhead ms p50, p99", "held"]
    rows = []
    for part in score["parts"]:
        times = [
            ", ".join("-" if ms is None else f"{ms:.1f}" for ms in part[f"{what}_ms"].values())
            for what in ("latency", "plan", "overhead")
        ]
        held = "-" if part["held_share"] is None else f"{part['held_share']:.2%}"
        rows.append([f"{part['until_s']:.0f}", str(part["plans"]), *times, held])
    return head, rows


def _from_to(values: Mapping[str, float | None], form: str) -> str:
    return " to ".join("-" if values[end] is None else format(values[end], form) for end in ("begin", "end"))
