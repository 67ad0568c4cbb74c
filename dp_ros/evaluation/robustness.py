"""Success against the strength of a disturbance: the same seeds at every strength."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dp_ros.evaluation.disturbances import NONE, Disturbance, check_possible
from dp_ros.evaluation.rollout import Episode, Setting, run_episodes
from dp_ros.evaluation.statistics import Report, wilson_interval


@dataclass
class Point:
    """All episodes of one disturbance."""

    disturbance: Disturbance
    episodes: list[Episode] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        results = [episode.result for episode in self.episodes]
        successes = sum(result.success for result in results)
        low, high = wilson_interval(successes, len(results))
        verdicts = Counter(verdict.value for episode in self.episodes for verdict in episode.trace.verdict)
        return {
            "strength": self.disturbance.strength,
            "episodes": len(results),
            "successes": successes,
            "success_rate": successes / len(results) if results else None,
            "wilson_low": low,
            "wilson_high": high,
            "per_episode": [
                {"seed": r.seed, "success": r.success, "steps": r.steps, "reason": r.reason} for r in results
            ],
            "verdicts": dict(verdicts),
        }


@dataclass
class Curve:
    """One kind of disturbance, from weak to strong."""

    points: list[Point]

    @property
    def kind(self) -> type[Disturbance]:
        return type(self.points[-1].disturbance)

    @property
    def strongest(self) -> Point:
        return max(self.points, key=lambda point: abs(point.disturbance.strength))

    def as_dict(self) -> dict[str, Any]:
        kind = self.kind
        points = [point.as_dict() for point in self.points]
        return {"kind": kind.kind, "unit": kind.unit, "says": kind.says, "points": points}

    def line(self) -> str:
        shares = ", ".join(
            f"{point['strength']:g}: {point['successes']}/{point['episodes']}"
            for point in self.as_dict()["points"]
        )
        return f"{self.kind.kind} [{self.kind.unit}] {shares}"


def measure(
    setting: Setting,
    sweeps: Sequence[Sequence[Disturbance]],
    seeds: Sequence[int],
    jobs: int = 1,
    on_point: Callable[[int, int], None] | None = None,
) -> tuple[Report, list[Curve]]:
    """The undisturbed evaluation, and a curve for each sweep, each with the same seeds at every strength.

    Strength 0 is the undisturbed evaluation, so it is run once for all. `on_point(done, total)` is called after
    each episode. ConfigError where the task has no such disturbance.
    """
    for sweep in sweeps:
        check_possible(sweep[-1].kind, setting.task)
    strong = dict.fromkeys(d for sweep in sweeps for d in sweep if d.strength)
    wanted = [(seed, disturbance) for disturbance in (NONE, *strong) for seed in seeds]
    done: dict[Disturbance, Point] = {}
    for (_, disturbance), episode in zip(wanted, run_episodes(setting, wanted, jobs), strict=True):
        done.setdefault(disturbance, Point(disturbance)).episodes.append(episode)
        if on_point:
            on_point(sum(len(point.episodes) for point in done.values()), len(wanted))
    calm = done[NONE].episodes
    report = Report(setting.task, setting.checkpoint, "in-process", setting.runtime.policy_seed)
    report.results = [episode.result for episode in calm]
    report.traces = [episode.trace for episode in calm]
    report.plan_s = [plan_s for episode in calm for plan_s in episode.trace.plan_s]
    curves = [Curve([done[d] if d.strength else Point(d, calm) for d in sweep]) for sweep in sweeps]
    return report, curves
