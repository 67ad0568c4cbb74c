"""Settings of a distillation: a teacher's checkpoint to a student that needs one or two calls of the network."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from dp_ros.schema.training import TrainConfig


class DistillConfig(TrainConfig):
    """One distillation. `policy` is the teacher's with the student's sampler; no option sets it."""

    unused: ClassVar[dict[str, Any]] = {
        key: value for key, value in TrainConfig.unused.items() if key not in ("train_encoder", "views")
    }

    student_iterations: int = Field(
        2, ge=1, le=4, description="calls of the network in a plan; a student of two serves with one, too"
    )
    teacher_iterations: int = Field(10, ge=1, le=1000, description="DDIM iterations of the teacher's plans")
    train_encoder: bool = Field(
        False, description="train the encoder, too; without, all pictures are encoded before the first step"
    )
    views: int = Field(
        2,
        ge=1,
        le=64,
        description="frozen encoder: crops of each episode that are encoded, and plans of the teacher per window",
    )

    batch_size: int = Field(64, ge=1, description="windows per step")
    epochs: int | None = Field(None, ge=1, description="passes over the windows, where steps is null")
    steps: int | None = Field(1500, ge=1, description="optimiser steps; wins over epochs")
    precision: Literal["f32", "tf32", "bf16"] = Field(
        "bf16", description="of the teacher's plans, too; tf32: as in a training"
    )
    lr: float = Field(
        3e-4, gt=0, description="learning rate after the warm-up; then it falls to 0 as a cosine"
    )
    warmup_steps: int = Field(100, ge=0, description="steps in which the learning rate rises to lr")
    ema_max: float = Field(0.995, gt=0, lt=1, description="largest EMA decay")
    checkpoint_every: int = Field(250, ge=1, description="steps between checkpoints to resume from")

    @model_validator(mode="after")
    def _draws_one_noise(self) -> DistillConfig:
        if self.noise_samples != 1:
            raise ValueError(
                f"noise_samples {self.noise_samples}: a student has one label a window: raise views"
            )
        return self
