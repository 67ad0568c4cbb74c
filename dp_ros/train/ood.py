"""Statistics of the training pictures, for the score of pictures unlike them, from a checkpoint and its dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dp_ros.data.merged import load_merged
from dp_ros.data.windows import Windows
from dp_ros.policy.checkpoint import add_ood_stats, load_checkpoint
from dp_ros.policy.checkpoint_config import instructions_of, ood_stats_of, read_config
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.instructions import Instructions
from dp_ros.policy.ood import OodError, OodStats, fit_ood_stats
from dp_ros.train.validation import split_by_episode

FITTED, HELD_OUT = 1000, 500  # most frames that the statistics, and the limit, are made of
_SHARE = 0.1  # of the episodes, held out for the limit where the training held out none
_AT_ONCE = 64  # pictures encoded


def describe_pictures(
    folder: str | Path, data: Sequence[str | Path], device: str | torch.device = "cpu"
) -> OodStats:
    """Add the statistics of the dataset's pictures to the checkpoint in `folder`; the weights stay the same.

    The episodes that the checkpoint's training held out give the limit, or a share of all. DatasetError and
    CheckpointError; OodError where the dataset is too short.
    """
    policy = load_checkpoint(folder, device)
    encoder = policy.config.encoder
    dataset, _ = load_merged(data, encoder.cameras, memory_bytes=0)  # of whose pictures few are read
    return _add(folder, policy, Windows(dataset, policy.config.horizons, policy.config.action, encoder))


def add_to_run(folders: Sequence[Path], windows: Windows, device: torch.device) -> None:
    """Add the statistics of the training pictures to the checkpoints of a run that have none."""
    for folder in folders:
        if ood_stats_of(folder) is None:
            _add(folder, load_checkpoint(folder, device), windows)


def _add(folder: str | Path, policy: DiffusionPolicy, windows: Windows) -> OodStats:
    instructions, trained = instructions_of(folder), read_config(folder).get("training", {}).get("config", {})
    rows, held_out = _split(windows, trained.get("validation", 0.0), trained.get("seed", 0))
    fitted, measured = (
        _keypoints(policy, windows, _spread(each, most), instructions)
        for each, most in ((rows, FITTED), (held_out, HELD_OUT))
    )
    stats = fit_ood_stats(fitted, measured)
    add_ood_stats(folder, stats)
    return stats


def _split(windows: Windows, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(ticks to make statistics of, ticks of other episodes for the limit)."""
    if len(windows.episode_ends) < 2:
        raise OodError("the dataset has one episode, and the limit needs others: record more")
    return split_by_episode(windows.episode_ends, share or _SHARE, seed)


def _spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of the rows, evenly."""
    chosen = np.linspace(0, len(rows) - 1, min(most, len(rows)))
    return rows[np.unique(chosen.round().astype(np.int64))]


@torch.inference_mode()
def _keypoints(
    policy: DiffusionPolicy, windows: Windows, ticks: NDArray[np.int64], instructions: Instructions | None
) -> list[NDArray[np.float64]]:
    """V of (N, 2 * keypoints): keypoints of the ticks' pictures, cropped as served.

    The known sentences of a task take turns.
    """
    device, encoder = next(policy.parameters()).device, policy.encoder
    parts: list[list[NDArray[np.float64]]] = [[] for _ in policy.config.encoder.cameras]
    for first in range(0, len(ticks), _AT_ONCE):
        chosen = ticks[first : first + _AT_ONCE]
        told = None
        if instructions:
            known = [instructions.rows(windows.tasks[windows.task[tick]]) for tick in chosen]
            sentences = [rows[(first + i) % len(rows)] for i, rows in enumerate(known)]
            told = encoder.tell(torch.from_numpy(instructions.embeddings[sentences]).to(device))
        for view, pictures in enumerate(windows.pictures(chosen)):
            images = torch.from_numpy(pictures).to(device).movedim(-1, -3).float() / 255.0
            parts[view].append(encoder.describe_camera(view, images, told)[1].double().cpu().numpy())
    return [np.concatenate(each) for each in parts]
