"""Validation: error of the averaged policy on held-out episodes.

Nothing of a held-out episode enters training, not even the statistics of the normaliser.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dp_ros.actions import POSITION, gripper_of
from dp_ros.data.windows import Windows
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.instructions import Instructions
from dp_ros.schema import TrainConfig
from dp_ros.train.stopping import TrainingError


def split_by_episode(
    ends: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(windows to train on, windows held out), both in the order of the dataset; the episodes are drawn from `seed`.

    ends (E,): index after the last window of each episode. At least one episode is held out when `share` > 0.
    TrainingError where none would be left.
    """
    count = max(1, round(share * len(ends))) if share > 0 else 0
    if count and count >= len(ends):
        raise TrainingError(
            f"validation {share:g} holds out {count} of {len(ends)} episodes and leaves none to train on: "
            "collect more episodes or set validation to 0"
        )
    held_out = np.zeros(len(ends), dtype=bool)
    held_out[np.random.default_rng([seed, 3]).permutation(len(ends))[:count]] = True
    of_rows = np.repeat(held_out, np.diff(ends, prepend=0))
    return np.flatnonzero(~of_rows), np.flatnonzero(of_rows)


@dataclass(frozen=True)
class Validation:
    """Means over the held-out windows at one step."""

    step: int
    loss: float  # of the predicted noise; every validation uses the same noise
    position_m: tuple[float, ...]  # (T_p,) distance between planned and demonstrated position
    gripper: tuple[float, ...]  # (T_p,) absolute difference of the gripper command, which is in [-1, 1]
    executed: slice
    score: float  # error of the executed actions, normalised: lower is better

    @property
    def executed_position_m(self) -> float:
        return float(np.mean(self.position_m[self.executed]))

    @property
    def executed_gripper(self) -> float:
        return float(np.mean(self.gripper[self.executed]))

    def __str__(self) -> str:
        along = " ".join(f"{1e3 * m:.1f}" for m in self.position_m)
        executed = f"{1e3 * self.executed_position_m:.2f} mm, gripper {self.executed_gripper:.3f}"
        return (
            f"validation at step {self.step}: loss {self.loss:.4f}, error of executed actions {executed}; "
            f"mm along the chunk: {along}"
        )

    def as_dict(self) -> dict[str, Any]:
        """For the checkpoint's config."""
        return {
            "step": self.step,
            "loss": self.loss,
            "position_m": list(self.position_m),
            "gripper": list(self.gripper),
            "score": self.score,
        }

    def scalars(self) -> dict[str, float]:
        """For TensorBoard."""
        values = {
            "validation/loss": self.loss,
            "validation/score": self.score,
            "validation/executed_position_m": self.executed_position_m,
            "validation/executed_gripper": self.executed_gripper,
        }
        for name in ("position_m", "gripper"):
            values |= {f"validation_{name}/{i}": v for i, v in enumerate(getattr(self, name))}
        return values


class Validator:
    """Validates on the same windows with the same noise each time; pictures are cropped at the centre."""

    def __init__(
        self,
        config: TrainConfig,
        windows: Windows,
        rows: NDArray[np.int64],
        instructions: Instructions | None = None,
    ) -> None:
        self._config, self._windows = config, windows
        self._instructions = instructions
        spread = np.linspace(0, len(rows) - 1, min(config.validation_windows, len(rows)))
        self.rows = rows[np.unique(spread.round().astype(np.int64))]

    @torch.no_grad()
    def measure(self, policy: DiffusionPolicy, step: int, device: torch.device) -> Validation:
        """Errors of `policy`, in eval mode, on the held-out windows; in f32 for every `precision`."""
        losses, errors, nerrors, weights = [], [], [], []
        loss_noise, plan_noise = (torch.Generator().manual_seed(seed) for seed in (1, 2))
        for rows in self._chunks():
            images, state, actions = _tensors(self._windows, rows, device)
            more = told(self._instructions, self._windows, rows, device)
            loss = policy.loss(images, state, actions, loss_noise, self._config.noise_samples, **more)
            losses.append(loss.item())
            plan = policy.plan(images, state, plan_noise, **more)
            errors.append((plan - actions).cpu().numpy())
            normalise = policy.action_normalizer.normalise
            nerrors.append((normalise(plan) - normalise(actions)).cpu().numpy())
            weights.append(len(rows))
        error, executed = np.concatenate(errors), self._config.policy.horizons.executed
        return Validation(
            step=step,
            loss=float(np.average(losses, weights=weights)),
            position_m=tuple(np.linalg.norm(POSITION.of(error), axis=-1).mean(0).tolist()),
            gripper=tuple(np.abs(gripper_of(error)).mean(0).tolist()),
            executed=executed,
            score=float(np.abs(np.concatenate(nerrors)[:, executed]).mean()),
        )

    def _chunks(self) -> Iterator[NDArray[np.int64]]:
        size = self._config.batch_size
        for first in range(0, len(self.rows), size):
            yield self.rows[first : first + size]


@torch.no_grad()
def plans(
    policy: DiffusionPolicy,
    windows: Windows,
    rows: NDArray[np.int64],
    noise: torch.Generator,
    device: torch.device,
    more: Mapping[str, Any],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The plans of some windows and what was demonstrated, both (B, T_p, D), encoded. `more`: of `told`."""
    images, state, actions = _tensors(windows, rows, device)
    plan = policy.plan(images, state, noise, **more)
    return tuple(each.cpu().numpy().astype(np.float64) for each in (plan, actions))  # type: ignore[return-value]


def told(
    instructions: Instructions | None, windows: Windows, rows: NDArray[np.int64], device: torch.device
) -> dict[str, Any]:
    """The first known sentence of each window's task, for policies that are told what to do; else nothing."""
    if instructions is None:
        return {}
    sentence = {t: instructions.rows(windows.tasks[t])[0] for t in np.unique(windows.task[rows])}
    embeddings = instructions.embeddings[[sentence[t] for t in windows.task[rows]]]
    return {"instruction": torch.from_numpy(embeddings).to(device)}


def _tensors(
    windows: Windows, rows: NDArray[np.int64], device: torch.device
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Pictures in [0, 1], cropped at the centre, state and actions of some windows."""
    pixels, *numbers = windows.centred(rows)
    images = [torch.from_numpy(each).to(device).movedim(-1, -3).float() / 255.0 for each in pixels]
    state, actions = (torch.from_numpy(each).to(device) for each in numbers)
    return images, state, actions
