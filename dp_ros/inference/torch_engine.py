"""Reference engine: the checkpoint in PyTorch, on CPU or GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dp_ros.control.planner import Pictures, PlanRequest
from dp_ros.inference.engine import blank_request, crop, needed_instruction, sampler_settings
from dp_ros.inference.noise import PlanNoise
from dp_ros.policy.checkpoint import load_checkpoint
from dp_ros.policy.checkpoint_config import ood_stats_of
from dp_ros.policy.sampler import Known, sampler_steps
from dp_ros.schema import ConfigError, EncoderConfig, RuntimeConfig

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
        torch.backends.cudnn.allow_tf32 = False  # f32 means that, on a GPU, too
        if runtime.threads:
            torch.set_num_threads(runtime.threads)
        try:
            self._load(checkpoint, runtime, device)
        except torch.OutOfMemoryError:
            raise ConfigError(
                "device cuda: the GPU has too little free memory for this policy: free some, or set device to cpu"
            ) from None

    def _load(self, checkpoint: str | Path, runtime: RuntimeConfig, device: str) -> None:
        policy = load_checkpoint(checkpoint, device)
        self.config = policy.config
        self.action_half_range = policy.action_normalizer.half_range.double().cpu().numpy()
        self._action_centre = policy.action_normalizer.centre.cpu().numpy()
        self._policy, self._device = policy, torch.device(device)
        self._steps = sampler_steps(sampler_settings(policy.config.diffusion, runtime))
        self._last_steps = self._steps[-runtime.warm_start :] if runtime.warm_start else None
        self._ood = ood_stats_of(checkpoint)
        self(blank_request(self.config))

    def __call__(self, request: PlanRequest, /) -> NDArray[np.float64]:
        """The chunk (T_p, action_dim) for the request's window: see `Engine`."""
        shape = (1, self.config.horizons.T_p, self.config.action.dim)
        noise = PlanNoise(request.seed)
        images, state = window_tensors(request, self.config.encoder, self._device)
        guess, steps = None, self._steps
        if request.guess is not None and self._last_steps:
            actions = torch.from_numpy(request.guess).float().to(self._device)[None]
            guess, steps = self._policy.action_normalizer.normalise(actions), self._last_steps
        told = None
        if self.config.instruction:
            told = torch.from_numpy(needed_instruction(request.instruction)).to(self._device)[None]
        features = self._described(images, told)
        actions = self._policy.plan_from(
            features,
            state,
            lambda: torch.from_numpy(noise.draw(*shape)),
            steps,
            self._known(request),
            guess=guess,
            instruction=told,
        )
        return np.asarray(actions[0].float().cpu().numpy(), dtype=np.float64)

    @torch.inference_mode()
    def _described(self, images: Sequence[Tensor], told: Tensor | None) -> list[Tensor]:
        """Features V of (1, T_o, feature_dim) of the window; the keypoints of its newest frame are kept."""
        encoder = self._policy.encoder
        instruction = encoder.tell(told)
        if instruction is not None:
            instruction = instruction.expand(images[0].shape[1], -1)
        features, keypoints = zip(
            *(encoder.describe_camera(view, each[0], instruction) for view, each in enumerate(images)),
            strict=True,
        )
        self._keypoints = [each[-1] for each in keypoints]
        return [each[None] for each in features]

    def _known(self, request: PlanRequest) -> Known[Tensor] | None:
        if request.committed is None:
            return None
        half_range = self.action_half_range.astype(np.float32)
        prefix = self.config.diffusion.prefix
        known = Known.of(request.committed, self._action_centre, half_range, prefix)
        clean, kept = (torch.from_numpy(each).to(self._device) for each in (known.clean, known.kept))
        return Known(clean, kept, known.noised)

    def prefetch(self, pictures: Pictures) -> None:
        """Nothing: the reference encodes a whole window at once."""

    def ood_scores(self, pictures: Pictures) -> NDArray[np.float64] | None:
        """(V,) of the newest frame of the last request: see `Engine`."""
        if self._ood is None:
            return None
        return self._ood.scores([each.float().cpu().numpy() for each in self._keypoints])


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
    for camera, pictures in zip(encoder.cameras, zip(*request.images, strict=True), strict=True):
        cropped = np.stack([crop(picture, encoder.crop(camera)) for picture in pictures])
        images.append(torch.from_numpy(cropped).to(device)[None].movedim(-1, -3).float() / 255.0)
    return images, torch.from_numpy(request.state).float().to(device)[None]


def noise_generator(request: PlanRequest) -> torch.Generator:
    """CPU generator of the sampler's noise, seeded by the request."""
    seed = int(np.random.SeedSequence(request.seed).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator().manual_seed(seed)
