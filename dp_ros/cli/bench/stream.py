"""Training steps on a dataset whose pictures are on disk, against the same dataset in memory."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from dp_ros.cli.bench.train import WARM_UP
from dp_ros.schema import Layers, Settings, Source, TrainConfig
from dp_ros.train.progress import Progress
from dp_ros.train.run import make_trainer

ROUNDS = 3  # of each side, one after the other
_UNLIMITED_GB = 1e9


def compare_streaming(settings: Settings[TrainConfig], data: Sequence[Path], steps: int) -> dict[str, Any]:
    """Median milliseconds of a step from disk and from memory, in turns, and the memory that the first took [GB].

    The process's memory is read after the first round from disk, before anything was read from memory.
    """
    samples_ms: dict[str, list[float]] = {"disk": [], "memory": []}
    resident_gb = 0.0
    for _ in range(ROUNDS):
        samples_ms["disk"] += _measure(settings, data, steps, memory_gb=0.0)
        if not resident_gb:
            resident_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        samples_ms["memory"] += _measure(settings, data, steps, memory_gb=_UNLIMITED_GB)
    medians = {side: median(values) for side, values in samples_ms.items()}
    return {
        "median_ms": medians,
        "ratio": medians["disk"] / medians["memory"],
        "resident_gb": resident_gb,
        "samples_ms": samples_ms,
    }


def _measure(
    settings: Settings[TrainConfig], data: Sequence[Path], steps: int, memory_gb: float
) -> list[float]:
    """Milliseconds of each step after the warm-up."""
    layers = Layers.of(settings)
    total = WARM_UP + steps
    values = {"memory_gb": memory_gb, "steps": total, "log_every": 1, "checkpoint_every": total}
    for key, value in values.items():
        layers.add(key, value, Source("bench"))
    chosen = layers.settings(TrainConfig)
    reports: list[Progress] = []
    with tempfile.TemporaryDirectory(prefix="dp_ros-bench-") as folder:
        trainer = make_trainer(chosen.config, data, Path(folder) / "run", sources=chosen.sources)
        trainer.run(reports.append)
    return [report.step_s * 1e3 for report in reports[WARM_UP:]]
