"""Training windows: T_o frames and the chunk of T_p actions to predict from them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import (
    OPEN_TO_CLOSED,
    OPENING,
    POSITION,
    encode_positions,
    join,
    least_ranges,
    widen,
)
from dp_ros.data.episodes import Dataset, DatasetError
from dp_ros.data.stream import StreamedPictures
from dp_ros.schema import ActionConfig, EncoderConfig, Horizons

Images = tuple[NDArray[np.uint8], ...]  # one array for each camera, in the order of the config


class PictureStore(Protocol):
    """Pictures of one camera that are not one array in memory: on disk, or on a GPU."""

    shape: tuple[int, ...]  # (N, H, W, 3)

    def crops(self, ticks: NDArray[np.int64], corners: NDArray[np.int64], size: tuple[int, int]) -> Any:
        """ticks (n,), corners (n, 2): top and left of each crop; size (height, width) -> uint8 (n, height, width, 3),
        an array, or a tensor where the pictures are on a GPU."""


@dataclass(frozen=True)
class Batch:
    """B windows and their pictures. A run is a sequence of windows that share one random crop."""

    images: Images  # V of (B, T_o, H, W, 3), or V of (F, H, W, 3) where windows share frames
    frames: NDArray[np.int64] | None  # (B, T_o): index into the F images for each frame of a window
    run: NDArray[np.int64]  # (B,) or (F,): the run of each of `images`
    state: NDArray[np.float32]  # (B, T_o, STATE_DIM)
    actions: NDArray[np.float32]  # (B, T_p, ACTION_DIM)


class Windows:
    """One window for each tick, with its newest frame at that tick.

    Frames before an episode repeat its first frame; actions outside it hold, as in the paper.
    """

    def __init__(
        self, dataset: Dataset, horizons: Horizons, action: ActionConfig, encoder: EncoderConfig
    ) -> None:
        for camera in encoder.cameras:
            if camera not in dataset.images:
                raise DatasetError(
                    f"the dataset has no camera '{camera}'; it has {', '.join(dataset.images)}"
                )
        self._pixels: Sequence[Any] = [dataset.images[camera] for camera in encoder.cameras]
        self._position_kind = action.position
        self._crops = [encoder.crop(camera) for camera in encoder.cameras]
        for camera, pixels in zip(encoder.cameras, self._pixels, strict=True):
            target, (height, width) = encoder.target(camera), pixels.shape[1:3]
            if target.size != (height, width):
                raise DatasetError(
                    f"camera '{camera}' was recorded at {width}x{height} px but the policy takes "
                    f"{target.width_px}x{target.height_px}: collect or convert at that size, or change policy.encoder, "
                    f"for this camera alone policy.encoder.pictures.{camera}"
                )
        self.episode_ends = dataset.episode_ends
        self.tasks, self.task_of_episode = dataset.tasks, dataset.task_of_episode
        starts = np.concatenate([[0], dataset.episode_ends[:-1]])
        lengths = dataset.episode_ends - starts
        self.task: NDArray[np.int64] = np.repeat(self.task_of_episode, lengths)  # (N,) of each window
        now = np.arange(len(dataset))
        first = np.repeat(starts, lengths)[:, None]
        last = np.repeat(dataset.episode_ends - 1, lengths)[:, None]

        oldest = now[:, None] - (horizons.T_o - 1)
        self.frames: NDArray[np.int64] = np.maximum(oldest + np.arange(horizons.T_o), first)
        self.state = join(dataset.ee_pose, dataset.gripper)[self.frames]

        ticks = oldest + np.arange(horizons.T_p)
        padded = (ticks < first) | (ticks > last)
        ticks = np.clip(ticks, first, last)
        # Before an episode's first tick, the measured position counts as the previous command. In a correction the arm
        # moves already, and the two are up to 11 cm apart.
        later = horizons.T_o if action.position == "delta" else max(1, horizons.T_o - 1)
        # (N,): False where a label is a step from a command that was not recorded
        self.trainable: NDArray[np.bool_] = ~np.repeat(dataset.is_correction, lengths) | (
            now - first[:, 0] >= later
        )
        previous = np.where(
            (ticks == first)[..., None], dataset.ee_pose[ticks], POSITION.of(dataset.command)[ticks - 1]
        )

        def encoded(actions: NDArray[np.float64]) -> NDArray[np.float32]:
            actions[..., POSITION.slice] = encode_positions(
                POSITION.of(actions), previous, padded, horizons, action.position
            )
            return actions.astype(np.float32)

        self.actions = encoded(dataset.action[ticks])
        self.executed = encoded(
            dataset.command[ticks]
        )  # in place of the labels: with the noise, if any was injected

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def streamed(self) -> bool:
        """Whether pictures are read from disk for each batch."""
        return any(isinstance(pixels, StreamedPictures) for pixels in self._pixels)

    @property
    def stores(self) -> Sequence[NDArray[np.uint8] | PictureStore]:
        """Pictures of each camera, uncropped: (N, H, W, 3)."""
        return self._pixels

    def with_stores(self, stores: Sequence[PictureStore]) -> Windows:
        """The same windows of pictures that are kept elsewhere."""
        moved = copy.copy(self)
        moved._pixels = stores
        return moved

    def stats(self, rows: NDArray[np.int64] | None = None) -> dict[str, dict[str, list[float]]]:
        """Per-dimension limits of actions and state, for the normaliser; over the windows `rows`, or over all.

        A dimension that varied less than its least range gets that range, about the middle of its values.
        """
        chosen = slice(None) if rows is None else rows
        limits = {}
        for name, values, least in (
            ("action", self.actions[chosen], least_ranges(self._position_kind, OPEN_TO_CLOSED)),
            ("state", self.state[chosen], least_ranges("absolute", OPENING)),
        ):
            flat = values.reshape(-1, values.shape[-1])
            low, high = widen(flat.min(0), flat.max(0), least)
            limits[name] = {"low": low.tolist(), "high": high.tolist()}
        return limits

    def batch(
        self, rows: NDArray[np.int64], rng: np.random.Generator, part: slice = slice(None)
    ) -> tuple[Images, NDArray[np.float32], NDArray[np.float32]]:
        """images uint8, V of (B, T_o, H, W, 3), cropped at random; state (B, T_o, STATE_DIM); actions (B, T_p,
        ACTION_DIM).

        The frames of a window share their crop, so that motion between them is preserved. Only `part` of the rows is
        returned. Crops are drawn for all rows, so that the parts of several processes make up the same batch.
        """
        corners, rows = self._corners(len(rows), rng)[part], rows[part]
        return self._images(rows, corners), self.state[rows].astype(np.float32), self.actions[rows]

    def batch_of_runs(
        self, runs: NDArray[np.int64], rng: np.random.Generator, part: slice = slice(None)
    ) -> Batch:
        """runs (R, n): each row is n windows whose frames overlap. Each frame occurs once, with the crop of its run."""
        corners, runs = self._corners(len(runs), rng)[part], runs[part]
        ticks, index = zip(*(np.unique(self.frames[rows], return_inverse=True) for rows in runs), strict=True)
        counts = [len(each) for each in ticks]
        first = np.cumsum([0, *counts[:-1]])
        run = np.repeat(np.arange(len(runs)), counts)
        flat = runs.ravel()
        return Batch(
            images=self._pictures(np.concatenate(ticks), corners[run]),
            frames=np.concatenate(
                [start + i.reshape(runs.shape[1], -1) for start, i in zip(first, index, strict=True)]
            ),
            run=run,
            state=self.state[flat].astype(np.float32),
            actions=self.actions[flat],
        )

    def centred(self, rows: NDArray[np.int64]) -> tuple[Images, NDArray[np.float32], NDArray[np.float32]]:
        """As `batch`, cropped in the middle, as the running policy crops."""
        images = self._images(rows, self._middle(len(rows)))
        return images, self.state[rows].astype(np.float32), self.actions[rows]

    def pictures(self, ticks: NDArray[np.int64]) -> Images:
        """V of (N, H, W, 3): the pictures of the ticks, cropped in the middle."""
        return self._pictures(ticks, self._middle(len(ticks)))

    def _middle(self, n: int) -> NDArray[np.int64]:
        """Top left corners of n crops in the middle of each camera's picture: (n, V, 2)."""
        middle = [
            ((pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2)
            for pixels, (height, width) in zip(self._pixels, self._crops, strict=True)
        ]
        return np.broadcast_to(np.array(middle), (n, len(middle), 2))

    def _corners(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Top left corners of n random crops in each camera's picture: (n, V, 2)."""
        corners = np.empty((n, len(self._pixels), 2), dtype=np.int64)
        for view, (pixels, (height, width)) in enumerate(zip(self._pixels, self._crops, strict=True)):
            corners[:, view, 0] = rng.integers(0, pixels.shape[1] - height + 1, n)
            corners[:, view, 1] = rng.integers(0, pixels.shape[2] - width + 1, n)
        return corners

    def _images(self, rows: NDArray[np.int64], corners: NDArray[np.int64]) -> Images:
        """V of (B, T_o, H, W, 3)."""
        frames = self.frames[rows]
        pictures = self._pictures(frames.ravel(), corners.repeat(frames.shape[1], axis=0))
        return tuple(each.reshape(*frames.shape, *each.shape[1:]) for each in pictures)

    def _pictures(self, ticks: NDArray[np.int64], corners: NDArray[np.int64]) -> Images:
        """V of (N, H, W, 3). Each pixel is copied once, from the dataset into the batch."""
        pictures = []
        for view, (pixels, (height, width)) in enumerate(zip(self._pixels, self._crops, strict=True)):
            if not isinstance(pixels, np.ndarray):
                pictures.append(pixels.crops(ticks, corners[:, view], (height, width)))
                continue
            cropped = np.empty((len(ticks), height, width, 3), dtype=np.uint8)
            for i, (tick, (top, left)) in enumerate(zip(ticks, corners[:, view], strict=True)):
                cropped[i] = pixels[tick, top : top + height, left : left + width]
            pictures.append(cropped)
        return tuple(pictures)
