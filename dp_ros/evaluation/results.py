"""Results of an evaluation: the outcome of each episode, and all of them as JSON."""

from __future__ import annotations

import math
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
            "per_episode": [asdict(result) for result in self.results],
            "plan_ms": {
                "p50": float(np.percentile(plan_ms, 50)) if self.plan_s else None,
                "p99": float(np.percentile(plan_ms, 99)) if self.plan_s else None,
            },
            **({"settings": self.settings} if self.settings else {}),
            **({"provenance": self.provenance} if self.provenance else {}),
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
        return line
