"""Curves of success against the strength of a disturbance, with the same seeds at every strength."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dp_ros.control.checks import check_continuity, check_delay
from dp_ros.evaluation.disturbances import NONE, Disturbance, check_possible, possible, sweep
from dp_ros.evaluation.jerk import jerk_summary
from dp_ros.evaluation.results import Report
from dp_ros.evaluation.rollout import Episode, EvalConfig, run_episodes, worker_count, worker_threads
from dp_ros.evaluation.statistics import wilson_interval
from dp_ros.policy.checkpoint_config import policy_config, weights_sha256
from dp_ros.schema import ConfigError, RuntimeConfig
from dp_ros.sim.arm import simulator_of


@dataclass
class Point:
    """All episodes under one disturbance."""

    disturbance: Disturbance
    rate_hz: float  # of the ticks
    episodes: list[Episode] = field(default_factory=list)

    @property
    def disturbed(self) -> int:
        """Episodes that did not end before the disturbance began."""
        return sum(each.disturbance.touches(each.result.seed, each.result.steps) for each in self.episodes)

    def as_dict(self) -> dict[str, Any]:
        results = [episode.result for episode in self.episodes]
        successes = sum(result.success for result in results)
        low, high = wilson_interval(successes, len(results))
        traces = [episode.trace for episode in self.episodes]
        done = [result.steps for result in results if result.success]
        verdicts = [verdict for trace in traces for verdict in trace.verdict]
        warned = [trace.warned for trace in traces if trace.warned is not None]
        scores = [trace.ood_score for trace in traces if trace.ood_score is not None]
        return {
            "strength": self.disturbance.strength,
            "episodes": len(results),
            "successes": successes,
            "success_rate": successes / len(results) if results else None,
            "wilson_low": low,
            "wilson_high": high,
            "disturbed": self.disturbed,
            "per_episode": [
                {"seed": r.seed, "success": r.success, "steps": r.steps, "reason": r.reason} for r in results
            ],
            "verdicts": dict(Counter(verdict.value for verdict in verdicts)),
            "mean_steps_of_successes": float(np.mean(done)) if done else None,
            "held_share": sum(verdict.holds for verdict in verdicts) / len(verdicts) if verdicts else None,
            # Pictures unlike those of the training; None where the policy has no statistics of them.
            "warned_share": float(np.mean(np.concatenate(warned))) if warned else None,
            "ood_score_p50": float(np.nanmedian(np.concatenate(scores))) if scores else None,
            "jerk_m_s3": jerk_summary(traces, self.rate_hz),
        }


@dataclass
class Curve:
    """The points of one kind of disturbance, from weak to strong."""

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
        shares = []
        for point in self.as_dict()["points"]:
            missed = point["strength"] and point["disturbed"] < point["episodes"]
            note = f" ({point['disturbed']} disturbed)" if missed else ""
            steps = point["mean_steps_of_successes"]
            took = f" in {steps:.0f} ticks" if steps else ""
            if point["warned_share"] is not None:
                took += f", {point['warned_share']:.0%} of ticks warned"
            shares.append(f"{point['strength']:g}: {point['successes']}/{point['episodes']}{took}{note}")
        return f"{self.kind.kind} [{self.kind.unit}] {', '.join(shares)}"


OnPoint = Callable[[Report, list[Curve]], None]  # is given all points that are finished


def check_sweeps(
    sweeps: Sequence[Sequence[Disturbance]], task: str, checkpoint: str | Path, runtime: RuntimeConfig
) -> None:
    """ConfigError where the task does not allow a disturbance, or the policy does not fit the settings or the delay."""
    policy = policy_config(checkpoint)
    check_continuity(policy, runtime)
    for curve in sweeps:
        check_possible(curve[-1].kind, task)
        for disturbance in curve:
            check_delay(policy, disturbance.perturb_runtime(runtime, policy.rate_hz))


def default_sweeps(task: str, checkpoint: str | Path, runtime: RuntimeConfig) -> list[list[Disturbance]]:
    """All kinds that the task allows, up to the delay that the policy's plans reach over."""
    policy = policy_config(checkpoint)

    def reaches(disturbance: Disturbance) -> bool:
        try:
            check_delay(policy, disturbance.perturb_runtime(runtime, policy.rate_hz))
        except ConfigError:
            return False
        return True

    return [list(filter(reaches, sweep(kind))) for kind in possible(task)]


def largest_part(sweeps: Sequence[Sequence[Disturbance]], seeds: Sequence[int]) -> int:
    """Number of episodes that `measure` runs at once: the disturbed ones, which follow the undisturbed."""
    return len(seeds) * max(1, len(_strong(sweeps)))


def measure(
    setting: EvalConfig,
    sweeps: Sequence[Sequence[Disturbance]],
    seeds: Sequence[int],
    jobs: int = 1,
    on_episode: Callable[[int, int], None] | None = None,
    on_point: OnPoint | None = None,
) -> tuple[Report, list[Curve]]:
    """The undisturbed evaluation, and a curve for each sweep, all with the same seeds.

    Strength 0 is the undisturbed evaluation. It is run once for all curves, and first, because the onset of a
    disturbance is a share of the ticks that its seed takes undisturbed. `on_episode(done, total)` is called after each
    episode, `on_point` after each strength. The errors are those of `check_sweeps` and `run_episodes`.
    """
    check_sweeps(sweeps, setting.task, setting.checkpoint, setting.runtime)
    total = len(seeds) * (1 + len(_strong(sweeps)))
    # The undisturbed part may have fewer processes. It gets as many threads as the other, else the bits differ.
    threads = worker_threads(setting.runtime, worker_count(jobs, largest_part(sweeps, seeds)))
    setting = replace(
        setting,
        runtime=setting.runtime.model_copy(update={"threads": threads}),
        weights_sha256=setting.weights_sha256 or weights_sha256(setting.checkpoint),
    )
    rate_hz = simulator_of(setting.task).rate_hz
    points = {NONE: Point(NONE, rate_hz)}

    def run(wanted: Sequence[tuple[int, Disturbance]], of: Sequence[Disturbance]) -> None:
        for disturbance, episode in zip(of, run_episodes(setting, wanted, jobs), strict=True):
            point = points.setdefault(disturbance, Point(disturbance, rate_hz))
            point.episodes.append(episode)
            if on_episode:
                on_episode(sum(len(point.episodes) for point in points.values()), total)
            if on_point and len(point.episodes) == len(seeds):
                on_point(*_results(setting, sweeps, points))

    run([(seed, NONE) for seed in seeds], [NONE] * len(seeds))
    strong = [(episode, disturbance) for disturbance in _strong(sweeps) for episode in points[NONE].episodes]
    if strong:
        wanted = [
            (
                episode.result.seed,
                replace(
                    disturbance,
                    nominal_steps=episode.result.steps,
                    nominal_speed_m_s=episode.trace.top_speed_m_s(rate_hz),
                ),
            )
            for episode, disturbance in strong
        ]
        run(wanted, [disturbance for _, disturbance in strong])
    return _results(setting, sweeps, points)


def _strong(sweeps: Sequence[Sequence[Disturbance]]) -> list[Disturbance]:
    return list(dict.fromkeys(d for curve in sweeps for d in curve if d.strength))


def _results(
    setting: EvalConfig, sweeps: Sequence[Sequence[Disturbance]], points: Mapping[Disturbance, Point]
) -> tuple[Report, list[Curve]]:
    """Report and curves of the points that are finished."""
    nominal, rate_hz = points[NONE].episodes, points[NONE].rate_hz
    report = Report(setting.task, setting.checkpoint, "in-process", setting.runtime.policy_seed)
    report.results = [episode.result for episode in nominal]
    report.traces = [episode.trace for episode in nominal]
    report.plan_s = [plan_s for episode in nominal for plan_s in episode.trace.plan_s]
    curves = [
        Curve(
            [
                points[d] if d.strength else Point(d, rate_hz, nominal)
                for d in curve
                if d in points or not d.strength
            ]
        )
        for curve in sweeps
    ]
    return report, curves
