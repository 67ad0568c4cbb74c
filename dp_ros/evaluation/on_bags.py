"""Error of a policy's actions along recorded episodes: for robots that nobody simulates.

The policy sees each recorded window and plans; its plan is compared with what was demonstrated. A small error is
necessary, not sufficient: the arm never drifts away from the recording, so nothing is said about recovery.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dp_ros.actions import POSITION, decode_positions, gripper_of
from dp_ros.data.episodes import Dataset, DatasetError, load
from dp_ros.data.windows import Windows
from dp_ros.policy.checkpoint import load_checkpoint
from dp_ros.policy.checkpoint_config import instructions_of
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.instructions import Instructions
from dp_ros.schema import Horizons
from dp_ros.train.validation import plans, told

_BATCH = 32
Array = NDArray[np.float64]


@dataclass(frozen=True)
class ErrorsAlong:
    """Errors of N windows in the order of the recording, for each of the T_p actions of a chunk."""

    position_m: Array  # (N, T_p) from the planned to the demonstrated position
    gripper: Array  # (N, T_p) absolute difference of the commands, whose range is 2
    still_m: Array  # (N, T_p) what standing still would give in place of `position_m`
    episodes: tuple[str, ...]  # names
    ends: NDArray[np.int64]  # (E,) index after the last window of each
    horizons: Horizons
    rate_hz: float

    @property
    def executed(self) -> slice:
        return self.horizons.executed

    def means(self, windows: slice = slice(None), steps: slice | None = None) -> dict[str, float]:
        """Means over some windows and the executed steps, or others."""
        steps = steps or self.executed
        names = ("position_m", "gripper", "still_m")
        return {name: float(getattr(self, name)[windows, steps].mean()) for name in names}

    def of_steps(self) -> list[dict[str, Any]]:
        """For each step of the chunk: the time after the newest frame, whether it is executed, and the means."""
        rows = []
        for i in range(self.horizons.T_p):
            row = self.means(steps=slice(i, i + 1))
            row["position_p95_m"] = float(np.percentile(self.position_m[:, i], 95))
            after_s = (i - self.executed.start) / self.rate_hz
            is_executed = self.executed.start <= i < self.executed.stop
            rows.append({"after_s": after_s, "executed": is_executed, **row})
        return rows

    def of_episodes(self) -> list[dict[str, Any]]:
        """For each episode: its name, its windows, and the means of the executed steps."""
        starts = [0, *self.ends[:-1].tolist()]
        return [
            {"name": name, "windows": end - start, **self.means(slice(start, end))}
            for name, start, end in zip(self.episodes, starts, self.ends.tolist(), strict=True)
        ]

    def as_dict(self) -> dict[str, Any]:
        return {
            "rate_hz": self.rate_hz,
            "executed": self.means(),
            "steps": self.of_steps(),
            "episodes": self.of_episodes(),
        }


def errors_along(
    checkpoint: Path,
    dataset_path: Path,
    *,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ErrorsAlong:
    """Plan at every tick of a dataset, with pictures cropped as the running policy crops them.

    seed: of the sampler's noise. `on_progress(windows done, of)`. Raises CheckpointError, and DatasetError where
    cameras, sizes or rate of the dataset are not those of the policy.
    """
    policy = load_checkpoint(checkpoint).eval()
    config = policy.config
    dataset = load(dataset_path, config.encoder.cameras)
    rate_hz = float(dataset.attributes.get("rate_hz", config.rate_hz))
    if rate_hz != config.rate_hz:
        raise DatasetError(
            f"{dataset_path}: is at {rate_hz:g} Hz, the policy at {config.rate_hz:g} Hz: convert with "
            f"--rate {config.rate_hz:g}"
        )
    windows = Windows(dataset, config.horizons, config.action, config.encoder)
    errors = _Errors(policy, windows, instructions_of(checkpoint), seed)
    rows = np.arange(len(windows))
    parts = []
    for first in range(0, len(rows), _BATCH):
        parts.append(errors.of(rows[first : first + _BATCH]))
        on_progress(min(first + _BATCH, len(rows)), len(rows))
    position_m, gripper, still_m = (np.concatenate(each) for each in zip(*parts, strict=True))
    names = _episode_names(dataset)
    return ErrorsAlong(
        position_m, gripper, still_m, names, dataset.episode_ends, config.horizons, config.rate_hz
    )


class _Errors:
    def __init__(
        self, policy: DiffusionPolicy, windows: Windows, instructions: Instructions | None, seed: int
    ) -> None:
        self._policy, self._windows, self._instructions = policy, windows, instructions
        self._noise = torch.Generator().manual_seed(seed)

    def of(self, rows: NDArray[np.int64]) -> tuple[Array, Array, Array]:
        """`position_m`, `gripper` and `still_m` of the windows `rows`."""
        more = told(self._instructions, self._windows, rows, torch.device("cpu"))
        plan, demonstrated = plans(self._policy, self._windows, rows, self._noise, torch.device("cpu"), more)
        planned_m, shown_m = self._path(plan), self._path(demonstrated)
        now = self._policy.config.horizons.executed.start
        last_m = shown_m[:, max(now - 1, 0), None]  # the command before the newest frame's own
        return (
            np.linalg.norm(planned_m - shown_m, axis=-1),
            np.abs(gripper_of(plan - demonstrated)),
            np.linalg.norm(shown_m - last_m, axis=-1),
        )

    def _path(self, actions: Array) -> Array:
        """Positions (B, T_p, 3) of encoded actions, from an arbitrary origin."""
        config = self._policy.config
        return decode_positions(
            POSITION.of(actions), np.zeros(POSITION.size), config.horizons, config.action.position
        )


def _episode_names(dataset: Dataset) -> tuple[str, ...]:
    """Names of the bags, where the dataset was made of bags; a bag with a hole is several episodes."""
    bags: Sequence[dict[str, Any]] = dataset.attributes.get("bags", ())
    names = [
        bag["name"] if bag["pieces"] == 1 else f"{bag['name']}, part {part + 1}"
        for bag in bags
        for part in range(bag["pieces"])
    ]
    if len(names) != len(dataset.episode_ends):
        names = [f"episode {i}" for i in range(len(dataset.episode_ends))]
    return tuple(names)
