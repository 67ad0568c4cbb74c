"""Instructions: sentences that tell a policy which task to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, model_validator

from dp_ros.documents import parse_yaml, read_text
from dp_ros.errors import USAGE, UserError
from dp_ros.schema.base import Config, ConfigError, parse

MAX_LETTERS = 300


class InstructionError(UserError):
    """A sentence that cannot be an instruction, or one that is missing; one line."""

    exit_code = USAGE


class InstructionConfig(Config):
    """Conditioning on a sentence: its embedding changes the features of the pictures (FiLM) and joins them."""

    embedding_dim: int = Field(384, ge=8, le=4096, description="length of a sentence's embedding")
    features: int = Field(64, ge=4, le=1024, description="length of what is learned from it")


class TaskSentences(Config):
    """Sentences for one task."""

    known: tuple[str, ...] = Field(min_length=1, description="drawn in training")
    paraphrases: tuple[str, ...] = Field(
        (), description="taken for the most similar known sentence, which is what the policy is told"
    )
    held_out: tuple[str, ...] = Field((), description="never seen in training; to measure with")
    scene: str = Field(
        "",
        description="what the task is done with; tasks with the same things have the same name here. Empty: unknown",
    )


class Sentences(Config):
    """Sentences for each task."""

    tasks: dict[str, TaskSentences]

    @model_validator(mode="after")
    def _tells_one_task(self) -> Sentences:
        owner: dict[str, str] = {}
        for task, of_task in self.tasks.items():
            for sentence in (*of_task.known, *of_task.paraphrases, *of_task.held_out):
                try:
                    text = plain(sentence)
                except InstructionError as error:
                    raise ValueError(f"{task}: {error}") from None
                if text in owner:
                    others = f"under {owner[text]} and {task}"
                    where = others if owner[text] != task else f"twice under {task}"
                    raise ValueError(f"'{sentence}' is listed {where}: keep it once")
                owner[text] = task
        return self

    def of(self, task: str, where: str) -> TaskSentences:
        """The task's sentences; InstructionError where it has none in the file `where`."""
        if task not in self.tasks:
            said = f"task {task} has" if task else "the dataset names no task, which has"
            raise InstructionError(
                f"{said} no instruction in {where}: add its sentences to a file of your own and give it as "
                "--set instructions=FILE"
            )
        return self.tasks[task]


def plain(sentence: str) -> str:
    """The sentence as it is compared and encoded: lower case, single spaces, no sign at the end.

    InstructionError where it is empty, too long, or not text.
    """
    if any(
        letter == "\ufffd" or "\ud800" <= letter <= "\udfff" for letter in sentence
    ):  # ROS decodes with U+FFFD
        raise InstructionError("the instruction is not UTF-8 text: send it as UTF-8")
    text = " ".join(sentence.split()).rstrip(".!? ").lower()
    if not text:
        raise InstructionError("the instruction is empty: give a sentence, e.g. 'open the drawer'")
    if not text.isprintable():
        raise InstructionError("the instruction has letters that cannot be printed: send it as plain text")
    if len(text) > MAX_LETTERS:
        raise InstructionError(
            f"the instruction has {len(text)} letters, at most {MAX_LETTERS} are read: give one sentence"
        )
    return text


def load_sentences(path: Path) -> Sentences:
    """The file of sentences at `path`; ConfigError where it cannot be used."""
    try:
        data = parse_yaml(read_text(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from None
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path}: expected tasks with their sentences")
    return parse(Sentences, {"tasks": data}, where=str(path))
