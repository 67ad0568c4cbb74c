"""Batches that a student learns from: windows, first noises, and the teacher's chunks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dp_ros.data.windows import Windows
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.sampler import SamplerStep
from dp_ros.schema import DistillConfig
from dp_ros.train.batches import Batches, TensorBatch, augment, image_tensors, put
from dp_ros.train.device import computes_bf16

_AT_ONCE = 128  # pictures encoded, chunks sampled


class Teacher:
    """A policy that is asked for chunks."""

    def __init__(self, policy: DiffusionPolicy, steps: Sequence[SamplerStep], precision: str) -> None:
        """`steps`: of its sampler, without added noise. `precision`: that of a TrainConfig."""
        self.policy, self._steps = policy.eval().requires_grad_(False), steps
        self._is_bf16 = computes_bf16(self.device, precision)

    @property
    def device(self) -> torch.device:
        return next(self.policy.parameters()).device

    @contextmanager
    def computing(self) -> Iterator[None]:
        """No gradients, in the precision of the training."""
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._is_bf16):
            yield

    def features(self, images: Sequence[Tensor]) -> list[Tensor]:
        """images V of (F, 3, H, W) -> V of (F, feature_dim) in f32."""
        encode = self.policy.encoder.encode_camera
        with self.computing():
            return [
                torch.cat([encode(view, part).float() for part in of_view.split(_AT_ONCE)])
                for view, of_view in enumerate(images)
            ]

    def chunks(self, images: Sequence[Tensor], state: Tensor, noise: Tensor) -> Tensor:
        """images or features as in `DiffusionPolicy.encode`, first noise (B, T_p, D) -> actions (B, T_p, D)."""
        rows = range(0, len(noise), _AT_ONCE)
        with self.computing():
            plans = [
                self.policy.plan_from(
                    [of_view[i : i + _AT_ONCE] for of_view in images],
                    state[i : i + _AT_ONCE],
                    lambda i=i: noise[i : i + _AT_ONCE],  # type: ignore[misc]
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


class KeptLessons(Batches):
    """Batches of a student with its teacher's encoder: all is computed once, before the first step.

    `images` are features, V of (B, T_o, feature_dim). All windows are seen `views` times: each time every episode has
    another crop and augmentation, and every window another first noise. A window draws one of the views in each step.
    """

    def __init__(
        self,
        config: DistillConfig,
        windows: Windows,
        rows: NDArray[np.int64],
        part: tuple[int, int] = (0, 1),
        *,
        teacher: Teacher,
        on_planned: Callable[[int, int], None] | None = None,
    ) -> None:
        """`on_planned(done, all)` is called after each episode of each view."""
        super().__init__(config, windows, rows, part)
        self._views, self._teacher, self._on_planned = config.views, teacher, on_planned
        self._kept: list[
            Tensor
        ] = []  # of each camera (views, ticks, feature_dim); noise and chunks of all windows

    def prepare(self, device: torch.device) -> None:
        """Encode the episodes and let the teacher plan for each window."""
        if self._kept:
            return
        ends = self._windows.episode_ends
        starts = np.concatenate([[0], ends[:-1]])
        used = np.unique(np.searchsorted(ends, self._rows, side="right"))
        parts: list[list[Tensor]] = []
        for view in range(self._views):
            for done, episode in enumerate(used, view * len(used) + 1):
                parts.append(self._lesson(np.arange(starts[episode], ends[episode]), view, int(episode)))
                if self._on_planned:
                    self._on_planned(done, self._views * len(used))
        self._tick = np.full(len(self._windows), -1)  # in the kept tensors
        rows = np.concatenate([np.arange(starts[episode], ends[episode]) for episode in used])
        self._tick[rows] = np.arange(len(rows))
        self._kept = [torch.cat(each).unflatten(0, (self._views, -1)) for each in zip(*parts, strict=True)]

    def _lesson(self, run: NDArray[np.int64], view: int, episode: int) -> list[Tensor]:
        """Of one episode, its windows `run`: features of each camera, first noises, chunks."""
        config, device, draw = self._config, self._teacher.device, (view, episode)
        batch = self._windows.batch_of_runs(run[None], np.random.default_rng([config.seed, 6, *draw]))
        features = self._teacher.features(image_tensors(batch, augment(config, batch, 1, draw), device))
        rng = np.random.default_rng([config.seed, 7, *draw])
        noise = put(rng.standard_normal(batch.actions.shape, dtype=np.float32), device)
        assert batch.frames is not None
        frames, state = put(batch.frames, device), put(batch.state, device)
        chunks = self._teacher.chunks([each[frames] for each in features], state, noise)
        return [*features, noise, chunks]

    def tensors(self, step: int, device: torch.device) -> TensorBatch:
        """Features and state of the step's windows, first noises, and the teacher's chunks as actions."""
        runs = self.runs(step)
        views = np.random.default_rng([self._config.seed, 1, step]).integers(self._views, size=runs.shape)
        rows, views = runs[self._part].ravel(), views[self._part].ravel()
        *features, noise, chunks = self._kept
        tick, view = put(self._tick[rows], device), put(views, device)
        frames = put(self._tick[self._windows.frames[rows]], device)
        state = put(self._windows.state[rows].astype(np.float32), device)
        images = tuple(each[view[:, None], frames] for each in features)
        return TensorBatch(images, state, chunks[view, tick], None, noise=noise[view, tick])
