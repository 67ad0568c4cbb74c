"""The training loop: steps, reports, validations and saves, until the end or a reason to stop.

A resumed run is the same run: to the last bit on a CPU with as many threads; on a GPU, whose sums have no fixed
order, up to rounding.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dp_ros.data.windows import Windows
from dp_ros.policy.checkpoint_folder import is_checkpoint
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.instructions import Instructions
from dp_ros.schema import PolicyConfig, TrainConfig
from dp_ros.train.batches import Batches, Prefetch, TensorBatch
from dp_ros.train.device import find_device, name_hardware, set_up
from dp_ros.train.distributed import Ranks
from dp_ros.train.ood import add_to_run
from dp_ros.train.optimizer import Optimizer
from dp_ros.train.progress import Progress, ProgressMeter, TrainingHistory
from dp_ros.train.run_folder import BEST, CHECKPOINT, Log, RunFolder, restore
from dp_ros.train.step import TrainingStep
from dp_ros.train.stopping import StopSignals, TrainingError, TrainingPaused, sigterm_as_ctrl_c
from dp_ros.train.validation import Validation, Validator, split_by_episode

# Settings that do not change the final weights: a run may be resumed with others.
RESUME_IRRELEVANT = {"checkpoint_every", "log_every", "device", "memory_gb", "validate_every"}

Build = Callable[[PolicyConfig, Mapping[str, Any]], Any]  # a module with DiffusionPolicy's `loss`
MakeBatches = Callable[[TrainConfig, Windows, NDArray[np.int64], tuple[int, int]], Batches]


class Trainer:
    """Trains one policy in the folder `run_dir`.

    The folder gets `state.safetensors` to resume from, `checkpoint/` to serve (the newest EMA), TensorBoard logs, and,
    where episodes are held out, `best/` (the EMA with the lowest validation score).
    """

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
        make_batches: MakeBatches = Batches,
        ranks: Ranks | None = None,
        instructions: Instructions | None = None,
    ) -> None:
        """`build` makes the policy from its config and the statistics; only a DiffusionPolicy leaves a checkpoint.
        `make_batches` makes the batches from config, windows, rows to train on and part of each batch.
        instructions: the sentences of the windows' tasks, for a policy with `instruction`.

        TrainingError where the dataset is too small, the device is missing, or `resume` and the folder do not fit.
        """
        self.config, self.windows, self.folder = config, windows, RunFolder(run_dir)
        self.scene, self.provenance = dict(scene or {}), dict(provenance or {})
        self.ranks = ranks or Ranks()
        if config.runs_per_batch % self.ranks.count:
            raise TrainingError(
                f"a batch of {config.runs_per_batch} runs (batch_size / run_length) cannot be shared by "
                f"{self.ranks.count} processes: make it a multiple of them"
            )
        parts = split_by_episode(windows.episode_ends, config.validation, config.seed)
        rows, held_out = (part[windows.trainable[part]] for part in parts)
        if len(rows) < config.batch_size:
            raise TrainingError(
                f"the dataset has {len(rows)} windows to train on, fewer than batch_size {config.batch_size}: "
                "collect more episodes or lower batch_size"
            )
        self.instructions = instructions
        self.stats = windows.stats(rows)
        self.batches = make_batches(config, windows, rows, self.ranks.part)
        self.batches_per_epoch = self.batches.per_epoch
        self.steps = config.steps or config.epochs * self.batches_per_epoch  # type: ignore[operator]
        self.validator = Validator(config, windows, held_out, instructions) if len(held_out) else None
        self.best_score = math.inf
        self.history = TrainingHistory()
        self.device = self.ranks.device or find_device(config.device)
        set_up(self.device, config)
        torch.manual_seed(config.seed)  # initial weights
        policy = build(config.policy, self.stats).to(self.device)
        self.optimizer: Optimizer[Any] = Optimizer(policy, config, self.steps, config.encoder_weight_decay)
        if resume:
            self._resume()
        else:
            self.folder.check_unused()
        if config.compile:  # the EMA, which is a copy, is only validated
            for module in self.policy.children():
                module.compile()
        self.ranks.check_agreed(f"{self.step} {self._fingerprint()}", self.policy.parameters())

    @property
    def run_dir(self) -> Path:
        return self.folder.path

    @property
    def policy(self) -> Any:
        return self.optimizer.policy

    @property
    def ema(self) -> Any:
        """The averaged policy, which is served."""
        return self.optimizer.ema

    @property
    def step(self) -> int:
        """Steps trained so far."""
        return self.optimizer.step

    @property
    def hardware(self) -> str:
        return name_hardware(self.device, self.ranks.count, self.config.precision)

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
        with self.folder.locked() if self.ranks.first else nullcontext():
            return self._run(on_progress, on_validation, time_is_over)

    def _run(
        self,
        on_progress: Callable[[Progress], None] | None,
        on_validation: Callable[[Validation], None] | None,
        time_is_over: Callable[[], bool],
    ) -> Path:
        config, meter = self.config, ProgressMeter()
        train_step = TrainingStep(config, self.optimizer, self.device, self.ranks, self.run_dir)
        if self.ranks.first:
            self._prepare_folder()
        if self.step < self.steps:
            began = time.perf_counter()
            try:
                with sigterm_as_ctrl_c():
                    self.batches.prepare(self.device)
            except KeyboardInterrupt:
                if not self.folder.has_state:  # a run that is interrupted here can be resumed, too
                    self.save()
                raise
            self.history.seconds += time.perf_counter() - began
        with self._log() as log, self._batch_source() as batch_of, StopSignals() as signals:
            try:
                while self.step < self.steps:
                    began = time.perf_counter()
                    stop = signals.requested, time_is_over()
                    result = train_step(batch_of(self.step), stop)
                    seconds = time.perf_counter() - began
                    meter.add(result.loss, seconds, result.compute_s)
                    self.history.seconds += seconds
                    interrupted, over = result.stop
                    if self._due(config.log_every):
                        self._report(meter, log, on_progress)
                    if self.validator and self._due(config.validate_every) and self.ranks.first:
                        self._validate(self.validator, log, on_validation)
                    if self._due(config.checkpoint_every) or over:
                        self.save()
                    if interrupted and self.step < self.steps:
                        raise KeyboardInterrupt
                    if over and self.step < self.steps:
                        raise TrainingPaused(f"{self.run_dir}: stopped at step {self.step} of {self.steps}")
            except KeyboardInterrupt:
                if not self.optimizer.updating:  # else a second Ctrl-C came in the middle of an update
                    self.save()
                raise
        if self.ranks.first and isinstance(self.ema, DiffusionPolicy):
            self._describe_pictures()
        self.ranks.wait()  # until the first process has written
        return self.run_dir / CHECKPOINT

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.steps

    def _report(self, meter: ProgressMeter, log: Log, on_progress: Callable[[Progress], None] | None) -> None:
        progress = meter.report(self.step, self.steps, self.optimizer.lr)
        for name in ("loss", "lr", "step_s", "compute_share"):
            log(name, getattr(progress, name), self.step)
        self.history.loss.append((self.step, progress.loss))
        if on_progress:
            on_progress(progress)

    def _validate(
        self, validator: Validator, log: Log, on_validation: Callable[[Validation], None] | None
    ) -> None:
        """Measure the EMA on the held-out windows; the one with the lowest score so far becomes `best/`."""
        measured = validator.measure(self.ema, self.step, self.device)
        self.history.validation.append((self.step, measured.loss))
        if measured.score < self.best_score:
            self._write_checkpoint(BEST, {"validation": measured.as_dict()})
            self.best_score = measured.score
        for name, value in measured.scalars().items():
            log(name, value, self.step)
        if on_validation:
            on_validation(measured)

    def save(self) -> None:
        """Write the state to resume from, then the checkpoint to serve. Only the first process writes."""
        if not self.ranks.first:
            return
        metadata = {
            "step": str(self.step),
            "best_score": repr(self.best_score),
            "config": self._fingerprint(),
            "history": self.history.dumps(),
        }
        self.folder.write_state(self.optimizer, metadata)
        self._write_checkpoint(CHECKPOINT)

    def _describe_pictures(self) -> None:
        """Add statistics of the training pictures to the checkpoints that have none yet. One episode is too few."""
        folders = [path for name in (CHECKPOINT, BEST) if is_checkpoint(path := self.run_dir / name)]
        if len(self.windows.episode_ends) > 1:
            with self.folder.writing("the statistics", self.step):
                add_to_run(folders, self.windows, self.device)

    def _write_checkpoint(self, name: str, more: Mapping[str, Any] | None = None) -> None:
        """The EMA as the checkpoint `name`."""
        if not isinstance(self.ema, DiffusionPolicy):  # a baseline is compared, never served
            return
        training = {
            **self.provenance,
            "step": self.step,
            "config": self.config.model_dump(mode="json", exclude={"policy"}),
            "hardware": self.hardware,
            "history": self.history.as_dict(),
            **(more or {}),
        }
        self.folder.write_checkpoint(name, self.ema, self.scene, training, self.instructions)

    def _prepare_folder(self) -> None:
        self.folder.prepare()
        # A process that was killed between the state and its checkpoint left the checkpoint of an older step.
        if self.folder.has_state and self.folder.checkpoint_step() != self.step:
            self._write_checkpoint(CHECKPOINT)

    def _resume(self) -> None:
        state, metadata = self.folder.read_state(self._fingerprint())
        restore(state, self.optimizer, self.device)
        self.optimizer.step, self.best_score = int(metadata["step"]), float(metadata["best_score"])
        self.history = TrainingHistory(metadata.get("history", "{}"))  # older runs kept none

    def _fingerprint(self) -> str:
        """All that must agree for a resumed run to be the same run, as JSON."""
        config = self.config.model_dump(mode="json", exclude=RESUME_IRRELEVANT)
        facts = {"config": config, "windows": len(self.windows), "stats": self.stats}
        if "teacher" in self.provenance:
            facts["teacher"] = self.provenance["teacher"]["weights_sha256"]
        if "init" in self.provenance:
            facts["init"] = self.provenance["init"]["weights_sha256"]
        if self.instructions is not None:
            facts["instructions"] = self.instructions.fingerprint()
        return json.dumps(facts)

    def _log(self) -> AbstractContextManager[Log]:
        """Only the first process logs."""
        return self.folder.log(self.step) if self.ranks.first else nullcontext(lambda name, value, step: None)

    @contextmanager
    def _batch_source(self) -> Iterator[Callable[[int], TensorBatch]]:
        """The function from a step to its batch. A thread makes the next batch during a step on a GPU, and where
        pictures are read from disk."""

        def make(step: int) -> TensorBatch:
            return self.batches.tensors(step, self.device)

        if self.device.type != "cuda" and not self.windows.streamed:
            yield make
            return
        prefetch = Prefetch(make, self.steps)
        try:
            yield prefetch
        finally:
            prefetch.close()
