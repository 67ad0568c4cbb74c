"""Statistics of features in the form of LeRobot's normalisers, one episode at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Stats = Mapping[str, NDArray[Any]]  # min, max, mean, std, count and the quantiles
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def vector_stats(values: NDArray[Any]) -> Stats:
    """values (T, D): each statistic (D,), count (1,)."""
    return {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0, dtype=np.float64),
        "std": values.std(0, dtype=np.float64),
        "count": np.array([len(values)]),
        **{name: np.quantile(values, q, axis=0) for name, q in QUANTILES.items()},
    }


def picture_stats(pictures: NDArray[np.uint8]) -> Stats:
    """pictures (T, H, W, 3): each statistic (3, 1, 1) in [0, 1] over all pixels, exact; count (1,) pictures."""
    counts = np.zeros((3, 256), dtype=np.int64)
    for picture in pictures:  # one at a time: bincount takes eight bytes for each pixel
        counts += [np.bincount(picture[..., c].ravel(), minlength=256) for c in range(3)]
    levels = np.arange(256) / 255
    pixels = pictures[..., 0].size
    mean = counts @ levels / pixels
    up_to = counts.cumsum(1)
    channels = {
        "min": levels[(up_to > 0).argmax(1)],
        "max": levels[(up_to == pixels).argmax(1)],
        "mean": mean,
        "std": np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(1) / pixels),
        **{name: levels[(up_to >= q * pixels).argmax(1)] for name, q in QUANTILES.items()},
    }
    return {"count": np.array([len(pictures)])} | {
        name: value.reshape(3, 1, 1) for name, value in channels.items()
    }


def merge(a: Stats | None, b: Stats) -> Stats:
    """Statistics of both together. Quantiles are averaged by count, as in LeRobot: exact ones need every value."""
    if a is None:
        return b
    count = a["count"] + b["count"]
    share = a["count"] / count
    mean = share * a["mean"] + (1 - share) * b["mean"]
    variance = sum(
        s * (part["std"] ** 2 + (part["mean"] - mean) ** 2) for s, part in ((share, a), (1 - share, b))
    )
    return {
        "min": np.minimum(a["min"], b["min"]),
        "max": np.maximum(a["max"], b["max"]),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": count,
        **{name: share * a[name] + (1 - share) * b[name] for name in QUANTILES},
    }


def as_lists(stats: Stats) -> dict[str, list[Any]]:
    return {name: value.tolist() for name, value in stats.items()}
