"""One step of training: loss, gradient, average over the processes, update.

Every random number is drawn from (seed, step), so that a resumed run repeats the steps of an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dp_ros.schema import TrainConfig
from dp_ros.train.batches import TensorBatch
from dp_ros.train.device import computes_bf16
from dp_ros.train.distributed import Ranks
from dp_ros.train.optimizer import Optimizer
from dp_ros.train.stopping import TrainingError


@dataclass(frozen=True)
class StepResult:
    loss: float  # mean over the processes
    compute_s: float  # duration of forward and backward
    stop: tuple[bool, ...]  # for each reason to stop: whether any process has it


class TrainingStep:
    """Steps of one process on its part of each batch."""

    def __init__(
        self,
        config: TrainConfig,
        optimizer: Optimizer[Any],
        device: torch.device,
        ranks: Ranks,
        run_dir: Path,
    ) -> None:
        """`run_dir` is named in errors."""
        self._config, self._optimizer, self._run_dir = config, optimizer, run_dir
        self._device, self._ranks = device, ranks
        self._is_bf16 = computes_bf16(device, config.precision)

    def __call__(self, batch: TensorBatch, stop: Sequence[bool]) -> StepResult:
        """Update the policy on `batch`. `stop`: this process's answer for each reason to stop.

        TrainingError where loss or gradient is not finite; the weights are then those before the step.
        """
        torch.manual_seed(self._dropout_seed())  # dropout draws from torch's own generator
        began = time.perf_counter()
        loss = self._loss(batch)
        loss.backward()
        value, *reasons = self._ranks.average(
            self._optimizer.policy.parameters(), [loss.item(), *map(float, stop)]
        )
        compute_s = time.perf_counter() - began
        self._check_finite(value, self._optimizer.clip_gradient())
        self._optimizer.update()
        return StepResult(value, compute_s, tuple(reason > 0 for reason in reasons))

    def _loss(self, batch: TensorBatch) -> Tensor:
        config, ranks = self._config, self._ranks
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self._optimizer.step)
        # The baselines' loss takes none of these, so they are passed only where they matter.
        more: dict[str, Any] = {} if batch.frames is None else {"frames": batch.frames}
        if batch.executed is not None:
            more["executed"] = batch.executed
        if batch.noise is not None:
            more["noise"] = batch.noise
        if batch.instruction is not None:
            more["instruction"] = batch.instruction
        if batch.relabel is not None:
            more["relabel"] = batch.relabel
        if ranks.count > 1:
            more["part"] = ranks.part
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._is_bf16):
            loss: Tensor = self._optimizer.policy.loss(
                batch.images, batch.state, batch.actions, generator, config.noise_samples, **more
            )
        return loss

    def _dropout_seed(self) -> int:
        # Each process drops other weights, so with dropout several processes match one in distribution only.
        rank = [self._ranks.index] if self._ranks.index else []
        entropy = [self._config.seed, 2, self._optimizer.step, *rank]
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)

    def _check_finite(self, loss: float, gradient_norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            return
        config = self._config
        remedy = f"an lr below {config.lr:g}" + (" or precision f32" if config.precision != "f32" else "")
        raise TrainingError(
            f"{self._run_dir}: the loss became {loss}, its gradient {gradient_norm}, at step {self._optimizer.step}; "
            f"a resumed run would fail in the same way: train in another --out with {remedy}"
        )
