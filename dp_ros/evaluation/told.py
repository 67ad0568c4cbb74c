"""Sentence of each episode of an evaluation, for a policy that is told what to do."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dp_ros.evaluation.results import EpisodeResult
from dp_ros.policy.instructions import Instructions
from dp_ros.policy.sentence_match import NotUnderstoodError
from dp_ros.schema import InstructionError

NOT_UNDERSTOOD = "instruction not understood"
InstructionKind = Literal["known", "held_out", "wrong"]


@dataclass(frozen=True)
class Change:
    """Another sentence in the middle of each episode."""

    sentence: str
    after_ticks: int


def instruction_for(
    known: Instructions | None, task: str, seed: int, sentence: str = "", kind: InstructionKind = "known"
) -> str:
    """The sentence of an episode; empty if `known` is None: the policy takes no instruction.

    sentence: for every episode; without it one of the kind. known, held_out: the task's sentences in turn, by seed.
    wrong: a known sentence of another task of the model. InstructionError where there is none, or the policy does one
    thing.
    """
    if known is None:
        if sentence or kind != "known":
            raise InstructionError("the policy does one thing and takes no instruction: leave it out")
        return ""
    if sentence:
        return sentence
    if kind == "wrong":
        others = [each for each in known.tasks if each != task]
        if not others:
            raise InstructionError(f"the model knows no other task than {task}, so that no sentence is wrong")
        # Tasks do not share their wrong sentences.
        draw = np.random.default_rng([seed, zlib.crc32(task.encode())])
        task = others[draw.integers(len(others))]
    return known.sentence(task, seed, "held_out" if kind == "held_out" else "known")


def embedding_of(known: Instructions, sentence: str) -> NDArray[np.float32] | None:
    """(D,) of what the sentence is taken for; None where it is not understood, so that the policy holds.

    InstructionError where it cannot be encoded here.
    """
    try:
        return known.meaning(sentence).embedding
    except NotUnderstoodError:
        return None


def with_sentence(result: EpisodeResult, sentence: str, *, is_understood: bool = True) -> EpisodeResult:
    """The result of an episode with what it was told."""
    reason = result.reason if result.success or is_understood else NOT_UNDERSTOOD
    return replace(result, reason=reason, instruction=sentence or None)
