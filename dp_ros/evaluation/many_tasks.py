"""Results of one policy on several tasks: a row for each task, means over tasks and over groups of difficulty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.evaluation.statistics import wilson_interval
from dp_ros.sim.arm import DIFFICULTIES, task_groups

MAX_STEPS = 500  # ticks of an episode: Metaworld's own limit
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Mean:
    """A mean of success rates, and its 95 % interval by bootstrap over tasks (Efron 1979, percentiles).

    Where all rates are 0, or all are 1, resampling shows no spread: then Wilson's interval, a task being a trial.
    """

    rate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.rate:.1%} [{self.low:.0%}, {self.high:.0%}]"

    def as_dict(self) -> dict[str, float]:
        return {"success_rate": self.rate, "low": self.low, "high": self.high}


def mean_of_tasks(rates: Mapping[str, float]) -> Mean:
    """Mean over tasks, each of the same weight. rates: task -> success rate, at least one."""
    return _mean([np.array(list(rates.values()))])


def mean_of_groups(rates: Mapping[str, float]) -> Mean | None:
    """Mean of the means of the four groups of difficulty, by which multi-task policies are published.

    The bootstrap resamples tasks within their group. None where a task of a group was not measured.
    """
    groups = {name: [rates.get(task) for task in tasks] for name, tasks in difficulties().items()}
    if any(rate is None for rates in groups.values() for rate in rates):
        return None
    return _mean([np.array(rates) for rates in groups.values()])


def _mean(groups: Sequence[NDArray[np.float64]]) -> Mean:
    rng = np.random.default_rng(0)
    drawn = [rng.choice(rates, (_RESAMPLES, len(rates))).mean(1) for rates in groups]
    low, high = np.percentile(np.mean(drawn, axis=0), (2.5, 97.5))
    every = np.concatenate(groups)
    if (every == 0).all() or (every == 1).all():
        low, high = wilson_interval(int(every.sum()), len(every))
    return Mean(float(np.mean([rates.mean() for rates in groups])), float(low), float(high))


def difficulties() -> dict[str, tuple[str, ...]]:
    """Group of difficulty -> its tasks."""
    return {name: task_groups()[name] for name in DIFFICULTIES}


def summary(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Means and failures of the reports, task -> `Report.as_dict()`, at least one."""
    rates = {task: report["success_rate"] for task, report in reports.items()}
    of_groups = mean_of_groups(rates)
    whole = {
        name: [rates[task] for task in tasks]
        for name, tasks in difficulties().items()
        if all(task in rates for task in tasks)
    }
    return {
        "mean_of_tasks": mean_of_tasks(rates).as_dict(),
        "mean_of_groups": of_groups.as_dict() if of_groups else None,
        "groups": {name: float(np.mean(of_group)) for name, of_group in whole.items()},
        "failures": dict(Counter(reason for report in reports.values() for reason in failures(report))),
    }


def failures(report: Mapping[str, Any]) -> list[str]:
    """Reasons of the episodes that failed."""
    return [each["reason"] for each in report["per_episode"] if not each["success"]]


def lines(reports: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The summary for a terminal."""
    data = summary(reports)
    of_tasks = Mean(*data["mean_of_tasks"].values())
    yield f"mean of {len(reports)} tasks: {of_tasks}, interval by bootstrap over tasks"
    if data["groups"]:
        yield "groups: " + ", ".join(f"{name} {rate:.1%}" for name, rate in data["groups"].items())
    if data["mean_of_groups"]:
        yield f"mean of the four groups: {Mean(*data['mean_of_groups'].values())}"
    if data["failures"]:
        yield "failures: " + ", ".join(f"{count} {reason}" for reason, count in data["failures"].items())
