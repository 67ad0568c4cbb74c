"""Sentences that the windows of a batch are told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dp_ros.policy.instructions import Embeddings, Instructions

Rows = NDArray[np.int64]
Draws = NDArray[np.float64]  # in [0, 1)


class SentenceDraws:
    """Embeddings of sentences for windows, each given by the number of its task: chosen by random numbers."""

    def __init__(self, instructions: Instructions, tasks: Sequence[str]) -> None:
        """InstructionError where a task has no sentence."""
        self._table = instructions.embeddings
        self._own, self._counts = _padded([instructions.rows(task) for task in tasks])
        self._other, self._other_counts = _padded([instructions.rows_elsewhere(task) for task in tasks])
        self.most = self._own.shape[1]  # sentences of one task

    def own(self, task: Rows, draw: Draws) -> Embeddings:
        """task, draw (B,) -> a known sentence of each task (B, D)."""
        return self._table[self._own[task, (draw * self._counts[task]).astype(np.int64)]]

    def mixed(self, task: Rows, draws: Draws) -> Embeddings:
        """task (B,), draws (B, most) -> a mean of each task's known sentences (B, D), of weights that are uniform over
        the simplex, as a unit vector."""
        weights = -np.log1p(-draws) * (np.arange(self.most) < self._counts[task][:, None])
        mean = np.einsum("bk,bkd->bd", weights.astype(np.float32), self._table[self._own[task]])
        unit: Embeddings = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return unit

    def has_elsewhere(self, task: Rows) -> NDArray[np.bool_]:
        """task (B,) -> whether there are sentences of other scenes (B,)."""
        return self._other_counts[task] > 0

    def elsewhere(self, task: Rows, draw: Draws) -> Embeddings:
        """As `own`, of a task of another scene; any sentence where there is none."""
        return self._table[self._other[task, (draw * self._other_counts[task]).astype(np.int64)]]


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Rows, Rows]:
    """Rows of each task -> (T, most) filled up with 0, and their numbers (T,)."""
    counts = np.array([len(each) for each in rows], dtype=np.int64)
    table = np.zeros((len(rows), max(1, counts.max(initial=0))), dtype=np.int64)
    for own, each in zip(table, rows, strict=True):
        own[: len(each)] = each
    return table, counts
