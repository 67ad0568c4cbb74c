"""Settings of demonstrations by the scripted expert, and of training."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from dp_ros.schema.base import CameraName, Config
from dp_ros.schema.policy import PolicyConfig

Share = Annotated[float, Field(ge=0, lt=1)]


class CollectConfig(Config):
    """Demonstrations of a scripted expert: the task, the cameras, the noise and the episodes."""

    task: str = Field("drawer-open-v3", description="task of any simulator; a version may be left out")
    episodes: int = Field(250, ge=1, description="successful episodes to record")
    cameras: tuple[CameraName, ...] = Field(("gripperPOV",), min_length=1, description="cameras to record")
    width_px: int = Field(224, ge=16, le=640, description="width of the pictures")
    height_px: int = Field(224, ge=16, le=480, description="height of the pictures")
    markers: bool = Field(
        False, description="draw goals and other marks of the simulator, which no real camera would see"
    )
    noise: tuple[float, ...] = Field(
        (0.0,),
        min_length=1,
        description="std of the noise on the executed move, in longest moves of one tick (Metaworld: 1 cm); episode i "
        "uses entry i modulo their number",
    )
    first_seed: int = Field(100_000, ge=0, description="episode i uses seed first_seed + i")
    max_steps: int = Field(300, ge=1, le=500, description="time limit of an episode [ticks]")
    keep_steps: int = Field(
        10, ge=0, description="ticks recorded after success, so that the policy learns to stay there"
    )
    policy: str = Field(
        "",
        description="model that moves the arm first; the expert then takes over, and only its part is recorded; empty: "
        "the expert alone",
    )
    policy_ticks: int = Field(
        200,
        ge=1,
        description="longest time before the expert takes over [ticks]; each episode draws its own",
    )

    @model_validator(mode="after")
    def _noise_is_a_scale(self) -> CollectConfig:
        if min(self.noise) < 0:
            raise ValueError(f"noise {list(self.noise)} has a negative standard deviation")
        return self

    @model_validator(mode="after")
    def _the_expert_has_time(self) -> CollectConfig:
        if self.policy and self.policy_ticks >= self.max_steps:
            raise ValueError(
                f"policy_ticks {self.policy_ticks} leaves the expert no time within max_steps {self.max_steps}: lower "
                "policy_ticks, or raise max_steps"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Demonstrations that were begun before these settings existed are resumed with the same settings."""
        unused = () if self.policy else ("policy", "policy_ticks")
        return {key: value for key, value in dump(self).items() if key not in unused}


Strength = Annotated[float, Field(ge=0, lt=1)]


class AugmentationConfig(Config):
    """Changes of the training pictures besides their random crop.

    They are drawn for each camera and each window, or run of windows. brightness, contrast and saturation are factors
    from 1 - strength to 1 + strength.
    """

    brightness: Strength = Field(0.0, description="how far the brightness may change")
    contrast: Strength = Field(0.0, description="how far the contrast about mid-grey may change")
    saturation: Strength = Field(0.0, description="how far the saturation may change")
    cover: Strength = Field(
        0.0, description="share of the pictures that a rectangle of one colour partly covers (random erasing)"
    )

    @property
    def recolours(self) -> bool:
        return max(self.brightness, self.contrast, self.saturation) > 0


class OptimizerConfig(Config):
    """AdamW, its learning rate, and the average (EMA) of the weights. The defaults are the paper's."""

    lr: float = Field(
        1e-4, gt=0, description="learning rate after the warm-up; then it falls to 0 as a cosine"
    )
    weight_decay: float = Field(
        1e-6, ge=0, description="of all weights of the U-Net, of the Transformer's matrices only"
    )
    betas: tuple[Share, Share] = Field((0.95, 0.999), description="decay of AdamW's two moments")
    warmup_steps: int = Field(500, ge=0, description="steps in which the learning rate rises to lr")
    gradient_clip: float = Field(1.0, gt=0, description="largest gradient norm")
    ema_power: float = Field(0.75, gt=0, le=1, description="EMA decay at step n is 1 - (1 + n)^-power")
    ema_max: float = Field(0.9999, gt=0, lt=1, description="largest EMA decay")


class TrainConfig(OptimizerConfig):
    """One training run. The defaults are the paper's."""

    # Values of settings that are not written down: see `_without_unused`.
    unused: ClassVar[dict[str, Any]] = {
        "instructions": "",
        "mismatched": 0.0,
        "mixed_sentences": 0.0,
        "compile": False,
        "balanced": True,
        "train_encoder": True,
        "views": 2,
        "kept_tasks": (),
    }

    policy: PolicyConfig = PolicyConfig()
    batch_size: int = Field(64, ge=1, description="windows per step")
    epochs: int | None = Field(100, ge=1, description="passes over the windows; or give steps")
    steps: int | None = Field(None, ge=1, description="optimiser steps; wins over epochs")
    noise_samples: int = Field(
        1,
        ge=1,
        description="diffusion targets drawn per encoded window: more signal for one pass of the encoder",
    )
    run_length: int = Field(
        1,
        ge=1,
        description="consecutive windows in a run; a batch is made of whole runs, and each frame of a run is encoded "
        "once",
    )
    balanced: bool = Field(
        True,
        description="all tasks have as many windows in an epoch; false: in proportion to their demonstrations",
    )
    augmentation: AugmentationConfig = AugmentationConfig()
    instructions: str = Field(
        "", description="YAML file of each task's sentences, for policy.instruction; empty: the shipped one"
    )
    mismatched: Share = Field(
        0.0,
        description="share of the windows that are told to do a task of another scene, and learn to hold; only of "
        "tasks whose scene is named in the file of sentences",
    )
    mixed_sentences: Share = Field(
        0.0,
        description="share of the windows that are told a random mean of their task's known sentences, for sentences "
        "between them",
    )
    validation: Share = Field(
        0.0, description="share of the episodes held out for validation (at least one); 0: none"
    )
    validate_every: int = Field(500, ge=1, description="steps between validations")
    validation_windows: int = Field(
        256, ge=1, description="held-out windows used by a validation, evenly spread"
    )
    train_encoder: bool = Field(
        True,
        description="false, only with --init: keep the encoder, and encode all pictures once, at the start",
    )
    views: int = Field(
        2,
        ge=1,
        le=64,
        description="encoder kept: how often an episode is encoded, each time with one crop, augmentation and sentence",
    )
    kept_tasks: tuple[str, ...] = Field(
        (),
        description="encoder kept: tasks of the data that the policy shall do as before; on their windows it learns "
        "what the weights of --init predict, not the demonstrations (Learning without Forgetting)",
    )
    encoder_weight_decay: float | None = Field(None, ge=0, description="of the encoder; null: weight_decay")
    precision: Literal["f32", "tf32", "bf16"] = Field(
        "f32", description="tf32: f32 with products of shorter mantissas on a GPU; on a CPU it is f32"
    )
    compile: bool = Field(
        False,
        description="let torch.compile fuse the layers: minutes at the start, then shorter steps on a GPU",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if any")
    memory_gb: float = Field(
        4.0, ge=0, description="pictures of more than this stay on disk and are read for each batch [GB]"
    )
    seed: int = Field(0, ge=0, description="seed of the weights, the batches and the noise")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints to resume from")
    log_every: int = Field(20, ge=1, description="steps between reports of the loss")

    @model_validator(mode="after")
    def _has_a_length(self) -> TrainConfig:
        if self.steps is None and self.epochs is None:
            raise ValueError("neither steps nor epochs is given: set one")
        return self

    @model_validator(mode="after")
    def _has_whole_runs(self) -> TrainConfig:
        if self.batch_size % self.run_length:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of run_length {self.run_length}"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs that were begun before these settings existed are resumed with the same settings."""
        unused = self.unused
        return {
            key: value
            for key, value in dump(self).items()
            if key not in unused or getattr(self, key) != unused[key]
        }

    @property
    def runs_per_batch(self) -> int:
        return self.batch_size // self.run_length
