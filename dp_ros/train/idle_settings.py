"""Settings of a training that change nothing, because they need others or data of another kind."""

from __future__ import annotations

from collections.abc import Iterator

from dp_ros.policy.instructions import Instructions
from dp_ros.schema import TrainConfig


def idle_settings(config: TrainConfig, instructions: Instructions | None) -> Iterator[str]:
    """A line for each setting about kept encoders or sentences that was changed and changes nothing."""
    if config.train_encoder and config.views != type(config).model_fields["views"].default:
        yield "views has no effect: it needs train_encoder=false"
    yield from _idle_about_sentences(config, instructions)


def _idle_about_sentences(config: TrainConfig, instructions: Instructions | None) -> Iterator[str]:
    if instructions is None:
        for name in ("instructions", "mismatched", "mixed_sentences"):
            if getattr(config, name):
                yield f"{name} has no effect without policy.instruction"
        return
    if config.mismatched and not any(instructions.rows_elsewhere(task) for task in instructions.tasks):
        yield "mismatched has no effect: it needs tasks of two scenes, named by `scene` in the file of sentences"
    if config.mixed_sentences and all(len(instructions.rows(task)) < 2 for task in instructions.tasks):
        yield "mixed_sentences has no effect: no task of the data has two known sentences"
