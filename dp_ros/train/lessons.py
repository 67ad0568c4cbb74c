"""Batches that a student learns from: windows, first noises, and the teacher's chunks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dp_ros.data.windows import Windows
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.sampler import SamplerStep
from dp_ros.schema import DistillConfig
from dp_ros.train.batches import Batches, TensorBatch, put
from dp_ros.train.kept_features import AT_ONCE, FrozenPolicy, KeptBatches


class Teacher(FrozenPolicy):
    """A policy that is asked for chunks."""

    def __init__(self, policy: DiffusionPolicy, steps: Sequence[SamplerStep], precision: str) -> None:
        """`steps`: of its sampler, without added noise. `precision`: that of a TrainConfig."""
        super().__init__(policy, precision)
        self._steps = steps

    def chunks(self, images: Sequence[Tensor], state: Tensor, noise: Tensor) -> Tensor:
        """images or features as in `DiffusionPolicy.encode`, first noise (B, T_p, D) -> actions (B, T_p, D)."""
        rows = range(0, len(noise), AT_ONCE)
        with self.computing():
            plans = [
                self.policy.plan_from(
                    [of_view[i : i + AT_ONCE] for of_view in images],
                    state[i : i + AT_ONCE],
                    lambda i=i: noise[i : i + AT_ONCE],  # type: ignore[misc]
                    self._steps,
                )
                for i in rows
            ]
        return torch.cat(plans).float()


class Lessons(Batches):
    """Batches of a student that is trained with its encoder: the teacher plans for the pictures of each step."""

    def __init__(
        self,
        config: DistillConfig,
        windows: Windows,
        rows: NDArray[np.int64],
        part: tuple[int, int] = (0, 1),
        *,
        teacher: Teacher,
    ) -> None:
        super().__init__(config, windows, rows, part)
        self._teacher = teacher

    def tensors(self, step: int, device: torch.device) -> TensorBatch:
        """Pictures and state of the step's windows, first noises, and the teacher's chunks as actions."""
        batch = super().tensors(step, device)
        noise = self._noise(step, len(batch.actions), device)
        chunks = self._teacher.chunks(batch.images, batch.state, noise)
        return replace(batch, actions=chunks, noise=noise)

    def _noise(self, step: int, count: int, device: torch.device) -> Tensor:
        rng = np.random.default_rng([self._config.seed, 6, step, self._part.start])
        shape = count, *self._windows.actions.shape[1:]
        return put(rng.standard_normal(shape, dtype=np.float32), device)


class KeptLessons(KeptBatches):
    """Batches of a student with its teacher's encoder. The teacher plans for all windows before the first step: in each
    view of its episode, a window has another first noise."""

    _frozen: Teacher

    def _compute(self, run: NDArray[np.int64], view: int, episode: int) -> list[Tensor]:
        """Of one episode, its windows `run`: features of each camera, first noises, chunks."""
        features, device, windows = self._features(run, view, episode), self._frozen.device, self._windows
        rng = np.random.default_rng([self._config.seed, 7, view, episode])
        noise = put(rng.standard_normal((len(run), *windows.actions.shape[1:]), dtype=np.float32), device)
        frames, state = (
            put(windows.frames[run] - run[0], device),
            put(windows.state[run].astype(np.float32), device),
        )
        chunks = self._frozen.chunks([each[frames] for each in features], state, noise)
        return [*features, noise, chunks]

    def tensors(self, step: int, device: torch.device) -> TensorBatch:
        """Features and state of the step's windows, first noises, and the teacher's chunks as actions."""
        drawn = self._drawn(step, device)
        noise, chunks = self._kept[-2:]
        of = put(drawn.views, device), put(drawn.ticks, device)
        return TensorBatch(drawn.features, put(drawn.state, device), chunks[of], None, noise=noise[of])
