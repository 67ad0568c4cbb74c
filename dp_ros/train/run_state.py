"""`state.safetensors`: all that a run resumes from, in one file that appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.train.errors import TrainingError

STATE = "state.safetensors"


def write_state(
    run_dir: Path,
    policy: DiffusionPolicy,
    ema: DiffusionPolicy,
    optimizer: torch.optim.Optimizer,
    metadata: dict[str, str],
) -> None:
    """Raises OSError or SafetensorError; the state before is then intact."""
    tensors: dict[str, Tensor] = {f"policy/{n}": p for n, p in policy.named_parameters()}
    tensors |= {f"ema/{n}": p for n, p in ema.named_parameters()}
    for name, parameter in policy.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"adam/{name}/{key}"] = value
    staging = run_dir / f".{STATE}"
    try:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            staging,
            metadata=metadata,
        )
        os.replace(staging, run_dir / STATE)
    finally:
        staging.unlink(missing_ok=True)


def read_state(run_dir: Path, fingerprint: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata); TrainingError where there is none or it is of another run."""
    path = run_dir / STATE
    if not path.exists():
        raise TrainingError(f"{path}: there is nothing to resume; leave --resume out to begin")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise TrainingError(f"{path}: cannot be read ({error}); begin anew in another --out") from None
    if metadata["config"] != fingerprint:
        raise TrainingError(
            f"{path}: was begun with another config or dataset; resume with the same, or use another --out"
        )
    return state, metadata


@torch.no_grad()
def restore(
    state: dict[str, Tensor],
    policy: DiffusionPolicy,
    ema: DiffusionPolicy,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> None:
    for model, prefix in ((policy, "policy"), (ema, "ema")):
        for name, parameter in model.named_parameters():
            parameter.copy_(state[f"{prefix}/{name}"])
    for name, parameter in policy.named_parameters():
        if f"adam/{name}/step" in state:
            # Beside the parameter and laid out as it is: the fused optimiser goes through both as raw memory.
            optimizer.state[parameter] = {
                "step": state[f"adam/{name}/step"].to(device),
                **{
                    key: torch.empty_like(parameter).copy_(state[f"adam/{name}/{key}"])
                    for key in ("exp_avg", "exp_avg_sq")
                },
            }
