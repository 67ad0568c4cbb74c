"""Paired comparison of two policies on the same seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from scipy.stats import binomtest, wilcoxon

from dp_ros.evaluation.statistics import paired_interval
from dp_ros.schema import ConfigError

SIGNIFICANT = 0.05
_FEWEST = 6  # disagreeing seeds that can show a difference: with five the smallest p is 0.0625
_SHARED_SETTINGS = ("max_steps",)  # must agree; sampler, policy seed and others belong to each policy


@dataclass(frozen=True)
class Comparison:
    """Policy B compared with policy A, seed by seed."""

    task: str
    a: str
    b: str
    both: int  # seeds that both solve
    only_a: int
    only_b: int
    neither: int
    steps_pairs: int  # of these, seeds with different numbers of steps: the sample of Wilcoxon's test
    steps_median: float | None  # of B's steps minus A's, on the seeds that both solve; None for no such seed
    steps_p: float | None  # Wilcoxon's signed-rank test of those differences

    @property
    def seeds(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def disagree(self) -> int:
        """Number of seeds that only one of the two solves."""
        return self.only_a + self.only_b

    @property
    def p(self) -> float:
        """Exact McNemar test: for equally good policies, each disagreeing seed is a fair coin toss."""
        return float(binomtest(self.only_b, self.disagree).pvalue) if self.disagree else 1.0

    @property
    def differs(self) -> bool:
        return self.p < SIGNIFICANT

    @property
    def difference(self) -> float:
        """Success rate of B minus that of A."""
        return (self.only_b - self.only_a) / self.seeds

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `difference`."""
        return paired_interval(self.both, self.only_b, self.only_a, self.neither)

    def as_dict(self) -> dict[str, Any]:
        low, high = self.interval
        return {
            **asdict(self),
            "seeds": self.seeds,
            "disagree": self.disagree,
            "difference": self.difference,
            "difference_low": low,
            "difference_high": high,
            "p": self.p,
            "differs": self.differs,
        }

    def lines(self) -> list[str]:
        """Text for a terminal: the verdict, then the figures behind it."""
        low, high = self.interval
        better = self.b if self.difference > 0 else self.a
        verdict = f"they differ at 5 %: {better} is better" if self.differs else "no difference shown at 5 %"
        hint = "" if self.disagree >= _FEWEST else f"; at least {_FEWEST} must, to show a difference"
        lines = [
            f"{self.task}: {verdict}; {self.disagree} of {self.seeds} seeds disagree "
            f"(exact McNemar p = {self.p:.2g}){hint}",
            f"success: A {self.both + self.only_a}/{self.seeds} ({self.a}), "
            f"B {self.both + self.only_b}/{self.seeds} ({self.b}); "
            f"B - A = {self.difference:+.0%}, 95 % interval [{low:+.0%}, {high:+.0%}]",
        ]
        if self.steps_median is not None:
            p = f" (Wilcoxon p = {self.steps_p:.2g})" if self.steps_p is not None else ""
            lines.append(
                f"steps: B - A = {self.steps_median:+g}, median of the {self.both} seeds that both solve{p}"
            )
        return lines


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> Comparison:
    """Comparison of two reports of `dp_ros eval --json`; ConfigError where `check_comparable` fails."""
    check_comparable(a, b)
    of_a, of_b = ({episode["seed"]: episode for episode in report["per_episode"]} for report in (a, b))
    outcomes = [(of_a[seed]["success"], of_b[seed]["success"]) for seed in sorted(of_a)]
    steps = [
        of_b[seed]["steps"] - of_a[seed]["steps"]
        for seed in sorted(of_a)
        if of_a[seed]["success"] and of_b[seed]["success"]
    ]
    unequal = [difference for difference in steps if difference]
    return Comparison(
        task=a["task"],
        a=a["checkpoint"],
        b=b["checkpoint"],
        both=outcomes.count((True, True)),
        only_a=outcomes.count((True, False)),
        only_b=outcomes.count((False, True)),
        neither=outcomes.count((False, False)),
        steps_pairs=len(unequal),
        steps_median=float(median(steps)) if steps else None,
        steps_p=(float(wilcoxon(unequal).pvalue) if unequal else 1.0) if steps else None,
    )


def check_comparable(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """ConfigError where the two reports differ in task, time limit or seeds."""
    if a["task"] != b["task"]:
        raise ConfigError(f"A is of {a['task']}, B of {b['task']}: compare two policies on one task")
    for key in _SHARED_SETTINGS:
        values = [report.get("settings", {}).get(key) for report in (a, b)]
        if None in values:
            side = "A" if values[0] is None else "B"
            raise ConfigError(f"{side} does not say its {key}: evaluate it again with this dp_ros")
        if values[0] != values[1]:
            raise ConfigError(f"A has {key} {values[0]}, B {values[1]}: evaluate both with the same")
    seeds = [[episode["seed"] for episode in report["per_episode"]] for report in (a, b)]
    for side, of_side in zip("AB", seeds, strict=True):
        if len(set(of_side)) != len(of_side) or not of_side:
            raise ConfigError(f"{side} has {'a seed twice' if of_side else 'no episode'}: evaluate it again")
    unpaired = sorted(set(seeds[0]) ^ set(seeds[1]))
    if unpaired:
        raise ConfigError(
            f"{len(unpaired)} seeds, the first {unpaired[0]}, are in one report only (A {_span(seeds[0])}, "
            f"B {_span(seeds[1])}): evaluate both with the same --seed and --episodes"
        )


def _span(seeds: list[int]) -> str:
    return f"{min(seeds)} to {max(seeds)}"
