"""Episodes that are held out, and how far the averaged policy is from what the expert did in them.

Nothing of a held-out episode reaches training, not even through the statistics of the normaliser.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dp_ros.data.windows import Windows
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import TrainConfig
from dp_ros.train.stopping import TrainingError


def split_by_episode(
    ends: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Windows to train on and windows held out, in the order of the dataset; drawn from the seed.

    ends (E,): where each episode ends. At least one episode is held out when `share` > 0.
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
    """One measurement on held-out windows: means over them."""

    step: int
    loss: float  # of predicted noise, at noise that is the same at every measurement
    position_m: tuple[float, ...]  # (T_p,) distance between planned and shown position
    gripper: tuple[float, ...]  # (T_p,) difference of the gripper command, which is in [-1, 1]
    executed: slice
    score: float  # executed part, all dimensions, in the normaliser's units: lower is better

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
    """Measures on the same windows with the same noise each time, pictures cropped in the middle as when served."""

    def __init__(self, config: TrainConfig, windows: Windows, rows: NDArray[np.int64]) -> None:
        self._config, self._windows = config, windows
        spread = np.linspace(0, len(rows) - 1, min(config.validation_windows, len(rows)))
        self.rows = rows[np.unique(spread.round().astype(np.int64))]

    @torch.no_grad()
    def measure(self, policy: DiffusionPolicy, step: int, device: torch.device) -> Validation:
        """`policy`, in eval mode, on the held-out windows, in f32 whatever it is trained in."""
        losses, errors, nerrors, weights = [], [], [], []
        loss_noise, plan_noise = (torch.Generator().manual_seed(seed) for seed in (1, 2))
        for rows in self._chunks():
            pixels, state, actions = (torch.from_numpy(a).to(device) for a in self._windows.centred(rows))
            images = pixels.movedim(-1, -3).float() / 255.0
            losses.append(policy.loss(images, state, actions, loss_noise, self._config.noise_samples).item())
            plan = policy.plan(images, state, plan_noise)
            errors.append((plan - actions).cpu().numpy())
            normalise = policy.action_normalizer.normalise
            nerrors.append((normalise(plan) - normalise(actions)).cpu().numpy())
            weights.append(len(rows))
        error, executed = np.concatenate(errors), self._config.policy.horizons.executed
        return Validation(
            step=step,
            loss=float(np.average(losses, weights=weights)),
            position_m=tuple(np.linalg.norm(error[..., :3], axis=-1).mean(0).tolist()),
            gripper=tuple(np.abs(error[..., 3]).mean(0).tolist()),
            executed=executed,
            score=float(np.abs(np.concatenate(nerrors)[:, executed]).mean()),
        )

    def _chunks(self) -> Iterator[NDArray[np.int64]]:
        size = self._config.batch_size
        for first in range(0, len(self.rows), size):
            yield self.rows[first : first + size]
