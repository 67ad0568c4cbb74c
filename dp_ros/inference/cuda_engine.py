"""CUDA engine: the encoder and the whole sampling loop as CUDA graphs, each replayed by one call.

A plan of eager PyTorch launches thousands of small kernels, and the GPU waits for each launch. A graph of them is
launched at once.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dp_ros.control.planner import Pictures, PlanRequest
from dp_ros.inference.encoded import Encoded
from dp_ros.inference.engine import blank_request, crop, needed_instruction, sampler_settings
from dp_ros.inference.noise import PlanNoise
from dp_ros.policy.checkpoint import load_checkpoint
from dp_ros.policy.checkpoint_config import ood_stats_of
from dp_ros.policy.sampler import Known, SamplerStep, sample, sampler_steps
from dp_ros.schema import ConfigError, RuntimeConfig

Described = tuple[Tensor, Tensor]
Function = Callable[..., tuple[Tensor, ...]]
_OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED")  # in the messages of torch, cuBLAS and cuDNN
_WARM_UPS = 3  # calls before a recording: libraries choose their kernels and take their workspaces in them


class CudaEngine:
    """`Engine` of a checkpoint on an NVIDIA GPU. On a CPU, for tests, it computes the same without graphs."""

    def __init__(self, checkpoint: str | Path, runtime: RuntimeConfig, device: str = "cuda") -> None:
        """Load the checkpoint, record the graphs and compute one plan.

        ConfigError where the GPU has too little memory. Precision f32 means that, also where cuDNN would take TF32.
        """
        if runtime.precision != "bf16":
            torch.backends.cudnn.allow_tf32 = False
        try:
            self._load(checkpoint, runtime, torch.device(device))
        except RuntimeError as error:  # of a recording that runs out of memory, of several kinds
            if not _is_out_of_memory(error):
                raise
            raise ConfigError(
                "engine cuda: the GPU has too little free memory for this policy: free some, or set device to cpu"
            ) from None

    @torch.inference_mode()
    def _load(self, checkpoint: str | Path, runtime: RuntimeConfig, device: torch.device) -> None:
        policy = load_checkpoint(checkpoint, device)
        self.config = config = policy.config
        self._policy, self._device = policy, device
        self._dtype = torch.bfloat16 if runtime.precision == "bf16" else torch.float32
        self._action_centre = policy.action_normalizer.centre.cpu().numpy()
        self._action_half_range = policy.action_normalizer.half_range.cpu().numpy()
        self._steps = sampler_steps(sampler_settings(config.diffusion, runtime))
        self._last_steps = self._steps[-runtime.warm_start :] if runtime.warm_start else None
        ks = torch.tensor([step.k for step in self._steps], device=device)
        terms = policy.network.embed(ks).to(self._dtype)  # of the iterations
        self._embedded = dict(zip(ks.tolist(), terms.split(1), strict=True))
        policy.network.to(self._dtype)
        self._ood = ood_stats_of(checkpoint)
        self._told: tuple[bytes, Tensor] | None = None  # the newest instruction, and what is learned from it
        self._encoded: Encoded[Described] = Encoded(len(config.encoder.cameras), kept=2 * config.horizons.T_o)
        self._stream = torch.cuda.Stream() if device.type == "cuda" else None  # of all recordings
        blank = blank_request(config)
        self._tell(blank.instruction)
        self._encoders = [
            self._record(self._encoder(view), self._seen(view, picture))
            for view, picture in enumerate(blank.images[-1])
        ]
        self._loops = {False: self._loop(self._steps, blank)}
        if self._last_steps:
            guess = np.zeros((config.horizons.T_p, config.action.dim))
            self._loops[True] = self._loop(self._last_steps, replace(blank, guess=guess))
        self(blank)

    def __call__(self, request: PlanRequest, /) -> NDArray[np.float64]:
        """The chunk (T_p, action_dim) for the request's window: see `Engine`."""
        with torch.inference_mode():
            (actions,) = self._loops[self._is_guessed(request)](*self._inputs(request))
            return np.asarray(actions[0].cpu().numpy(), dtype=np.float64)

    def prefetch(self, pictures: Pictures) -> None:
        """Encode the pictures of a frame that a later request will contain, under the newest instruction."""
        with torch.inference_mode():
            for view, picture in enumerate(pictures):
                self._encode(view, picture)

    def ood_scores(self, pictures: Pictures) -> NDArray[np.float64] | None:
        """(V,) of the newest frame of the last request: see `Engine`."""
        if self._ood is None:
            return None
        with torch.inference_mode():
            keypoints = [self._encode(view, picture)[1][0] for view, picture in enumerate(pictures)]
            return self._ood.scores([each.float().cpu().numpy() for each in keypoints])

    # ---- pictures --------------------------------------------------------------------------------------

    def _tell(self, embedding: NDArray[np.float32] | None) -> None:
        """Keep the instruction for the pictures to come."""
        if self.config.instruction is None:
            return
        wanted = needed_instruction(embedding)
        if self._told is None or self._told[0] != wanted.tobytes():
            told = self._policy.encoder.tell(torch.from_numpy(wanted).to(self._device)[None])
            assert told is not None
            self._told = wanted.tobytes(), told

    def _told_inputs(self) -> list[Tensor]:
        return [] if self._told is None else [self._told[1]]

    def _encoder(self, view: int) -> Function:
        """picture (H, W, 3) uint8, cropped, and what is learned from the instruction -> features (1, feature_dim),
        keypoints (1, 2 * keypoints)."""

        encoder, device, is_bf16 = self._policy.encoder, self._device.type, self._dtype == torch.bfloat16

        def encode(picture: Tensor, told: Tensor | None = None) -> tuple[Tensor, ...]:
            images = picture.permute(2, 0, 1)[None].float() / 255.0
            with torch.autocast(device, torch.bfloat16, is_bf16, cache_enabled=False):
                features, keypoints = encoder.describe_camera(view, images, told)
            return features.float(), keypoints.float()

        return encode

    def _seen(self, view: int, picture: NDArray[np.uint8]) -> list[Tensor]:
        """The inputs of `_encoder`."""
        size = self.config.encoder.crop(self.config.encoder.cameras[view])
        return [torch.from_numpy(np.ascontiguousarray(crop(picture, size))), *self._told_inputs()]

    def _encode(self, view: int, picture: NDArray[np.uint8]) -> Described:
        """Features and keypoints of a camera's picture, encoded once for all windows that contain it."""

        def encode() -> Described:
            features, keypoints = self._encoders[view](*self._seen(view, picture))
            return features.clone(), keypoints.clone()  # the next replay writes over the graph's own

        return self._encoded.get(view, picture, self._told[0] if self._told else b"", encode)

    # ---- the loop --------------------------------------------------------------------------------------

    def _is_guessed(self, request: PlanRequest) -> bool:
        return request.guess is not None and self._last_steps is not None

    def _loop(self, steps: Sequence[SamplerStep], request: PlanRequest) -> Function:
        """The inputs of `_inputs` -> actions (1, T_p, D) of the declared kinds, in one graph for requests like this."""
        policy, config, dtype, embedded = self._policy, self.config, self._dtype, self._embedded
        views, noised = len(config.encoder.cameras), not config.diffusion.prefix
        is_guessed = self._is_guessed(request)

        def loop(
            noise: Tensor, clean: Tensor, kept: Tensor, state: Tensor, *more: Tensor
        ) -> tuple[Tensor, ...]:
            features, more = more[:views], more[views:]
            guess, more = (more[0], more[1:]) if is_guessed else (None, more)
            nstate = policy.state_normalizer.normalise_input(state)
            obs = policy.encoder.join(features, nstate, more[0] if more else None)
            condition = policy.network.condition(obs.to(dtype))
            draws = iter(noise.unbind(0))
            nactions = sample(
                lambda x, k: policy.network.denoise(x.to(dtype), embedded[k], condition).float(),
                next(draws),
                steps,
                config.diffusion.clip,
                lambda: next(draws),
                Known(clean, kept, noised),
                guess,
            )
            return (policy.action_normalizer.unnormalise(nactions),)

        return self._record(loop, self._inputs(request))

    def _record(self, function: Function, inputs: Sequence[Tensor]) -> Function:
        """The function of tensors of fixed shapes as one CUDA graph, on a GPU."""
        return function if self._stream is None else _Recorded(function, inputs, self._stream)

    def _inputs(self, request: PlanRequest) -> list[Tensor]:
        """noise (n, 1, T_p, D), one for each draw; known actions and where they are, (1, T_p, D) each; state (1, T_o,
        STATE_DIM); features V of (1, T_o, feature_dim); where it begins at a guess, that (1, T_p, D), normalised; what
        is learned from the instruction (1, F), where the policy has one."""
        self._tell(request.instruction)
        shape = (1, self.config.horizons.T_p, self.config.action.dim)
        steps = (self._last_steps if self._is_guessed(request) else None) or self._steps
        noise, count = PlanNoise(request.seed), 1 + sum(bool(step.noise) for step in steps)
        inputs = [torch.from_numpy(np.stack([noise.draw(*shape) for _ in range(count)]))]
        centre, half_range = self._action_centre, self._action_half_range
        committed = np.full(shape[1:], np.nan) if request.committed is None else request.committed
        known = Known.of(committed, centre, half_range, self.config.diffusion.prefix)
        inputs += [torch.from_numpy(known.clean), torch.from_numpy(known.kept)]
        inputs.append(torch.from_numpy(request.state).float()[None])
        for view, pictures in enumerate(zip(*request.images, strict=True)):
            inputs.append(torch.cat([self._encode(view, picture)[0] for picture in pictures])[None])
        if request.guess is not None and self._last_steps:
            inputs.append(torch.from_numpy((request.guess - centre) / half_range).float()[None])
        return [*inputs, *self._told_inputs()]


class _Recorded:
    """A function of tensors of fixed shapes as one CUDA graph.

    It does not keep the function, which may refer to the engine: in a cycle, the garbage collector would end the graphs
    at any time, also while another engine records its own.
    """

    def __init__(self, function: Function, inputs: Sequence[Tensor], stream: torch.cuda.Stream) -> None:
        """stream: of one engine alone: libraries keep a workspace for each stream, and free it with a graph."""
        self._inputs = [each.to("cuda", copy=True) for each in inputs]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                function(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        gc.collect()  # nothing of before may be freed in the recording
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._outputs = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs; the next call writes over them."""
        for buffer, value in zip(self._inputs, inputs, strict=True):
            buffer.copy_(value)
        self._graph.replay()
        return self._outputs


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether this error, or one that it came after, is of that kind: a recording that fails ends with another one."""
    while error is not None:
        if any(words in str(error) for words in _OUT_OF_MEMORY):
            return True
        error = error.__context__
    return False
