"""Progress of a run: reports of its steps, and the history that is kept with its state."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp_ros.documents import parse_json

_POINTS = 100  # of each curve in a checkpoint


@dataclass(frozen=True)
class Progress:
    """Means over the steps since the last report."""

    step: int
    steps: int
    loss: float
    lr: float
    step_s: float
    compute_share: float  # share of the step's time spent in forward and backward

    @property
    def eta_s(self) -> float:
        return (self.steps - self.step) * self.step_s


class ProgressMeter:
    """Sums over the steps since the last report."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._seconds = self._compute_s = 0.0

    def add(self, loss: float, seconds: float, compute_s: float) -> None:
        """One step: its loss, its duration, and how much of that was forward and backward."""
        self._losses.append(loss)
        self._seconds += seconds
        self._compute_s += compute_s

    def report(self, step: int, steps: int, lr: float) -> Progress:
        """Means since the last call; the next report begins here."""
        progress = Progress(
            step=step,
            steps=steps,
            loss=float(np.mean(self._losses)),
            lr=lr,
            step_s=self._seconds / len(self._losses),
            compute_share=self._compute_s / self._seconds,
        )
        self._losses, self._seconds, self._compute_s = [], 0.0, 0.0
        return progress


class TrainingHistory:
    """Loss over the steps, held-out loss, and seconds spent in steps; a resumed run continues them."""

    def __init__(self, text: str = "{}") -> None:
        """`text`: result of `dumps`."""
        kept = parse_json(text)
        self.seconds: float = kept.get("seconds", 0.0)
        self.loss: list[tuple[int, float]] = kept.get("loss", [])  # (step, mean since the point before)
        self.validation: list[tuple[int, float]] = kept.get("validation", [])

    def dumps(self) -> str:
        return json.dumps({"seconds": self.seconds, "loss": self.loss, "validation": self.validation})

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint: at most a hundred points of each curve, each the mean of its neighbours."""
        return {
            "seconds": round(self.seconds, 1),
            "loss": _thinned(self.loss),
            **({"validation_loss": _thinned(self.validation)} if self.validation else {}),
        }


def _thinned(curve: list[tuple[int, float]]) -> list[tuple[int, float]]:
    parts = [part for part in np.array_split(np.asarray(curve), _POINTS) if len(part)]
    return [(int(part[-1, 0]), float(f"{part[:, 1].mean():.4g}")) for part in parts]
