"""The training loop. Every random number is drawn from (seed, step), so a resumed run is the same run."""

from __future__ import annotations

import copy
import ctypes
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.tensorboard import SummaryWriter

from dp_ros.data.windows import Windows
from dp_ros.policy.checkpoint import save_checkpoint
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import PolicyConfig, TrainConfig
from dp_ros.train.parameter_groups import parameter_groups
from dp_ros.train.schedules import cosine_with_warmup, ema_decay, update_ema

STATE = "state.safetensors"
CHECKPOINT = "checkpoint"

Build = Callable[[PolicyConfig, Mapping[str, Any]], Any]  # a module with DiffusionPolicy's `loss`


class TrainingError(RuntimeError):
    """Training that cannot begin or go on; one line that says what to do."""


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
    """Trains one policy in `run_dir`: `state.safetensors` to resume from, `checkpoint/` to serve, TensorBoard logs."""

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
    ) -> None:
        """`build` makes the policy from its config and the statistics; only a DiffusionPolicy leaves a checkpoint."""
        self.config, self.windows, self.run_dir = config, windows, Path(run_dir)
        self.scene, self.provenance = dict(scene or {}), dict(provenance or {})
        if len(windows) < config.batch_size:
            raise TrainingError(
                f"the dataset has {len(windows)} windows, fewer than batch_size {config.batch_size}: "
                "collect more episodes or lower batch_size"
            )
        self.batches_per_epoch = len(windows) // config.batch_size
        self.steps = config.steps or config.epochs * self.batches_per_epoch  # type: ignore[operator]
        self.device = _device(config.device)
        if self.device.type == "cpu":
            _keep_freed_memory()
        torch.manual_seed(config.seed)  # initial weights
        self.policy = build(config.policy, windows.stats()).to(self.device)
        self.ema = copy.deepcopy(self.policy).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.policy, config), lr=config.lr, betas=config.betas, fused=True
        )
        self.step = 0
        self._epoch: tuple[int, np.ndarray] | None = None
        if resume:
            self._restore()
        elif (self.run_dir / STATE).exists():
            raise TrainingError(
                f"{self.run_dir}: already holds a run; add --resume to go on, or choose another --out"
            )

    def run(self, on_progress: Callable[[Progress], None] | None = None) -> Path:
        """Train to the end and return the checkpoint folder. On Ctrl-C the state is saved, then it is raised."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        config = self.config
        with SummaryWriter(str(self.run_dir / "tensorboard"), purge_step=self.step) as log:
            losses, seconds, compute_s, since = [], 0.0, 0.0, self.step
            try:
                while self.step < self.steps:
                    began = time.perf_counter()
                    loss, compute = self._train_step()
                    seconds += time.perf_counter() - began
                    compute_s += compute
                    losses.append(loss)
                    if self.step % config.log_every == 0 or self.step == self.steps:
                        progress = Progress(
                            self.step, self.steps, float(np.mean(losses)), self._lr(),
                            seconds / (self.step - since), compute_s / seconds,
                        )  # fmt: skip
                        for name in ("loss", "lr", "step_s", "compute_share"):
                            log.add_scalar(name, getattr(progress, name), self.step)
                        if on_progress:
                            on_progress(progress)
                        losses, seconds, compute_s, since = [], 0.0, 0.0, self.step
                    if self.step % config.checkpoint_every == 0 or self.step == self.steps:
                        self.save()
            except KeyboardInterrupt:
                self.save()
                raise
        return self.run_dir / CHECKPOINT

    def _train_step(self) -> tuple[float, float]:
        config = self.config
        rows = self._rows()
        pixels, state, actions = self.windows.batch(rows, np.random.default_rng([config.seed, 1, self.step]))
        images = (
            torch.from_numpy(pixels).to(self.device).movedim(-1, -3)
        )  # a view: NHWC in memory is channels-last
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
        dropout_seed = np.random.SeedSequence([config.seed, 2, self.step]).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(dropout_seed >> 1))  # dropout draws from torch's own generator
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr()
        began = time.perf_counter()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            loss = self.policy.loss(
                images.float() / 255.0,
                torch.from_numpy(state).to(self.device),
                torch.from_numpy(actions).to(self.device),
                generator,
                config.noise_samples,
            )
        loss.backward()
        value = loss.item()
        compute_s = time.perf_counter() - began
        parameters = self.policy.parameters()
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.gradient_clip, foreach=True).item()
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise TrainingError(
                f"{self.run_dir}: the loss became {value}, its gradient {norm}, at step {self.step}; the state of the "
                "last checkpoint is intact: lower lr, or use precision f32"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        update_ema(
            self.ema.parameters(),
            self.policy.parameters(),
            ema_decay(self.step, config.ema_power, config.ema_max),
        )
        self.step += 1
        return value, compute_s

    def _rows(self) -> np.ndarray:
        """This step's windows: each epoch is a permutation of all, drawn from (seed, epoch)."""
        epoch, batch = divmod(self.step, self.batches_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            rng = np.random.default_rng([self.config.seed, 0, epoch])
            self._epoch = (epoch, rng.permutation(len(self.windows)))
        size = self.config.batch_size
        return self._epoch[1][batch * size : (batch + 1) * size]

    def _lr(self) -> float:
        return self.config.lr * cosine_with_warmup(self.step, self.steps, self.config.warmup_steps)

    def save(self) -> None:
        """The state to resume from, then the checkpoint to serve; each appears whole or not at all."""
        tensors = {f"policy/{n}": p for n, p in self.policy.named_parameters()}
        tensors |= {f"ema/{n}": p for n, p in self.ema.named_parameters()}
        for name, parameter in self.policy.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"adam/{name}/{key}"] = value
        staging = self.run_dir / f".{STATE}"
        try:
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
                staging,
                metadata={"step": str(self.step), "config": self._fingerprint()},
            )
            os.replace(staging, self.run_dir / STATE)
            training = {
                **self.provenance,
                "step": self.step,
                "config": self.config.model_dump(mode="json", exclude={"policy"}),
            }
            if isinstance(self.ema, DiffusionPolicy):  # a baseline is compared, never served
                save_checkpoint(self.ema, self.run_dir / CHECKPOINT, scene=self.scene, training=training)
        except (OSError, SafetensorError) as error:
            staging.unlink(missing_ok=True)
            raise TrainingError(
                f"{self.run_dir}: the state of step {self.step} cannot be written ({error}); the one before is "
                "intact: free some space and add --resume"
            ) from None

    def _restore(self) -> None:
        path = self.run_dir / STATE
        if not path.exists():
            raise TrainingError(f"{path}: there is nothing to resume; leave --resume out to begin")
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata()
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            raise TrainingError(f"{path}: cannot be read ({error}); begin anew in another --out") from None
        if metadata["config"] != self._fingerprint():
            raise TrainingError(
                f"{path}: was begun with another config or dataset; resume with the same, or use another --out"
            )
        with torch.no_grad():
            for model, prefix in ((self.policy, "policy"), (self.ema, "ema")):
                for name, parameter in model.named_parameters():
                    parameter.copy_(state[f"{prefix}/{name}"])
        for name, parameter in self.policy.named_parameters():
            if f"adam/{name}/step" in state:
                # Beside the parameter and laid out as it is: the fused optimiser goes through both as raw memory.
                self.optimizer.state[parameter] = {
                    "step": state[f"adam/{name}/step"].to(self.device),
                    **{
                        key: torch.empty_like(parameter).copy_(state[f"adam/{name}/{key}"])
                        for key in ("exp_avg", "exp_avg_sq")
                    },
                }
        self.step = int(metadata["step"])

    def _fingerprint(self) -> str:
        """What must agree for a resumed run to be the same run."""
        config = self.config.model_dump(mode="json", exclude={"checkpoint_every", "log_every", "device"})
        return json.dumps({"config": config, "windows": len(self.windows), "stats": self.windows.stats()})


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device cuda: torch sees no GPU; set device to auto or cpu")
    return torch.device(name)


def _keep_freed_memory() -> None:
    """Let glibc keep large blocks: giving each activation back to the kernel costs page faults at every step."""
    M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
    except (OSError, AttributeError):  # another libc: slower, not wrong
        pass
