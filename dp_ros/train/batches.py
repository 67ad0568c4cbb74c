"""Batch of a training step: its windows, their crops and their augmentation, all drawn from (seed, step)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dp_ros.actions import hold
from dp_ros.data.windows import Batch, Windows
from dp_ros.policy.diffusion_policy import Relabel
from dp_ros.policy.instructions import Instructions
from dp_ros.schema import TrainConfig
from dp_ros.train.augmentation import cover, draw_colours, draw_covers, recolour
from dp_ros.train.gpu_pictures import move_pictures
from dp_ros.train.sentences import SentenceDraws


@dataclass(frozen=True)
class TensorBatch:
    """A batch on its device: arguments of `DiffusionPolicy.loss`."""

    # V of (B, T_o, 3, H, W) or (F, 3, H, W), in [0, 1], channels-last in memory; or features, as `encode` takes them
    images: tuple[Tensor, ...]
    state: Tensor
    actions: Tensor
    frames: Tensor | None
    executed: Tensor | None = (
        None  # (B, T_p, D): the actions that the arm executed, for a policy with a `prefix`
    )
    noise: Tensor | None = None  # (B, T_p, D): the first noise that leads to the actions, for a student
    instruction: Tensor | None = None  # (B, embedding_dim), where the policy is told what to do
    relabel: Relabel | None = None  # as `loss` has it


class Batches:
    """Batch of any step."""

    def __init__(
        self,
        config: TrainConfig,
        windows: Windows,
        rows: NDArray[np.int64],
        part: tuple[int, int] = (0, 1),
        instructions: Instructions | None = None,
    ) -> None:
        """`rows`: the windows to train on. `part` (i, n): the i-th of n equal parts of each batch, for n processes.
        instructions: each window gets one of its task's known sentences, drawn at random."""
        self._sentences = SentenceDraws(instructions, windows.tasks) if instructions else None
        self._config, self._windows, self._rows = config, windows, rows
        self._tasks = np.unique(windows.task[rows])
        self.per_epoch = (len(rows) // config.run_length) // config.runs_per_batch
        i, n = part
        share = config.runs_per_batch // n
        self._part = slice(i * share, (i + 1) * share)
        self._epoch: tuple[int, NDArray[np.int64]] | None = None

    def runs(self, step: int) -> NDArray[np.int64]:
        """Windows of this step: (R, run_length).

        An epoch is a permutation of all runs. Each epoch starts the first run at another window. Where there are
        several tasks, each has the same number of runs in an epoch where they are `balanced`: those of a short task
        occur more than once.
        """
        epoch, batch = divmod(step, self.per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            rng = np.random.default_rng([self._config.seed, 0, epoch])
            length = self._config.run_length
            count = len(self._rows) // length
            order = rng.permutation(count)
            # A run may cross from one episode into the next; each window still has frames of its own episode only.
            rows = np.roll(self._rows, -rng.integers(length))
            runs = rows[: count * length].reshape(-1, length)
            if len(self._tasks) > 1 and self._config.balanced:
                order = self._balanced(self._windows.task[runs[:, 0]], rng)
            self._epoch = (epoch, runs[order])
        size = self._config.runs_per_batch
        return self._epoch[1][batch * size : (batch + 1) * size]

    def prepare(self, device: torch.device) -> None:
        """Work that is to be done once before the first step: pictures that fit are copied to a GPU."""
        self._windows = move_pictures(self._windows, self._config, device) or self._windows

    def _balanced(self, task: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """task (R,) of each run -> indices (R,) of runs, in random order, the same number of each task up to one.

        The tasks take turns, so that a batch is balanced, too.
        """
        tasks = [np.flatnonzero(task == each) for each in self._tasks]
        tasks = [tasks[i] for i in rng.permutation(len(tasks)) if len(tasks[i])]
        each = -(-len(task) // len(tasks))
        columns = []
        for own in tasks:
            passes = [rng.permutation(own) for _ in range(-(-each // len(own)))]
            columns.append(np.concatenate(passes)[:each])
        return np.stack(columns, axis=1).ravel()[: len(task)]

    def arrays(self, step: int) -> tuple[Batch, NDArray[np.float32] | None]:
        """The batch as uint8 arrays, and the colour change of each image (None without augmentation)."""
        config, runs = self._config, self.runs(step)
        rng = np.random.default_rng([config.seed, 1, step])
        if config.run_length > 1:
            batch = self._windows.batch_of_runs(runs, rng, self._part)
        else:
            images, state, actions = self._windows.batch(runs[:, 0], rng, part=self._part)
            batch = Batch(images, None, np.arange(len(state)), state, actions)
        return batch, augment(config, batch, len(runs), (step,), self._part)

    def instruction(self, step: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]] | None:
        """Embedding of a sentence for each window of this process's part (B, D), and whether the sentence is of another
        scene (B,). Windows of a run and a task share both. None without instructions.
        """
        if self._sentences is None:
            return None
        rng = np.random.default_rng([self._config.seed, 6, step])
        return self._told(self._sentences, self._windows.task[self.runs(step)], rng, self._part)

    def _told(
        self,
        sentences: SentenceDraws,
        task: NDArray[np.int64],
        rng: np.random.Generator,
        part: slice = slice(None),
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """As `instruction`, for runs whose windows have these tasks (R, run_length); only those of `part`."""
        config, runs, length = self._config, len(task), task.shape[1]
        which = rng.random(runs)
        kind, shares = rng.random((runs, 2)), rng.random((runs, sentences.most))
        which, kind, shares = (np.repeat(draw[part], length, axis=0) for draw in (which, kind, shares))
        task = task[part].ravel()
        is_wrong = (kind[:, 0] < config.mismatched) & sentences.has_elsewhere(task)
        embeddings = np.where(is_wrong[:, None], sentences.elsewhere(task, which), sentences.own(task, which))
        is_mixed = (kind[:, 1] < config.mixed_sentences) & ~is_wrong
        embeddings[is_mixed] = sentences.mixed(task[is_mixed], shares[is_mixed])
        return embeddings, is_wrong

    def tensors(self, step: int, device: torch.device) -> TensorBatch:
        """The batch on `device`, recoloured there."""
        batch, colours = self.arrays(step)
        told, actions = self.instruction(step), batch.actions
        if told is not None:
            actions = self._held_where(told[1], actions, batch.state)
        return TensorBatch(
            image_tensors(batch, colours, device),
            put(batch.state, device),
            put(actions, device),
            None if batch.frames is None else put(batch.frames, device),
            self._executed(self.runs(step)[self._part].ravel(), device),
            instruction=None if told is None else put(told[0], device),
        )

    def _held_where(
        self, is_wrong: NDArray[np.bool_], actions: NDArray[np.float32], state: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Labels (B, T_p, D) of windows, some of which are told to do a task of another scene: those hold."""
        if not is_wrong.any():
            return actions
        policy = self._config.policy
        still = hold(actions, state, policy.horizons, policy.action.position)
        return np.where(is_wrong[:, None, None], still, actions)

    def _executed(self, rows: NDArray[np.int64], device: torch.device) -> Tensor | None:
        if not self._config.policy.diffusion.prefix:
            return None
        return put(self._windows.executed[rows], device)


def augment(
    config: TrainConfig, batch: Batch, runs: int, draw: tuple[int, ...], part: slice = slice(None)
) -> NDArray[np.float32] | None:
    """Cover the pictures of `batch`, in place; the colour change of each is returned (None without augmentation).

    They are drawn from (seed, draw) for all `runs`, of which the batch has `part`.
    """
    sizes = [(pictures.shape[-3], pictures.shape[-2]) for pictures in batch.images]
    if config.augmentation.cover:
        rng = np.random.default_rng([config.seed, 5, *draw])
        covers = draw_covers(config.augmentation.cover, runs, sizes, rng)[part][batch.run]
        for view, pictures in enumerate(batch.images):
            cover(pictures, covers[:, view])
    if not config.augmentation.recolours:
        return None
    rng = np.random.default_rng([config.seed, 4, *draw])
    return draw_colours(config.augmentation, runs, len(sizes), rng)[part][batch.run]


def image_tensors(
    batch: Batch, colours: NDArray[np.float32] | None, device: torch.device
) -> tuple[Tensor, ...]:
    """Pictures of the batch as V of (..., 3, H, W) in [0, 1] on `device`, with the colour changes of `augment`."""
    images = [put(pictures, device).float() / 255.0 for pictures in batch.images]
    if colours is not None:
        change = put(colours, device)
        images = [recolour(of_view, change[:, view]) for view, of_view in enumerate(images)]
    return tuple(of_view.movedim(-1, -3) for of_view in images)  # a view: NHWC in memory is channels-last


def put(array: NDArray[np.generic] | Tensor, device: torch.device) -> Tensor:
    """The array, or a tensor that may be there already, as a tensor on `device`."""
    if isinstance(array, Tensor):
        return array.to(device)
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Prefetch:
    """`make(step)`, computed by a thread one step ahead, so that a GPU does not wait for its batch."""

    def __init__(self, make: Callable[[int], TensorBatch], steps: int) -> None:
        self._make, self._steps = make, steps
        self._thread = ThreadPoolExecutor(1, "batches")
        self._next: tuple[int, Future[TensorBatch]] | None = None

    def __call__(self, step: int) -> TensorBatch:
        expected = self._next is not None and self._next[0] == step
        batch = self._next[1].result() if expected else self._make(step)  # type: ignore[index]
        ahead = step + 1
        self._next = (ahead, self._thread.submit(self._make, ahead)) if ahead < self._steps else None
        return batch

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
