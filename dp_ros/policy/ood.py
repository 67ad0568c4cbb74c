"""Score of pictures unlike those of the training (out of distribution), from the encoder's keypoints. No torch.

The score of a picture is the distance of its keypoints from those of the nearest training picture (Sun et al. 2022),
whitened, divided by that of the most unusual held-out pictures. `docs/safety.md` compares it with others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dp_ros.errors import UserError

QUANTILE = 0.995  # of the held-out pictures' distances: the score 1
_SHRINKAGE = 0.01  # share of the mean variance that is added to every direction's
_LEAST = 1e-12  # variance and distance, where nothing varies at all
_NAMES = ("mean", "whitening", "known", "limit")
_MAKE = "make it with `dp_ros ood-stats`"

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]


class OodError(UserError):
    """Statistics of the training pictures cannot be made or read; the message is one line."""


@dataclass(frozen=True)
class OodStats:
    """Keypoints of N training pictures of each of V cameras, D coordinates each."""

    mean: Array32  # (V, D)
    whitening: Array32  # (V, D, D): (keypoints - mean) @ whitening has about the covariance 1 / D
    known: Array32  # (V, N, D) whitened keypoints of training pictures
    limit: Array32  # (V,) distance of the score 1

    @property
    def shape(self) -> tuple[int, int]:
        """(V, D)."""
        cameras, coordinates = self.mean.shape
        return cameras, coordinates

    def scores(self, keypoints: Sequence[NDArray[Any]]) -> Array:
        """keypoints V of (D,) -> (V,): 1 for the most unusual held-out pictures, more for others; NaN stays NaN."""
        distances = [self.distances(view, each[None])[0] for view, each in enumerate(keypoints)]
        return np.asarray(np.array(distances) / self.limit, dtype=np.float64)

    def distances(self, view: int, keypoints: NDArray[Any]) -> Array32:
        """keypoints (M, D) of one camera -> (M,) distance to the nearest known picture."""
        whitened = (keypoints.astype(np.float32) - self.mean[view]) @ self.whitening[view]
        products = whitened @ self.known[view].T
        squares = np.square(whitened).sum(1) + (self._squares[view] - 2.0 * products).min(1)
        return np.asarray(np.sqrt(np.maximum(squares, 0.0)))

    @cached_property
    def _squares(self) -> Array32:
        """(V, N) squared length of each known picture's keypoints."""
        return np.asarray(np.square(self.known).sum(2))

    def save(self, path: Path) -> None:
        """Write a file for `load_ood_stats`; the known keypoints in half precision."""
        arrays = {name: getattr(self, name) for name in _NAMES}
        save_file(arrays | {"known": self.known.astype(np.float16)}, path)
        path.chmod(0o644)  # safetensors gives access to the owner only


def fit_ood_stats(training: Sequence[NDArray[Any]], held_out: Sequence[NDArray[Any]]) -> OodStats:
    """Statistics of the keypoints of training pictures, V of (N, D); held-out ones, V of (M, D), give the limit.

    OodError where a number is not finite.
    """
    if not all(np.isfinite(each).all() for each in (*training, *held_out)):
        raise OodError(
            "the features of some training pictures are not finite: the training diverged, train again"
        )
    mean, whitening, known = (np.stack(each) for each in zip(*map(_whitened, training), strict=True))
    unscaled = OodStats(mean, whitening, known, np.ones(len(mean), dtype=np.float32))
    distances = [unscaled.distances(view, each) for view, each in enumerate(held_out)]
    limit = np.maximum([np.quantile(each, QUANTILE) for each in distances], _LEAST)
    return OodStats(mean, whitening, known, limit.astype(np.float32))


def _whitened(keypoints: NDArray[Any]) -> tuple[Array32, Array32, Array32]:
    """keypoints (N, D) -> mean (D,), whitening (D, D), whitened keypoints (N, D) as their file holds them."""
    x = np.asarray(keypoints, dtype=np.float64)
    mean, dim = x.mean(0), x.shape[1]
    covariance = (x - mean).T @ (x - mean) / len(x)
    least = _SHRINKAGE * np.trace(covariance) / dim + _LEAST
    whitening = np.linalg.cholesky(np.linalg.inv(covariance + least * np.eye(dim))) / np.sqrt(dim)
    known = ((x - mean) @ whitening).astype(np.float16).astype(np.float32)
    return mean.astype(np.float32), whitening.astype(np.float32), known


def load_ood_stats(path: Path) -> OodStats:
    """Statistics from a file of `OodStats.save`; OodError where it is damaged."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            found = {name: np.asarray(file.get_tensor(name)).astype(np.float32) for name in _NAMES}
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise OodError(f"{path}: cannot be read ({' '.join(str(error).split())}): {_MAKE}") from None
    shapes = {name: array.shape for name, array in found.items()}
    V, D = shapes["mean"] if len(shapes["mean"]) == 2 else (0, 0)
    N = shapes["known"][1] if len(shapes["known"]) == 3 else 0
    fitting = {"mean": (V, D), "whitening": (V, D, D), "known": (V, N, D), "limit": (V,)}
    if shapes != fitting or not V * N * D:
        raise OodError(f"{path}: its arrays do not fit one another: {_MAKE}")
    if not (all(np.isfinite(each).all() for each in found.values()) and (found["limit"] > 0).all()):
        raise OodError(f"{path}: has a number that is not finite, or a limit of 0: {_MAKE}")
    return OodStats(**found)
