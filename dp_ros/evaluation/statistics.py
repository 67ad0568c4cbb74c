"""What a count of successes says, and the report that carries it."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from dp_ros.evaluation.trace import Trace


@dataclass(frozen=True)
class EpisodeResult:
    """The outcome of one episode."""

    seed: int
    success: bool
    steps: int
    reason: str = ""  # why it ended without success: "time limit", "no command", ...


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % score interval of a success probability (Wilson 1927); (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


@dataclass
class Report:
    """Results of several episodes of one checkpoint."""

    task: str
    checkpoint: str
    transport: str
    policy_seed: int = 0
    results: list[EpisodeResult] = field(default_factory=list)
    plan_s: list[float] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)  # one for each result, where they were recorded
    settings: dict[str, Any] = field(default_factory=dict)  # of the test and of the policy; see provenance
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def successes(self) -> int:
        return sum(result.success for result in self.results)

    def as_dict(self) -> dict[str, Any]:
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


def write_json(path: str | Path, data: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        staging.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")
        os.replace(staging, path)
    finally:
        staging.unlink(missing_ok=True)
