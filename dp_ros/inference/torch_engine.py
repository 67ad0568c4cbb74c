"""Reference engine: the checkpoint in PyTorch, on CPU or GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dp_ros.actions import POSITION, STATE_DIM
from dp_ros.control.planner import PlanRequest
from dp_ros.inference.engine import sampler_settings
from dp_ros.policy.checkpoint import load_checkpoint
from dp_ros.schema import ConfigError, EncoderConfig, PolicyConfig, RuntimeConfig

# images V of (B, T_o, 3, H, W), state (B, T_o, D_s), CPU generator -> actions (B, T_p, D)
PlanBatch = Callable[[Sequence[Tensor], Tensor, torch.Generator], Tensor]


class TorchEngine:
    """`Engine` of a checkpoint in PyTorch; the same chunk on every device, up to rounding."""

    def __init__(self, checkpoint: str | Path, runtime: RuntimeConfig) -> None:
        """Load the checkpoint and compute one plan. `runtime.threads` sets torch's threads of the whole process."""
        device = runtime.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device cuda: torch sees no GPU; set device to auto or cpu")
        if runtime.threads:
            torch.set_num_threads(runtime.threads)
        policy = load_checkpoint(checkpoint, device)
        sampler, iterations = sampler_settings(policy.config.diffusion, runtime)
        plan = partial(policy.plan, sampler=sampler, iterations=iterations)
        self.config = policy.config
        self._plan = partial(plan_chunk, plan, self.config.encoder, torch.device(device))
        self(blank_request(self.config))

    def __call__(self, request: PlanRequest, /) -> NDArray[np.float64]:
        """The chunk (T_p, action_dim) for the request's window: see `Engine`."""
        return self._plan(request)


def plan_chunk(
    plan: PlanBatch, encoder: EncoderConfig, device: torch.device, request: PlanRequest
) -> NDArray[np.float64]:
    """A torch policy's answer to one request: chunk (T_p, action_dim) of the declared kinds."""
    actions = plan(*window_tensors(request, encoder, device), noise_generator(request))
    return np.asarray(actions[0].float().cpu().numpy(), dtype=np.float64)


def window_tensors(
    request: PlanRequest, encoder: EncoderConfig, device: torch.device
) -> tuple[list[Tensor], Tensor]:
    """A policy's inputs: images, V of (1, T_o, 3, H, W) in [0, 1], cropped in the centre; state (1, T_o, STATE_DIM)."""
    images = []
    for camera, pictures in zip(encoder.cameras, request.images, strict=True):
        height, width = encoder.crop(camera)
        top, left = (pictures.shape[1] - height) // 2, (pictures.shape[2] - width) // 2
        cropped = np.ascontiguousarray(pictures[:, top : top + height, left : left + width])
        images.append(torch.from_numpy(cropped).to(device)[None].movedim(-1, -3).float() / 255.0)
    return images, torch.from_numpy(request.state).float().to(device)[None]


def noise_generator(request: PlanRequest) -> torch.Generator:
    """CPU generator of the sampler's noise, seeded by the request."""
    seed = int(np.random.SeedSequence(request.seed).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator().manual_seed(seed)


def blank_request(config: PolicyConfig) -> PlanRequest:
    """A request with black pictures, to warm up with."""
    encoder, T_o = config.encoder, config.horizons.T_o
    images = tuple(np.zeros((T_o, *encoder.target(c).size, 3), dtype=np.uint8) for c in encoder.cameras)
    return PlanRequest(images, np.zeros((T_o, STATE_DIM)), np.zeros(POSITION.size), 0, (0,))
