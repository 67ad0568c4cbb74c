"""The reference engine: the checkpoint in PyTorch, on CPU or GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dp_ros.control.planner import PlanRequest
from dp_ros.policy.checkpoint import load_checkpoint
from dp_ros.schema import ConfigError, DiffusionConfig, EncoderConfig, RuntimeConfig, override


class TorchEngine:
    """Callable: a request's window to a chunk (T_p, 4) of the declared kinds. Keeps no state between calls."""

    def __init__(self, checkpoint: str | Path, runtime: RuntimeConfig) -> None:
        """Loads and warms up, so that the first command is as fast as the others."""
        device = runtime.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device cuda: torch sees no GPU; set device to auto or cpu")
        if runtime.threads:
            torch.set_num_threads(runtime.threads)
        self._device = torch.device(device)
        self._policy = load_checkpoint(checkpoint, self._device)
        self.config = self._policy.config
        self.sampler, self.iterations = sampler_settings(self.config.diffusion, runtime)
        encoder, T_o = self.config.encoder, self.config.horizons.T_o
        blank = np.zeros((T_o, len(encoder.cameras), encoder.height_px, encoder.width_px, 3), dtype=np.uint8)
        self(PlanRequest(blank, np.zeros((T_o, 4)), np.zeros(3), 0, (0,)))

    def __call__(self, request: PlanRequest) -> NDArray[np.float64]:
        """images (T_o, V, H, W, 3) uint8 at the policy's size -> (T_p, 4)."""
        images, state = window_tensors(request, self.config.encoder, self._device)
        actions = self._policy.plan(images, state, noise_generator(request), self.sampler, self.iterations)
        return np.asarray(actions[0].cpu().numpy(), dtype=np.float64)


def window_tensors(
    request: PlanRequest, encoder: EncoderConfig, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """As a policy takes it: images (1, T_o, V, 3, H, W) in [0, 1], cropped in the centre; state (1, T_o, 4)."""
    top = (request.images.shape[2] - encoder.crop_height_px) // 2
    left = (request.images.shape[3] - encoder.crop_width_px) // 2
    cropped = request.images[:, :, top : top + encoder.crop_height_px, left : left + encoder.crop_width_px]
    pixels = torch.from_numpy(np.ascontiguousarray(cropped)).to(device)
    state = torch.from_numpy(request.state).float().to(device)
    return pixels[None].movedim(-1, -3).float() / 255.0, state[None]


def noise_generator(request: PlanRequest) -> torch.Generator:
    """The sampler's noise: the request's seed decides it."""
    seed = int(np.random.SeedSequence(request.seed).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator().manual_seed(seed)


def sampler_settings(diffusion: DiffusionConfig, runtime: RuntimeConfig) -> tuple[str, int]:
    """The checkpoint's sampler with the runtime's overrides, checked to fit what was trained."""
    changes = {}
    if runtime.sampler != "checkpoint":
        changes["sampler"] = runtime.sampler
        if runtime.sampler == "ddpm":
            changes["sampler_iterations"] = diffusion.iterations
    if runtime.sampler_iterations:
        changes["sampler_iterations"] = runtime.sampler_iterations
    used = override(diffusion, changes, where="sampler")
    return used.sampler, used.sampler_iterations
