"""OpenVINO engine: the exported graphs on the CPU, and the loop over them in NumPy. It imports no torch."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from dp_ros.control.planner import Pictures, PlanRequest
from dp_ros.inference import cache
from dp_ros.inference.encoded import Encoded
from dp_ros.inference.engine import blank_request, crop, needed_instruction, sampler_settings
from dp_ros.inference.noise import PlanNoise
from dp_ros.policy.checkpoint_config import ood_stats_of, policy_config
from dp_ros.policy.sampler import Known, sample, sampler_steps
from dp_ros.schema import ConfigError, RuntimeConfig

Array32 = NDArray[np.float32]
Described = tuple[Array32, Array32]


class OpenVinoEngine:
    """`Engine` of an exported checkpoint, on the CPU."""

    def __init__(self, checkpoint: str | Path, runtime: RuntimeConfig, exported: Path) -> None:
        """Load the graphs in the folder `exported` and compute one plan."""
        self.config = policy_config(checkpoint)
        compiled = _compile(exported, runtime)
        views = range(len(self.config.encoder.cameras))
        self._encoders = [compiled[f"encoder_{view}"].outputs for view in views]
        self._encoded: Encoded[Described] = Encoded(len(views), kept=2 * self.config.horizons.T_o)
        self._ood = ood_stats_of(checkpoint)
        self._instruction = compiled.get("instruction")
        # The instruction of the newest request, as bytes, and its features: pictures are prefetched for it.
        self._told: tuple[bytes, Array32] | None = None
        self._condition, self._denoiser = compiled["condition"], compiled["denoiser"]
        self._constants = load_file(exported / cache.CONSTANTS)
        self._diffusion = sampler_settings(self.config.diffusion, runtime)
        self._steps = sampler_steps(self._diffusion)
        self._last_steps = self._steps[-runtime.warm_start :] if runtime.warm_start else None
        self(blank_request(self.config))

    def __call__(self, request: PlanRequest, /) -> NDArray[np.float64]:
        """The chunk (T_p, action_dim) for the request's window: see `Engine`."""
        condition = self._condition(obs=self._observe(request))
        noise, table = PlanNoise(request.seed), self._constants["steps"]
        shape = (1, self.config.horizons.T_p, self.config.action.dim)

        def denoise(x: Array32, k: int) -> Array32:
            return self._denoiser(x=x, step=table[k : k + 1], condition=condition)

        centre, half_range = self._constants["action_centre"], self._constants["action_half_range"]
        known = None
        if request.committed is not None:
            known = Known.of(request.committed, centre, half_range, self.config.diffusion.prefix)
        guess, steps = None, self._steps
        if request.guess is not None and self._last_steps:
            guess, steps = ((request.guess - centre) / half_range).astype(np.float32)[None], self._last_steps
        nactions = sample(
            denoise, noise.draw(*shape), steps, self._diffusion.clip, lambda: noise.draw(*shape), known, guess
        )
        actions = nactions[0] * half_range + centre
        return np.asarray(actions, dtype=np.float64)

    def prefetch(self, pictures: Pictures) -> None:
        """Encode the pictures of a frame that a later request will contain, under the newest instruction."""
        for view, picture in enumerate(pictures):
            self._encode(view, picture)

    def ood_scores(self, pictures: Pictures) -> NDArray[np.float64] | None:
        """(V,) of the newest frame of the last request: see `Engine`."""
        if self._ood is None:
            return None
        return self._ood.scores([self._encode(view, picture)[1][0] for view, picture in enumerate(pictures)])

    def _observe(self, request: PlanRequest) -> Array32:
        """The window's features, as `ObservationEncoder` lays them out: (1, obs_dim)."""
        features = []
        told = self._tell(request.instruction)
        for pictures, state in zip(request.images, request.state, strict=True):
            features += [self._encode(view, picture)[0] for view, picture in enumerate(pictures)]
            if self.config.encoder.proprioception:
                features.append(self._normalised(state)[None])
            features += [told[1]] if told else []
        return np.concatenate(features, axis=1)

    def _tell(self, embedding: NDArray[np.float32] | None) -> tuple[bytes, Array32] | None:
        """Keep the instruction for the pictures to come; None where the policy has none."""
        if self._instruction is None:
            return None
        wanted = needed_instruction(embedding)
        key = wanted.tobytes()
        if self._told is None or self._told[0] != key:
            self._told = key, self._instruction(embedding=wanted[None])
        return self._told

    def _encode(self, view: int, picture: NDArray[np.uint8]) -> Described:
        """Features (1, feature_dim) and keypoints (1, 2 * keypoints) of a camera's picture, which is encoded once for
        all windows that contain it and have the same instruction."""
        key, told = self._told or (b"", None)

        def encode() -> Described:
            size = self.config.encoder.crop(self.config.encoder.cameras[view])
            more = {} if told is None else {"told": told}
            features, keypoints = self._encoders[view](picture=crop(picture, size), **more)
            return features, keypoints

        return self._encoded.get(view, picture, key, encode)

    def _normalised(self, state: NDArray[np.float64]) -> Array32:
        """state (STATE_DIM,) in [-1, 1]."""
        centre, half_range, bound = (
            self._constants[f"state_{name}"] for name in ("centre", "half_range", "bound")
        )
        bounded = np.clip((state - centre) / half_range, -bound, bound)
        return np.asarray(bounded, dtype=np.float32)


class _Graph:
    """One compiled graph with its request; called with arrays by name."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = {port.any_name: self._request.get_tensor(port).data for port in compiled.inputs}
        self._outputs = [self._request.get_tensor(port).data for port in compiled.outputs]

    def __call__(self, **inputs: NDArray[Any]) -> Array32:
        """The first output, a new array (1, ...)."""
        return self.outputs(**inputs)[0]

    def outputs(self, **inputs: NDArray[Any]) -> list[Array32]:
        """All outputs, new arrays (1, ...)."""
        for name, value in inputs.items():
            self._inputs[name][...] = value  # into the request's own memory: it must outlive the call
        self._request.infer()
        return [output.copy() for output in self._outputs]


@lru_cache(maxsize=1)
def shared_core() -> Any:
    """OpenVINO's core, one for the life of the process. ConfigError where the package is missing.

    A core gives the thread that makes it another stack for signals, and the one from before when it is freed (OpenVINO
    2026.4, seen with AVX-512). Where the older of two cores is freed first, the thread keeps a stack that is gone, and
    the next signal, such as Ctrl-C, is a segmentation fault.
    """
    try:
        import openvino
    except ImportError:
        raise ConfigError("engine openvino: the package is not installed: pip install openvino") from None
    return openvino.Core()


def _compile(exported: Path, runtime: RuntimeConfig) -> dict[str, _Graph]:
    """Every graph of the folder, compiled for this CPU."""
    core = shared_core()
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": runtime.precision,
    }
    if runtime.threads:
        settings["INFERENCE_NUM_THREADS"] = runtime.threads
    compiled = cache.trusted(exported / f"compiled-{runtime.precision}-{runtime.threads}")
    if compiled:
        settings["CACHE_DIR"] = str(compiled)
    graphs = {
        path.stem: _Graph(core.compile_model(path, "CPU", settings))
        for path in sorted(exported.glob("*.xml"))
    }
    if compiled:
        cache.note(compiled)
    return graphs
