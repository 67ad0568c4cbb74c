"""Settings of the compared methods, of the toy, of the arm, and of a whole comparison."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from dp_ros.schema.base import Config
from dp_ros.schema.policy import DiffusionConfig, UNetConfig
from dp_ros.schema.training import OptimizerConfig

Method = Literal["diffusion", "regression", "mixture", "implicit"]
METHODS: tuple[Method, ...] = get_args(Method)


class MixtureConfig(Config):
    """Mixture density network (Bishop 1994): Gaussians over the whole chunk."""

    components: int = Field(5, ge=1, le=64, description="Gaussians")
    min_std: float = Field(
        0.02,
        gt=0,
        description="smallest standard deviation, normalised; without it the likelihood is unbounded",
    )
    sample_noise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="factor on the noise of a sample; 0: the mean of the drawn component",
    )


class ImplicitConfig(Config):
    """Implicit behavioural cloning (Florence et al. 2021): an energy of whole chunks; planning searches its minimum."""

    negatives: int = Field(64, ge=1, description="counter-examples for each window")
    searched: float = Field(
        0.75, ge=0, le=1, description="share of them taken from the search; 0: all uniform, as in the paper"
    )
    training_rounds: int = Field(4, ge=1, description="rounds of the search in training")
    candidates: int = Field(512, ge=2, description="chunks the search keeps when planning")
    iterations: int = Field(20, ge=1, description="rounds of resampling when planning")
    noise_std: float = Field(0.33, gt=0, description="noise added in the first round, normalised")
    last_noise_std: float = Field(0.005, gt=0, description="noise added in the last round, normalised")
    margin: float = Field(0.05, ge=0, description="distance outside [-1, 1] at which chunks are clipped")


class HeadsConfig(Config):
    """Networks of the baselines. Their width is chosen to give as many weights as the U-Net has."""

    blocks: int = Field(3, ge=1, le=32, description="residual blocks of the MLP")
    mixture: MixtureConfig = MixtureConfig()
    implicit: ImplicitConfig = ImplicitConfig()


class BimodalToyConfig(OptimizerConfig):
    """The bimodal toy: a path from a start to a goal that passes a disc on its left or on its right."""

    T_p: int = Field(8, ge=4, le=64, description="points of a path; a chunk is the whole path")
    demonstrations: int = Field(10_000, ge=2, multiple_of=2, description="half of them pass on the left")
    obstacle_radius_m: float = Field(0.3, gt=0, description="radius of the disc")
    clearance_m: tuple[float, float] = Field(
        (0.15, 0.35), description="least and largest distance from the disc"
    )
    tremor_m: float = Field(0.005, ge=0, description="standard deviation of the noise on each point")
    goal_radius_m: float = Field(
        0.1, gt=0, description="largest distance from the goal at which a path may end"
    )
    data_seed: int = Field(0, ge=0, description="seed of the demonstrations")

    unet: UNetConfig = UNetConfig(channels=(16, 32), groups=4, kernel_size=5, step_embedding_dim=32)
    diffusion: DiffusionConfig = DiffusionConfig(iterations=50, sampler="ddpm", sampler_iterations=50)
    heads: HeadsConfig = HeadsConfig()

    steps: int = Field(1500, ge=1, description="optimiser steps")
    batch_size: int = Field(32, ge=1, description="windows per step")
    noise_samples: int = Field(4, ge=1, description="diffusion targets drawn per window")
    lr: float = Field(
        1e-3, gt=0, description="learning rate after the warm-up; then it falls to 0 as a cosine"
    )
    warmup_steps: int = Field(100, ge=0, description="steps in which the learning rate rises to lr")
    ema_max: float = Field(0.999, gt=0, lt=1, description="largest EMA decay")
    evaluations: int = Field(10, ge=1, description="evaluations of samples during training")
    observations: int = Field(
        16, ge=1, description="start and goal pairs to evaluate on; none was trained on"
    )
    samples: int = Field(4, ge=2, description="paths sampled for each pair, before the last evaluation")
    final_samples: int = Field(32, ge=2, description="paths sampled for each pair, in the last evaluation")

    @property
    def evaluation_steps(self) -> list[int]:
        """Steps after which samples are evaluated: evenly spaced, the last at the end of training."""
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
    """The methods on a simulated arm. Training has its own settings, in a TrainConfig."""

    seeds: int = Field(1, ge=1, description="trainings of each method, one seed each")
    evaluations: int = Field(5, ge=1, description="evaluations during training")
    episodes: int = Field(20, ge=1, description="episodes of each evaluation, with the same seeds")
    first_seed: int = Field(0, ge=0, description="seed of the first episode")
    max_steps: int = Field(200, ge=1, le=500, description="time limit of an episode [ticks]")
    # An evaluation needs thousands of plans of a large network, so the search is shorter than on the toy.
    heads: HeadsConfig = HeadsConfig(
        implicit=ImplicitConfig(negatives=32, training_rounds=2, candidates=128, iterations=8)
    )


class ComparisonConfig(Config):
    """Settings of `dp_ros baselines`."""

    methods: tuple[Method, ...] = Field(METHODS, min_length=1, description="methods to compare")
    seeds: int = Field(3, ge=1, description="trainings of each method on the toy, one seed each")
    toy: BimodalToyConfig = BimodalToyConfig()
    arm: ArmConfig = ArmConfig()
