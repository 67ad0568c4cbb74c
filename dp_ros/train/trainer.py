"""The training loop. Every random number is drawn from (seed, step), so a resumed run is the same run.

To the last bit on a CPU with as many threads; on a GPU, whose sums have no fixed order, up to rounding.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch.utils.tensorboard import SummaryWriter

from dp_ros.data.windows import Windows
from dp_ros.policy.checkpoint import CheckpointError, clear_leftovers, read_config, save_checkpoint
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import PolicyConfig, TrainConfig
from dp_ros.train.batches import Batches, Prefetch, TensorBatch
from dp_ros.train.device import find_device, name_hardware, set_up
from dp_ros.train.distributed import Ranks
from dp_ros.train.errors import TrainingError, TrainingPaused
from dp_ros.train.history import TrainingHistory
from dp_ros.train.parameter_groups import parameter_groups
from dp_ros.train.run_state import STATE, read_state, restore, write_state
from dp_ros.train.schedules import cosine_with_warmup, ema_decay, update_ema
from dp_ros.train.stopping import StopSignals
from dp_ros.train.validation import Validation, Validator, split_by_episode

CHECKPOINT, BEST = "checkpoint", "best"
# Settings that the last weights do not feel.
RESUME_IRRELEVANT = {"checkpoint_every", "log_every", "device", "validate_every"}

Build = Callable[[PolicyConfig, Mapping[str, Any]], Any]  # a module with DiffusionPolicy's `loss`

__all__ = [
    "BEST",
    "CHECKPOINT",
    "RESUME_IRRELEVANT",
    "STATE",
    "Progress",
    "Trainer",
    "TrainingError",
    "TrainingPaused",
    "Validation",
]


@dataclass(frozen=True)
class Progress:
    """What a step reports: averages since the last report."""

    step: int
    steps: int
    loss: float
    lr: float
    step_s: float
    compute_share: float  # of the step's time, what forward and backward took

    @property
    def eta_s(self) -> float:
        return (self.steps - self.step) * self.step_s


class Trainer:
    """Trains one policy in `run_dir`: `state.safetensors` to resume from, `checkpoint/` to serve (the newest EMA),
    `best/` (the EMA that was nearest to the held-out episodes, if any are), TensorBoard logs."""

    def __init__(
        self,
        config: TrainConfig,
        windows: Windows,
        run_dir: str | Path,
        *,
        scene: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        resume: bool = False,
        build: Build = DiffusionPolicy,
        ranks: Ranks | None = None,
    ) -> None:
        """`build` makes the policy from its config and the statistics; only a DiffusionPolicy leaves a checkpoint."""
        self.config, self.windows, self.run_dir = config, windows, Path(run_dir)
        self.scene, self.provenance = dict(scene or {}), dict(provenance or {})
        self.ranks = ranks or Ranks()
        if config.runs_per_batch % self.ranks.count:
            raise TrainingError(
                f"a batch of {config.runs_per_batch} runs (batch_size / run_length) cannot be shared by "
                f"{self.ranks.count} processes: make it a multiple of them"
            )
        rows, held_out = split_by_episode(windows.episode_ends, config.validation, config.seed)
        if len(rows) < config.batch_size:
            raise TrainingError(
                f"the dataset has {len(rows)} windows, fewer than batch_size {config.batch_size}: "
                "collect more episodes or lower batch_size"
            )
        self.batches = Batches(config, windows, rows, self.ranks.part)
        self.validator = Validator(config, windows, held_out) if len(held_out) else None
        self.best_score = math.inf
        self.history = TrainingHistory()
        self.stats = windows.stats(rows)
        self.batches_per_epoch = self.batches.per_epoch
        self.steps = config.steps or config.epochs * self.batches_per_epoch  # type: ignore[operator]
        self.device = self.ranks.device or find_device(config.device)
        set_up(self.device, config)
        torch.manual_seed(config.seed)  # initial weights
        self.policy = build(config.policy, self.stats).to(self.device)
        self.ema = copy.deepcopy(self.policy).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.policy, config), lr=config.lr, betas=config.betas, fused=True
        )
        self.step, self._between_steps = 0, True
        if resume:
            self._restore()
        elif (self.run_dir / STATE).exists():
            raise TrainingError(
                f"{self.run_dir}: already holds a run; add --resume to go on, or choose another --out"
            )
        self.ranks.check_agreed(f"{self.step} {self._fingerprint()}", self.policy.parameters())

    @property
    def hardware(self) -> str:
        return name_hardware(self.device, self.ranks.count)

    def run(
        self,
        on_progress: Callable[[Progress], None] | None = None,
        on_validation: Callable[[Validation], None] | None = None,
        time_is_over: Callable[[], bool] = lambda: False,
    ) -> Path:
        """Train to the end and return the checkpoint folder.

        On Ctrl-C or SIGTERM the state is saved at the end of the step, then KeyboardInterrupt is raised; likewise
        TrainingPaused once `time_is_over`.
        """
        if self.ranks.first:
            self._take_folder()
        with self._log() as log, self._batch_of() as batch_of, StopSignals() as signals:
            losses, seconds, compute_s, since = [], 0.0, 0.0, self.step
            try:
                while self.step < self.steps:
                    began = time.perf_counter()
                    stop = float(signals.requested), float(time_is_over())
                    loss, compute, (interrupted, over) = self._train_step(batch_of(self.step), stop)
                    spent = time.perf_counter() - began
                    seconds += spent
                    self.history.seconds += spent
                    compute_s += compute
                    losses.append(loss)
                    if self._due(self.config.log_every):
                        progress = Progress(
                            self.step, self.steps, float(np.mean(losses)), self._lr(),
                            seconds / (self.step - since), compute_s / seconds,
                        )  # fmt: skip
                        for name in ("loss", "lr", "step_s", "compute_share"):
                            log(name, getattr(progress, name), self.step)
                        self.history.loss.append((self.step, progress.loss))
                        if on_progress:
                            on_progress(progress)
                        losses, seconds, compute_s, since = [], 0.0, 0.0, self.step
                    if self.validator and self._due(self.config.validate_every) and self.ranks.first:
                        measured = self._validate(self.validator)
                        for name, value in measured.scalars().items():
                            log(name, value, self.step)
                        if on_validation:
                            on_validation(measured)
                    if self._due(self.config.checkpoint_every) or over:
                        self.save()
                    if interrupted and self.step < self.steps:
                        raise KeyboardInterrupt
                    if over and self.step < self.steps:
                        raise TrainingPaused(f"{self.run_dir}: stopped at step {self.step} of {self.steps}")
            except KeyboardInterrupt:
                if self._between_steps:  # else a second Ctrl-C: the state on disk is the last whole one
                    self.save()
                raise
        self.ranks.wait()  # for the first to have written
        return self.run_dir / CHECKPOINT

    def _train_step(
        self, batch: TensorBatch, stop: tuple[float, float]
    ) -> tuple[float, float, tuple[bool, bool]]:
        """(loss, seconds of forward and backward, whether any process wishes to stop, and for which reason)."""
        config, ranks = self.config, self.ranks
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
        # Of several processes each drops others: what they learn is then the same in distribution only.
        dropout = [config.seed, 2, self.step, *([ranks.index] if ranks.index else [])]
        dropout_seed = np.random.SeedSequence(dropout).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(dropout_seed >> 1))  # dropout draws from torch's own generator
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr()
        began = time.perf_counter()
        # Only where it is: the baselines know neither.
        shared = {} if batch.frames is None else {"frames": batch.frames}
        if ranks.count > 1:
            shared["part"] = ranks.part
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            loss = self.policy.loss(
                batch.images,
                batch.state,
                batch.actions,
                generator,
                config.noise_samples,
                **shared,
            )
        loss.backward()
        value, *wishes = ranks.average(self.policy.parameters(), [loss.item(), *stop])
        compute_s = time.perf_counter() - began
        parameters = self.policy.parameters()
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.gradient_clip, foreach=True).item()
        if not (math.isfinite(value) and math.isfinite(norm)):
            remedy = f"an lr below {config.lr:g}" + (" or precision f32" if config.precision != "f32" else "")
            raise TrainingError(
                f"{self.run_dir}: the loss became {value}, its gradient {norm}, at step {self.step}; resumed, it would "
                f"again: begin anew in another --out with {remedy}"
            )
        self._between_steps = False
        self.optimizer.step()
        self.optimizer.zero_grad()
        update_ema(
            self.ema.parameters(),
            self.policy.parameters(),
            ema_decay(self.step, config.ema_power, config.ema_max),
        )
        self.step += 1
        self._between_steps = True
        return value, compute_s, (wishes[0] > 0, wishes[1] > 0)

    def _validate(self, validator: Validator) -> Validation:
        """Measure the EMA; where it is the nearest so far, it becomes `best/`."""
        measured = validator.measure(self.ema, self.step, self.device)
        self.history.validation.append((self.step, measured.loss))
        if measured.score < self.best_score:
            self._write(BEST, {"validation": measured.as_dict()})
            self.best_score = measured.score
        return measured

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.steps

    def _lr(self) -> float:
        return self.config.lr * cosine_with_warmup(self.step, self.steps, self.config.warmup_steps)

    def save(self) -> None:
        """The state to resume from, then the checkpoint to serve; each appears whole or not at all."""
        if not self.ranks.first:
            return
        metadata = {
            "step": str(self.step),
            "best_score": repr(self.best_score),
            "config": self._fingerprint(),
            "history": self.history.dumps(),
        }
        with self._writing("the state"):
            write_state(self.run_dir, self.policy, self.ema, self.optimizer, metadata)
        self._write(CHECKPOINT, {})

    def _take_folder(self) -> None:
        """Clear away what a kill in the middle of saving left, and write the checkpoint that it kept from its state."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        for name in (CHECKPOINT, BEST):
            clear_leftovers(self.run_dir / name)
        if (self.run_dir / STATE).exists() and self._checkpoint_step() != self.step:
            self._write(CHECKPOINT, {})

    def _checkpoint_step(self) -> int | None:
        try:
            return int(read_config(self.run_dir / CHECKPOINT)["training"]["step"])
        except (CheckpointError, KeyError):
            return None

    def _write(self, name: str, more: Mapping[str, Any]) -> None:
        """The EMA as the checkpoint `name`."""
        if not isinstance(self.ema, DiffusionPolicy):  # a baseline is compared, never served
            return
        training = {
            **self.provenance,
            "step": self.step,
            "config": self.config.model_dump(mode="json", exclude={"policy"}),
            "hardware": self.hardware,
            "history": self.history.as_dict(),
            **more,
        }
        with self._writing(f"{name}/"):
            save_checkpoint(self.ema, self.run_dir / name, scene=self.scene, training=training)

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            saved = (self.run_dir / STATE).exists()
            remedy = "add --resume; the last state is intact" if saved else "begin again"
            raise TrainingError(
                f"{self.run_dir}: {what} of step {self.step} cannot be written ({error}): free some space and {remedy}"
            ) from None

    def _restore(self) -> None:
        state, metadata = read_state(self.run_dir, self._fingerprint())
        restore(state, self.policy, self.ema, self.optimizer, self.device)
        self.step, self.best_score = int(metadata["step"]), float(metadata["best_score"])
        self.history = TrainingHistory(metadata.get("history", "{}"))  # runs begun before it was kept

    def _fingerprint(self) -> str:
        """What must agree for a resumed run to be the same run."""
        config = self.config.model_dump(mode="json", exclude=RESUME_IRRELEVANT)
        return json.dumps({"config": config, "windows": len(self.windows), "stats": self.stats})

    @contextmanager
    def _log(self) -> Iterator[Callable[[str, float, int], None]]:
        """What takes a scalar; only the first process has a log."""
        if not self.ranks.first:
            yield lambda name, value, step: None
            return
        with self._writing("the log"):
            # Hides what a run that was killed had logged behind its last state.
            writer = SummaryWriter(str(self.run_dir / "tensorboard"), purge_step=self.step + 1)

        def log(name: str, value: float, step: int) -> None:
            with self._writing("the log"):  # its thread may have met a full disk long before
                writer.add_scalar(name, value, step)

        try:
            yield log
        finally:
            with suppress(OSError):  # else it would take the place of what ended the run
                writer.close()

    @contextmanager
    def _batch_of(self) -> Iterator[Callable[[int], TensorBatch]]:
        """The batch of a step; on a GPU it is made while the step before runs."""

        def make(step: int) -> TensorBatch:
            return self.batches.tensors(step, self.device)

        if self.device.type != "cuda":
            yield make
            return
        prefetch = Prefetch(make, self.steps)
        try:
            yield prefetch
        finally:
            prefetch.close()
