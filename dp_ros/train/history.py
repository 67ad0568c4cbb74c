"""What a run went through so far: kept with its state, so that a resumed run tells the whole of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

_SHOWN = 100  # points of a curve that a checkpoint keeps


class TrainingHistory:
    """The loss over the steps, the held-out loss, and the seconds spent in steps."""

    def __init__(self, text: str = "{}") -> None:
        """Goes on from what `dumps` gave."""
        kept = json.loads(text)
        self.seconds: float = kept.get("seconds", 0.0)
        self.loss: list[tuple[int, float]] = kept.get("loss", [])  # (step, mean since the one before)
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
    parts = [part for part in np.array_split(np.asarray(curve), _SHOWN) if len(part)]
    return [(int(part[-1, 0]), float(f"{part[:, 1].mean():.4g}")) for part in parts]
