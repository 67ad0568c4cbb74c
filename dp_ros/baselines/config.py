"""The methods that Diffusion Policy argues with, and how they are compared."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dp_ros.schema.base import Config
from dp_ros.schema.policy import DiffusionConfig, UNetConfig
from dp_ros.schema.training import OptimizerConfig

Method = Literal["diffusion", "regression", "mixture", "implicit"]
METHODS: tuple[Method, ...] = ("diffusion", "regression", "mixture", "implicit")


class MixtureConfig(Config):
    """Mixture density network (Bishop 1994): Gaussians over the whole chunk."""

    components: int = Field(5, ge=1, le=64)
    min_std: float = Field(
        0.02,
        gt=0,
        description="smallest standard deviation, normalised; a likelihood has no bound without one",
    )
    sample_noise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the standard deviation that is sampled; 0: the drawn component's mean",
    )


class ImplicitConfig(Config):
    """Implicit behavioural cloning (Florence et al. 2021): energies of whole chunks, searched when planning."""

    negatives: int = Field(64, ge=1, description="counter-examples for each window")
    searched: float = Field(
        0.75, ge=0, le=1, description="share of them that the search finds; 0: all uniform, as in the paper"
    )
    training_rounds: int = Field(4, ge=1, description="rounds of that search")
    candidates: int = Field(512, ge=2, description="chunks the search keeps when planning")
    iterations: int = Field(20, ge=1, description="rounds of resampling when planning")
    noise_std: float = Field(0.33, gt=0, description="noise added in the first round, normalised")
    last_noise_std: float = Field(0.005, gt=0, description="and in the last")
    margin: float = Field(0.05, ge=0, description="how far beyond [-1, 1] chunks are drawn")


class HeadsConfig(Config):
    """The baselines' networks. Their width follows: as many weights as the U-Net they are compared with."""

    blocks: int = Field(3, ge=1, le=32, description="residual blocks of the MLP")
    mixture: MixtureConfig = MixtureConfig()
    implicit: ImplicitConfig = ImplicitConfig()


class BimodalToyConfig(OptimizerConfig):
    """A toy with two right answers: round a disc to a goal, to the left or to the right."""

    T_p: int = Field(8, ge=4, le=64, description="points of a path; a chunk is the whole path")
    demonstrations: int = Field(10_000, ge=2, multiple_of=2, description="half of them to the left")
    obstacle_radius_m: float = Field(0.3, gt=0)
    clearance_m: tuple[float, float] = Field((0.15, 0.35), description="least and most, beside the disc")
    tremor_m: float = Field(0.005, ge=0, description="standard deviation of each point")
    goal_radius_m: float = Field(0.1, gt=0, description="how near the goal a path must end")
    data_seed: int = Field(0, ge=0)

    unet: UNetConfig = UNetConfig(channels=(16, 32), groups=4, kernel_size=5, step_embedding_dim=32)
    diffusion: DiffusionConfig = DiffusionConfig(iterations=50, sampler="ddpm", sampler_iterations=50)
    heads: HeadsConfig = HeadsConfig()

    steps: int = Field(1500, ge=1)
    batch_size: int = Field(32, ge=1)
    noise_samples: int = Field(4, ge=1, description="diffusion targets drawn per window")
    lr: float = Field(1e-3, gt=0)
    warmup_steps: int = Field(100, ge=0)
    ema_max: float = Field(0.999, gt=0, lt=1)
    evaluations: int = Field(10, ge=1, description="points of training at which samples are judged")
    observations: int = Field(16, ge=1, description="start and goal pairs that were not trained on")
    samples: int = Field(4, ge=2, description="paths sampled for each, during training")
    final_samples: int = Field(32, ge=2, description="the same, at the end")

    @property
    def evaluation_steps(self) -> list[int]:
        """The steps after which samples are judged, evenly spaced; the last is the end."""
        return sorted({round(self.steps * (i + 1) / self.evaluations) for i in range(self.evaluations)} - {0})

    @model_validator(mode="after")
    def _clearance_is_a_range(self) -> BimodalToyConfig:
        low, high = self.clearance_m
        if not 0 < low <= high:
            raise ValueError(f"clearance_m {low} to {high} is not a range above zero")
        return self

    @model_validator(mode="after")
    def _batch_fits(self) -> BimodalToyConfig:
        if self.batch_size > self.demonstrations:
            raise ValueError(
                f"batch_size {self.batch_size} exceeds the {self.demonstrations} demonstrations: lower it"
            )
        return self


class ArmConfig(Config):
    """The same methods on a simulated arm; everything else is a TrainConfig's."""

    seeds: int = Field(1, ge=1, description="trainings of each method, one seed each")
    evaluations: int = Field(5, ge=1, description="points of training at which episodes are run")
    episodes: int = Field(20, ge=1, description="episodes at each, the same for all")
    first_seed: int = Field(0, ge=0, description="seed of the first episode")
    max_steps: int = Field(200, ge=1, le=500, description="time limit of an episode [ticks]")
    # Thousands of plans of a large network: a shorter search than the toy's.
    heads: HeadsConfig = HeadsConfig(
        implicit=ImplicitConfig(negatives=32, training_rounds=2, candidates=128, iterations=8)
    )


class ComparisonConfig(Config):
    """What `dp_ros baselines` compares."""

    methods: tuple[Method, ...] = Field(METHODS, min_length=1)
    seeds: int = Field(3, ge=1, description="trainings of each method on the toy, one seed each")
    toy: BimodalToyConfig = BimodalToyConfig()
    arm: ArmConfig = ArmConfig()
