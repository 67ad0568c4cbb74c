"""Folder of a training run: state to resume from, checkpoints to serve, TensorBoard log.

State and checkpoints appear whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from dp_ros.files import clear_leftovers, locked, replacing
from dp_ros.policy.checkpoint import CheckpointError, read_config, save_checkpoint
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.instructions import Instructions
from dp_ros.train.optimizer import Optimizer
from dp_ros.train.stopping import TrainingError

STATE, CHECKPOINT, BEST = "state.safetensors", "checkpoint", "best"

Log = Callable[[str, float, int], None]  # name, value, step


class RunFolder:
    """Reads and writes the files of one run. TrainingError where a file cannot be written."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def has_state(self) -> bool:
        return (self.path / STATE).exists()

    def check_unused(self) -> None:
        """TrainingError where a run has been saved here."""
        if self.has_state:
            raise TrainingError(
                f"{self.path}: already holds a run; add --resume to continue it, or choose another --out"
            )

    def prepare(self) -> None:
        """Make the folder, and remove what a process that was killed while saving left in it."""
        self.path.mkdir(parents=True, exist_ok=True)
        for name in (STATE, CHECKPOINT, BEST):
            clear_leftovers(self.path / name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other trainings out of the folder, which is made; TrainingError where one is inside."""
        self.path.mkdir(parents=True, exist_ok=True)
        with ExitStack() as lock:
            try:
                lock.enter_context(locked(self.path))
            except BlockingIOError:
                raise TrainingError(
                    f"{self.path}: another process trains here: wait until it ends, or choose another --out"
                ) from None
            yield

    def read_state(self, fingerprint: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """(tensors, metadata) of the saved state; TrainingError where there is none or its fingerprint differs."""
        path = self.path / STATE
        if not path.exists():
            raise TrainingError(f"{path}: there is nothing to resume; leave --resume out to begin")
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata()
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            raise TrainingError(
                f"{path}: cannot be read ({error}); start the training again in another --out"
            ) from None
        # As data, not as text: the order of the settings may have changed since.
        if json.loads(metadata["config"]) != json.loads(fingerprint):
            raise TrainingError(
                f"{path}: was begun with another config or dataset, or from another teacher or --init, or was told "
                "other sentences; resume with the same, or use another --out"
            )
        return state, metadata

    def write_state(self, optimizer: Optimizer[Any], metadata: dict[str, str]) -> None:
        tensors: dict[str, Tensor] = {}
        for name, parameter in optimizer.policy.named_parameters():
            tensors[f"policy/{name}"] = parameter
            for key, value in optimizer.adamw.state[parameter].items():
                tensors[f"adam/{name}/{key}"] = value
        tensors |= {f"ema/{name}": parameter for name, parameter in optimizer.ema.named_parameters()}
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        with self.writing("the state", optimizer.step), replacing(self.path / STATE) as staging:
            save_file(whole, staging, metadata=metadata)

    def write_checkpoint(
        self,
        name: str,
        policy: DiffusionPolicy,
        scene: Mapping[str, Any],
        training: Mapping[str, Any],
        instructions: Instructions | None = None,
    ) -> None:
        with self.writing(f"{name}/", training["step"]):
            save_checkpoint(
                policy, self.path / name, scene=scene, training=training, instructions=instructions
            )

    def checkpoint_step(self) -> int | None:
        """Step of the newest checkpoint; None where there is none that can be read."""
        try:
            return int(read_config(self.path / CHECKPOINT)["training"]["step"])
        except (CheckpointError, KeyError):
            return None

    @contextmanager
    def log(self, step: int) -> Iterator[Log]:
        """A function that logs a scalar to TensorBoard. Scalars logged after `step` by a killed run are hidden."""
        with self.writing("the log", step):
            writer = SummaryWriter(str(self.path / "tensorboard"), purge_step=step + 1)

        def log(name: str, value: float, step: int) -> None:
            with self.writing("the log", step):  # reports an earlier error of the writer's thread, too
                writer.add_scalar(name, value, step)

        try:
            yield log
        finally:
            with suppress(OSError):  # it would hide the error that ended the run
                writer.close()

    @contextmanager
    def writing(self, what: str, step: int) -> Iterator[None]:
        """Turn an error of writing `what` of that step into a TrainingError."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            remedy = "add --resume; the last state is intact" if self.has_state else "begin again"
            raise TrainingError(
                f"{self.path}: {what} of step {step} cannot be written ({error}): free some space and {remedy}"
            ) from None


@torch.no_grad()
def restore(state: Mapping[str, Tensor], optimizer: Optimizer[Any], device: torch.device) -> None:
    """Put the weights, the EMA and AdamW's moments of a saved state into `optimizer`."""
    for model, prefix in ((optimizer.policy, "policy"), (optimizer.ema, "ema")):
        for name, parameter in model.named_parameters():
            parameter.copy_(state[f"{prefix}/{name}"])
    for name, parameter in optimizer.policy.named_parameters():
        if f"adam/{name}/step" in state:
            # On the parameter's device and with its strides: the fused optimiser reads both as raw memory.
            optimizer.adamw.state[parameter] = {
                "step": state[f"adam/{name}/step"].to(device),
                **{
                    key: torch.empty_like(parameter).copy_(state[f"adam/{name}/{key}"])
                    for key in ("exp_avg", "exp_avg_sq")
                },
            }
