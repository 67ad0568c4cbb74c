"""Batches of a policy whose encoder is not trained: pictures are encoded once, before the first step.

A step then takes the network's own time, which is a small part of the whole on a CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dp_ros.data.windows import Windows
from dp_ros.policy.diffusion_policy import DiffusionPolicy, Relabel
from dp_ros.policy.instructions import Instructions
from dp_ros.schema import TrainConfig
from dp_ros.train.batches import Batches, TensorBatch, augment, image_tensors, put
from dp_ros.train.device import computes_bf16

AT_ONCE = 128  # pictures encoded, chunks sampled

OnEncoded = Callable[[int, int], None]


class FrozenPolicy:
    """A policy that is not trained, to encode pictures with."""

    def __init__(self, policy: DiffusionPolicy, precision: str) -> None:
        """`precision`: that of a TrainConfig."""
        self.policy = policy.eval().requires_grad_(False)
        self._is_bf16 = computes_bf16(self.device, precision)

    @property
    def device(self) -> torch.device:
        return next(self.policy.parameters()).device

    @contextmanager
    def computing(self) -> Iterator[None]:
        """No gradients, in the precision of the training."""
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._is_bf16):
            yield

    def features(self, images: Sequence[Tensor], instruction: Tensor | None = None) -> list[Tensor]:
        """images V of (F, 3, H, W), all told the same instruction (embedding_dim,) -> V of (F, feature_dim) in f32."""
        encoder = self.policy.encoder
        with self.computing():
            told = encoder.tell(None if instruction is None else instruction[None])

            of_pictures = None if told is None else told.expand(len(images[0]), -1)
            return [
                encoder.encode_camera(view, of_view, of_pictures).float()
                for view, of_view in enumerate(images)
            ]

    def relabel(
        self, kept: Tensor, samples: int, noisy: Tensor, k: Tensor, obs: Tensor, wanted: Tensor
    ) -> Tensor:
        """`Relabel`: where a window is `kept` (B,), what this policy predicts. samples: `noise_samples` of the loss."""
        (rows,) = torch.where(kept.repeat_interleave(samples))
        with self.computing():
            predicted = self.policy.network(noisy[rows], k[rows], obs[rows]).float()
        return wanted.index_copy(0, rows, predicted)


@dataclass(frozen=True)
class Drawn:
    """Windows of a step, and for each a view of its episode."""

    rows: NDArray[np.int64]  # (B,)
    views: NDArray[np.int64]  # (B,)
    ticks: NDArray[np.int64]  # (B,) of `rows` in the kept tensors
    features: tuple[Tensor, ...]  # of each camera, (B, T_o, feature_dim)
    state: NDArray[np.float32]  # (B, T_o, STATE_DIM)


class KeptBatches(Batches, ABC):
    """Batches that compute once, for each of the `views` of an episode, all that depends on its pictures.

    A view has one crop and one augmentation for all pictures of its episode. In each step a window draws one of them.
    """

    def __init__(
        self,
        config: TrainConfig,
        windows: Windows,
        rows: NDArray[np.int64],
        part: tuple[int, int] = (0, 1),
        instructions: Instructions | None = None,
        *,
        frozen: FrozenPolicy,
        on_encoded: OnEncoded | None = None,
    ) -> None:
        """`on_encoded(done, all)` is called after each episode of each view."""
        super().__init__(config, windows, rows, part, instructions)
        self._frozen, self._on_encoded = frozen, on_encoded
        self._kept: list[Tensor] = []  # (views, ticks, ...), as `_compute` gives them

    def prepare(self, device: torch.device) -> None:
        """Encode the episodes."""
        if self._kept:
            return
        ends, views = self._windows.episode_ends, self._config.views
        runs = np.split(np.arange(ends[-1]), ends[:-1])
        episodes = np.unique(np.searchsorted(ends, self._rows, side="right"))
        parts: list[list[Tensor]] = []
        for view in range(views):
            for done, episode in enumerate(episodes, view * len(episodes) + 1):
                parts.append(self._compute(runs[episode], view, int(episode)))
                if self._on_encoded:
                    self._on_encoded(done, views * len(episodes))
        self._tick = np.full(len(self._windows), -1)  # in the kept tensors
        rows = np.concatenate([runs[episode] for episode in episodes])
        self._tick[rows] = np.arange(len(rows))
        self._kept = [torch.cat(each).unflatten(0, (views, -1)) for each in zip(*parts, strict=True)]

    @abstractmethod
    def _compute(self, run: NDArray[np.int64], view: int, episode: int) -> list[Tensor]:
        """Of one episode, its windows `run`: features of each camera (n, feature_dim), then what else is kept."""

    def _features(
        self, run: NDArray[np.int64], view: int, episode: int, instruction: Tensor | None = None
    ) -> list[Tensor]:
        """V of (n, feature_dim): of the ticks `run` of an episode, with the crop and the augmentation of the view."""
        config, draw, parts = self._config, (view, episode), []
        for start in range(0, len(run), AT_ONCE):  # a long episode does not fit in memory as f32
            part = run[None, start : start + AT_ONCE]
            batch = self._windows.batch_of_runs(part, np.random.default_rng([config.seed, 6, *draw]))
            images = image_tensors(batch, augment(config, batch, 1, draw), self._frozen.device)
            own = [of_view[-part.size :] for of_view in images]  # without the frames before the first window
            parts.append(self._frozen.features(own, instruction))
        return [torch.cat(each) for each in zip(*parts, strict=True)]

    def _drawn(self, step: int, device: torch.device) -> Drawn:
        """This process's windows of a step."""
        runs = self.runs(step)
        views = np.random.default_rng([self._config.seed, 1, step]).integers(
            self._config.views, size=runs.shape
        )
        rows, views = runs[self._part].ravel(), views[self._part].ravel()
        frames = put(self._tick[self._windows.frames[rows]], device)
        of_view = put(views, device)[:, None]
        cameras = len(self._config.policy.encoder.cameras)
        features = tuple(each[of_view, frames] for each in self._kept[:cameras])
        state = self._windows.state[rows].astype(np.float32)
        return Drawn(rows, views, self._tick[rows], features, state)


class KeptFeatures(KeptBatches):
    """Batches of demonstrations. In each of its views an episode is told one sentence.

    On windows of `kept_tasks`, the network learns what the frozen policy predicts, not what the demonstration shows
    (Learning without Forgetting, Li & Hoiem 2016).
    """

    def prepare(self, device: torch.device) -> None:
        """Draw the sentences, and encode the episodes."""
        if self._sentences is not None and not self._kept:
            ends, tasks = self._windows.episode_ends, self._windows.task_of_episode[:, None]
            self._episode = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))  # of each window
            rngs = [np.random.default_rng([self._config.seed, 8, view]) for view in range(self._config.views)]
            told, is_wrong = zip(*(self._told(self._sentences, tasks, rng) for rng in rngs), strict=True)
            self._embeddings, self._is_wrong = np.stack(told), np.stack(is_wrong)  # (views, episodes, ...)
        super().prepare(device)

    def _compute(self, run: NDArray[np.int64], view: int, episode: int) -> list[Tensor]:
        told = None
        if self._sentences is not None:
            told = put(self._embeddings[view, episode], self._frozen.device)
        return self._features(run, view, episode, told)

    def tensors(self, step: int, device: torch.device) -> TensorBatch:
        """Features, state and labels of the step's windows."""
        drawn = self._drawn(step, device)
        rows, state, actions = drawn.rows, drawn.state, self._windows.actions[drawn.rows]
        told = None
        if self._sentences is not None:
            of = drawn.views, self._episode[rows]
            told = put(self._embeddings[of], device)
            actions = self._held_where(self._is_wrong[of], actions, state)
        return TensorBatch(
            drawn.features,
            put(state, device),
            put(actions, device),
            None,
            self._executed(rows, device),
            instruction=told,
            relabel=self._relabel(rows, device),
        )

    def _relabel(self, rows: NDArray[np.int64], device: torch.device) -> Relabel | None:
        config, windows = self._config, self._windows
        kept = np.isin(windows.task[rows], [windows.tasks.index(task) for task in config.kept_tasks])
        return partial(self._frozen.relabel, put(kept, device), config.noise_samples) if kept.any() else None
