"""Results of an evaluation: the outcome of each episode, and all of them as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dp_ros.evaluation.statistics import wilson_interval

if TYPE_CHECKING:
    from dp_ros.evaluation.trace import Trace


@dataclass(frozen=True)
class EpisodeResult:
    """Outcome of one episode."""

    seed: int
    success: bool
    steps: int
    reason: str = ""  # why it ended without success: "time limit", "no command", ...
    instruction: str | None = None  # of a policy that is told what to do
    # In real time only:
    realtime_factor: float | None = None  # simulated time by real time
    held_share: float | None = None  # of the ticks after the first move, those on which the policy held
    first_move: int | None = None  # ticks until the first move


def held_ticks(verdicts: Sequence[str]) -> dict[str, Any]:
    """`held_share` and `first_move` of EpisodeResult from the verdicts since the scene was set up.

    The first ones may be of the episode before, until the policy holds for want of a plan.
    """
    first_hold = next((t for t, verdict in enumerate(verdicts) if verdict.startswith("hold")), 0)
    moves = (t for t in range(first_hold, len(verdicts)) if not verdicts[t].startswith("hold"))
    first_move = next(moves, len(verdicts))
    after = verdicts[first_move:]
    holds = sum(verdict.startswith("hold") for verdict in after)
    return {"held_share": holds / len(after) if after else 1.0, "first_move": first_move - first_hold}


@dataclass
class Report:
    """Results of one checkpoint over several episodes."""

    task: str
    checkpoint: str
    transport: str
    policy_seed: int = 0
    results: list[EpisodeResult] = field(default_factory=list)
    plan_s: list[float] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)  # one for each result, or none
    settings: dict[str, Any] = field(default_factory=dict)  # see provenance.settings
    provenance: dict[str, Any] = field(default_factory=dict)  # see provenance.provenance

    @property
    def successes(self) -> int:
        return sum(result.success for result in self.results)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON, without traces."""
        low, high = wilson_interval(self.successes, len(self.results))
        plan_ms = np.array(self.plan_s or [math.nan]) * 1e3
        return {
            "task": self.task,
            "checkpoint": self.checkpoint,
            "transport": self.transport,
            "policy_seed": self.policy_seed,
            "episodes": len(self.results),
            "success_rate": self.successes / len(self.results) if self.results else None,
            "wilson_low": low,
            "wilson_high": high,
            "per_episode": [
                {key: value for key, value in asdict(result).items() if value is not None}
                for result in self.results
            ],
            "plan_ms": {
                "p50": float(np.percentile(plan_ms, 50)) if self.plan_s else None,
                "p99": float(np.percentile(plan_ms, 99)) if self.plan_s else None,
            },
            **self._real_time(),
            **({"settings": self.settings} if self.settings else {}),
            **({"provenance": self.provenance} if self.provenance else {}),
        }

    def _real_time(self) -> dict[str, float]:
        """Means over the episodes, weighted by their length; empty in lockstep."""
        names = ("realtime_factor", "held_share", "first_move")
        measured = [result for result in self.results if None not in (getattr(result, n) for n in names)]
        if not measured:
            return {}
        steps = [max(1, result.steps) for result in measured]
        return {
            name: float(np.average([getattr(result, name) for result in measured], weights=steps))
            for name in names
        }

    def summary(self) -> str:
        """One line for a terminal."""
        data = self.as_dict()
        if not self.results:
            return f"{self.task}: no episode was run"
        line = (
            f"{self.task} [{self.transport}]: {self.successes}/{len(self.results)} = "
            f"{data['success_rate']:.0%}, 95 % interval [{data['wilson_low']:.0%}, {data['wilson_high']:.0%}]"
        )
        if self.plan_s:
            line += f", plan p50 {data['plan_ms']['p50']:.0f} ms, p99 {data['plan_ms']['p99']:.0f} ms"
        if "realtime_factor" in data:
            line += (
                f", real-time factor {data['realtime_factor']:.3f}, {data['held_share']:.2%} of ticks held"
            )
        return line
