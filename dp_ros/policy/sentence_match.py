"""Which task an unknown sentence asks for, among the tasks whose sentences a policy knows.

Linear discriminant analysis of the embeddings (Fisher 1936; Hastie et al. 2009, section 4.3): directions in which the
sentences of one task differ count less than those in which tasks differ. "open the drawer" is closer to "close the
drawer" than to "pull the drawer out", though it means the opposite.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dp_ros.schema import InstructionError

Array = NDArray[np.float64]

MIN_SIMILARITY = 0.6  # cosine to the nearest known sentence; "stop" and "dance" have 0.3 to 0.5
MIN_LOG_ODDS = 3.0  # of the best task against the next one: 20 to 1
_SPREAD = 1e-3  # variance that is added in each direction, about the mean one of sentences of a task
_NEGATIONS = re.compile(r"\b(?:not|never|stop|avoid|\w+n['’]t)\b")


class SentenceMatch:
    """Sentences of several tasks, which tell one task from another."""

    def __init__(
        self, texts: Sequence[str], tasks: Sequence[str], vectors: Array, differences: Array
    ) -> None:
        """vectors (S, D): embeddings of the sentences, of norm 1.

        differences (N, D): of sentences from the mean of their task, these or others; N may be 0.
        """
        self._texts, self._tasks, self._vectors = list(texts), np.array(tasks), vectors
        self._names = list(dict.fromkeys(tasks))
        self._means = np.stack([vectors[self._tasks == name].mean(0) for name in self._names])
        covariance = differences.T @ differences / max(1, len(differences))
        self._scaled = np.linalg.solve(covariance + _SPREAD * np.eye(vectors.shape[1]), self._means.T)
        self._offsets = 0.5 * np.einsum("td,dt->t", self._means, self._scaled)

    def __call__(self, text: str, vector: Array) -> int:
        """Index of the known sentence that stands for `text`, whose embedding is `vector` (D,).

        It is the most similar one of the task. InstructionError where the sentence is unlike them all, may mean two
        tasks, or says what not to do.
        """
        if _NEGATIONS.search(text):
            raise InstructionError(
                f"'{text}' says what not to do, and that is not understood: say what to do"
            )
        similarity = self._vectors @ vector
        if similarity.max() < MIN_SIMILARITY:
            nearest = self._texts[similarity.argmax()]
            raise InstructionError(
                f"'{text}' is unlike every sentence that the policy knows: say one of those, e.g. '{nearest}'"
            )
        scores = vector @ self._scaled - self._offsets
        ranked = [self._best(name, similarity) for name in np.array(self._names)[np.argsort(-scores)[:2]]]
        margins = -np.diff(np.sort(scores)[::-1][:2])
        if (margins < MIN_LOG_ODDS).any():
            either = " or ".join(f"'{self._texts[i]}'" for i in ranked)
            raise InstructionError(f"'{text}' may mean {either}: say one of them")
        return ranked[0]

    def _best(self, task: str, similarity: Array) -> int:
        return int(np.where(self._tasks == task, similarity, -np.inf).argmax())


def differences(tasks: Sequence[str], vectors: Array) -> Array:
    """(N, D): of each sentence from the mean of its task, for tasks with several sentences."""
    own = np.array(tasks)
    parts = [vectors[own == name] for name in dict.fromkeys(tasks)]
    return np.concatenate(
        [np.empty((0, vectors.shape[1])), *(part - part.mean(0) for part in parts if len(part) > 1)]
    )
