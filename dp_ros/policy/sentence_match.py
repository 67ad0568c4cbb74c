"""Match of an unknown sentence with the sentences that a policy knows.

Linear discriminant analysis of the embeddings (Fisher 1936; Hastie et al. 2009, section 4.3): directions in which the
sentences of one task differ count less than those in which tasks differ. Embeddings hardly tell a sentence from its
opposite. Therefore negations and words of opposite meaning are looked for, in English.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dp_ros.schema import InstructionError

Array = NDArray[np.float64]

MIN_SIMILARITY = 0.6  # cosine to the nearest known sentence; "dance" and "go home" have 0.3 to 0.5
# Both were chosen by leaving out each known sentence in turn.
MIN_LOG_ODDS = 1.5  # of the best task against the next one
MIN_LOG_ODDS_AGAINST_NEAREST = 3.0  # where the nearest sentence is of another task
STOPS = frozenset(
    {"stop", "stop it", "stop moving", "halt", "wait", "freeze", "pause", "hold", "hold still", "don't move"}
)
_SPREAD = 1e-3  # added to the variance in each direction; the mean one is 1.1e-3
_NEGATIONS = re.compile(
    r"\b(?:not?|never|nothing|without|except|instead|rather|stop|avoid|quit|cease|cancel|abort|halt|wait|freeze"
    r"|shut ?down|power (?:off|down)"
    r"|keep|leave|stay|let go|hands off|did|cannot|(?:ca|do|does|did|is|are|was|wo|should|must|could|would)nt"
    r"|\w+n['’´ʼ`]t)\b"
)
_OPPOSITES = (
    ("open opened opening uncover unlatch unlock", "close closed closing shut cover latch lock locked"),
    ("unlock unlocked", "lock locked"),
    ("off", "on onto"),
    ("out", "in into inside"),
    ("up upward upwards raise lift", "down downward downwards lower"),
    ("from away off out remove unhook undo empty", "to onto on into in over"),
    ("push shove", "pull drag"),
    ("release", "press grab push"),
    ("plug insert", "unplug extract remove"),
    ("start", "stop halt"),
    ("left", "right"),
    ("forward forwards", "back backward backwards"),
)


class NotUnderstoodError(InstructionError):
    """A sentence that is taken for none of those that the policy knows."""


class SentenceMatch:
    """Known sentences of several tasks, one of which stands for an unknown one."""

    def __init__(
        self, texts: Sequence[str], tasks: Sequence[str], vectors: Array, differences: Array
    ) -> None:
        """vectors (S, D): embeddings of the sentences, of norm 1.

        differences (N, D): what the function `differences` gives of these or other sentences.
        """
        self._texts, self._tasks, self._vectors = list(texts), np.array(tasks), vectors
        self._names = list(dict.fromkeys(tasks))
        self._means = np.stack([vectors[self._tasks == name].mean(0) for name in self._names])
        covariance = differences.T @ differences / max(1, len(differences))
        self._scaled = np.linalg.solve(covariance + _SPREAD * np.eye(vectors.shape[1]), self._means.T)
        self._offsets = 0.5 * np.einsum("td,dt->t", self._means, self._scaled)

    def __call__(self, text: str, vector: Array) -> int:
        """Index of the known sentence that `text` is taken for; `vector` (D,) is its embedding.

        Of several tasks that it may mean, those drop out whose sentences have the opposite of one of its words.
        NotUnderstoodError where none or several are left, where the sentence is unlike them all, or has a negation.
        """
        if found := _NEGATIONS.search(text):
            raise NotUnderstoodError(
                f"'{text}' has the word '{found[0]}', which is not understood: say what to do without it"
            )
        similarity = self._vectors @ vector
        nearest = int(similarity.argmax())
        if similarity[nearest] < MIN_SIMILARITY:
            raise NotUnderstoodError(
                f"'{text}' is unlike every sentence that the policy knows: say one of those, e.g. "
                f"'{self._texts[nearest]}'"
            )
        scores = vector @ self._scaled - self._offsets
        first = int(scores.argmax())
        agrees = self._tasks[nearest] == self._names[first]
        margin = MIN_LOG_ODDS if agrees else MIN_LOG_ODDS_AGAINST_NEAREST
        candidates = [int(task) for task in np.argsort(-scores) if scores[first] - scores[task] < margin]
        contradictions = [self._contradiction(text, self._names[task]) for task in candidates]
        fitting = [
            self._names[task] for task, word in zip(candidates, contradictions, strict=True) if not word
        ]
        # Of many candidates one may be left that is unlike the sentence.
        if len(fitting) == 1 and (agrees or fitting[0] in (self._names[first], self._tasks[nearest])):
            return self._most_similar(fitting[0], similarity)
        taken = self._texts[self._most_similar(self._names[first], similarity)]
        if len(candidates) == 1:
            raise NotUnderstoodError(
                f"'{text}' is nearest to '{taken}', but has the word '{contradictions[0]}', which says the opposite: "
                "say a sentence that the policy knows"
            )
        rival = nearest if not agrees else self._most_similar(self._names[candidates[1]], similarity)
        raise NotUnderstoodError(f"'{text}' may mean '{taken}' or '{self._texts[rival]}': say one of them")

    def _most_similar(self, task: str, similarity: Array) -> int:
        return int(np.where(self._tasks == task, similarity, -np.inf).argmax())

    def _contradiction(self, text: str, task: str) -> str:
        """A word of `text` that no sentence of the task has, though one has its opposite; empty: none."""
        said = _words(text)
        of_task = set().union(*(_words(self._texts[i]) for i in np.flatnonzero(self._tasks == task)))
        for pair in _OPPOSITES:
            sides = [set(side.split()) for side in pair]
            for side, opposite in (sides, sides[::-1]):
                if said & side and not said & opposite and of_task & opposite and not of_task & side:
                    return min(said & side)
        return ""


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text))


def differences(tasks: Sequence[str], vectors: Array) -> Array:
    """(N, D): of each sentence from the mean of its task, for tasks of n > 1 sentences, times sqrt(n / (n - 1)).

    The mean of their products is an estimate of the covariance without bias.
    """
    own = np.array(tasks)
    parts = [vectors[own == name] for name in dict.fromkeys(tasks)]
    scaled = [(part - part.mean(0)) * np.sqrt(len(part) / (len(part) - 1)) for part in parts if len(part) > 1]
    return np.concatenate([np.empty((0, vectors.shape[1])), *scaled])
