"""Which ticks belong together: windows of T_o frames and the chunks of T_p actions they are trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import encode_positions
from dp_ros.data.episodes import Dataset, DatasetError
from dp_ros.schema import ActionConfig, EncoderConfig, Horizons


class Windows:
    """One window per tick, its newest frame at that tick. Frames before an episode repeat its first one;
    actions outside it hold, as the paper pads."""

    def __init__(
        self, dataset: Dataset, horizons: Horizons, action: ActionConfig, encoder: EncoderConfig
    ) -> None:
        for camera in encoder.cameras:
            if camera not in dataset.images:
                raise DatasetError(
                    f"the dataset has no camera '{camera}'; it has {', '.join(dataset.images)}"
                )
        self._images = [dataset.images[camera] for camera in encoder.cameras]
        self._crop = (encoder.crop_height_px, encoder.crop_width_px)
        for camera, pixels in zip(encoder.cameras, self._images, strict=True):
            if pixels.shape[1:3] != (encoder.height_px, encoder.width_px):
                raise DatasetError(
                    f"camera '{camera}' was recorded at {pixels.shape[2]}x{pixels.shape[1]} px but the policy takes "
                    f"{encoder.width_px}x{encoder.height_px}: collect at that size or change policy.encoder"
                )
        starts = np.concatenate([[0], dataset.episode_ends[:-1]])
        lengths = dataset.episode_ends - starts
        now = np.arange(len(dataset))
        first = np.repeat(starts, lengths)[:, None]
        last = np.repeat(dataset.episode_ends - 1, lengths)[:, None]

        oldest = now[:, None] - (horizons.T_o - 1)
        self.frames: NDArray[np.int64] = np.maximum(oldest + np.arange(horizons.T_o), first)
        self.state = np.concatenate([dataset.ee_pose, dataset.gripper[:, None]], axis=1)[self.frames]

        ticks = oldest + np.arange(horizons.T_p)
        padded = (ticks < first) | (ticks > last)
        ticks = np.clip(ticks, first, last)
        # The command before an episode's first tick is where the arm was measured to be.
        previous = np.where(
            (ticks == first)[..., None], dataset.ee_pose[ticks], dataset.command[ticks - 1, :3]
        )
        position = encode_positions(dataset.action[ticks, :3], previous, padded, horizons, action.position)
        self.actions: NDArray[np.float32] = np.concatenate(
            [position, dataset.action[ticks, 3:]], axis=-1
        ).astype(np.float32)

    def __len__(self) -> int:
        return len(self.frames)

    def stats(self) -> dict[str, dict[str, list[float]]]:
        """Per-dimension limits of actions and state, for the normaliser."""
        return {
            name: {
                "low": values.reshape(-1, values.shape[-1]).min(0).tolist(),
                "high": values.reshape(-1, values.shape[-1]).max(0).tolist(),
            }
            for name, values in (("action", self.actions), ("state", self.state))
        }

    def batch(
        self, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
        """images uint8 (B, T_o, V, H, W, 3) cropped at random, state (B, T_o, 4), actions (B, T_p, 4).

        The frames of a window share their crop, so that motion between them stays motion; each pixel is
        copied once, from the dataset into the batch.
        """
        frames = self.frames[rows]
        height, width = self._crop
        images = np.empty((*frames.shape, len(self._images), height, width, 3), dtype=np.uint8)
        for view, pixels in enumerate(self._images):
            tops = rng.integers(0, pixels.shape[1] - height + 1, len(rows))
            lefts = rng.integers(0, pixels.shape[2] - width + 1, len(rows))
            for b, (top, left) in enumerate(zip(tops, lefts, strict=True)):
                for o, frame in enumerate(frames[b]):
                    images[b, o, view] = pixels[frame, top : top + height, left : left + width]
        return images, self.state[rows].astype(np.float32), self.actions[rows]
