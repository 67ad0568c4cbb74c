"""Engine protocol, the table of engines, and `load_engine`. No torch is imported before an engine needs it.

To add an engine, write it in a file of this folder and enter its loader in `ENGINES`; the runtime setting `engine`
then chooses it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import POSITION, STATE_DIM
from dp_ros.control.planner import Pictures, PlanRequest
from dp_ros.inference.hardware import free_gpu_bytes, has_bf16, has_gpu
from dp_ros.inference.self_check import EngineCheckError, Verdict, checked_engine
from dp_ros.policy.checkpoint_config import WEIGHTS, ood_stats_of, policy_config, read_config, verify_files
from dp_ros.policy.noise_levels import visited_iterations
from dp_ros.schema import (
    FULL_SAMPLERS,
    ConfigError,
    DiffusionConfig,
    InstructionError,
    PolicyConfig,
    RuntimeConfig,
    override,
)


class Engine(Protocol):
    """A policy that is loaded and warm, ready to plan.

    Loading: the loader has computed one plan before it returns, so the first request is as fast as the others.
    Thread: an engine is called only from the thread that loaded it, one request at a time. Compiled GPU models
    require it, and `PlanWorker` and `InlinePlanner` keep to it.
    State: none that shows. Equal requests give equal chunks; all randomness follows from `request.seed`. An engine may
    keep what it computed from a picture for the next request, so the arrays of pictures must not be changed.
    """

    @property
    def config(self) -> PolicyConfig:
        """Meaning of the weights, as the checkpoint states it."""

    def __call__(self, request: PlanRequest, /) -> NDArray[np.float64]:
        """request.images T_o frames of V pictures (H, W, 3) uint8, at the encoder's sizes before its crops;
        request.state (T_o, STATE_DIM) -> chunk (T_p, action_dim) of the declared kinds, in metres and [-1, 1].
        It repeats the actions of request.committed, and with `warm_start` begins at request.guess.
        InstructionError where the policy is told what to do and request.instruction is None.
        """

    def prefetch(self, pictures: Pictures, /) -> None:
        """Compute in advance what it can from a frame that a later request will contain."""

    def ood_scores(self, pictures: Pictures, /) -> NDArray[np.float64] | None:
        """(V,) how unlike the training pictures each picture of the last request's newest frame is: see `OodStats`.

        They come from the features that the plan was made of, and so cost next to nothing. None where the checkpoint
        has no statistics.
        """


Load = Callable[[str | Path, RuntimeConfig], Engine]


def _torch(checkpoint: str | Path, runtime: RuntimeConfig) -> Engine:
    from dp_ros.inference.torch_engine import TorchEngine

    return TorchEngine(checkpoint, runtime)


# Engines that `choose_engine` has just verified: the load that follows need not read all files again.
_verified: dict[tuple[str, str], Path] = {}


def _key(checkpoint: str | Path, runtime: RuntimeConfig) -> tuple[str, str]:
    """The same only for the same weights: a training may replace a checkpoint at any time."""
    return str(read_config(checkpoint)["sha256"]), runtime.model_dump_json()


def _openvino(checkpoint: str | Path, runtime: RuntimeConfig) -> Engine:
    exported = _verify(Path(checkpoint), runtime)
    from dp_ros.inference.openvino_engine import OpenVinoEngine

    try:
        return OpenVinoEngine(checkpoint, runtime, exported)
    except (RuntimeError, OSError, KeyError) as error:  # the cache has changed since the check, say
        why = f"{exported} cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())})"
        raise ConfigError(_refusal("openvino", why)) from None


def _cuda(checkpoint: str | Path, runtime: RuntimeConfig) -> Engine:
    _verify(Path(checkpoint), runtime)
    from dp_ros.inference.cuda_engine import CudaEngine

    return CudaEngine(checkpoint, runtime)


def _verify(checkpoint: Path, runtime: RuntimeConfig) -> Path:
    """The folder of an engine that has passed its check. ConfigError where it has not."""
    folder = _verified.pop(_key(checkpoint, runtime), None)
    if folder is None or not folder.is_dir():  # another process may have removed it meanwhile
        try:
            folder, _ = _check(checkpoint, runtime)
        except EngineCheckError as error:
            raise ConfigError(_refusal(runtime.engine, str(error))) from None
    return folder


def _refusal(engine: str, why: str) -> str:
    return f"engine {engine}: {why}; set engine to auto or torch"


def _check(checkpoint: Path, runtime: RuntimeConfig) -> tuple[Path, Verdict]:
    """The folder of an engine with its verdict. EngineCheckError, and CheckpointError for the checkpoint itself."""
    version = _VERSIONS[runtime.engine]()
    verify_files(checkpoint)
    try:
        return checked_engine(checkpoint, runtime, version)
    except OSError as error:
        raise EngineCheckError(f"its cache cannot be used ({error.filename}: {error.strerror})") from None


def _openvino_version() -> str:
    try:
        return metadata.version("openvino")
    except metadata.PackageNotFoundError:
        raise EngineCheckError("the package openvino is not installed: pip install openvino") from None


def _cuda_version() -> str:
    """Of torch, with the GPU."""
    if not has_gpu():
        raise EngineCheckError("torch sees no GPU")
    import torch

    if torch.version.hip:
        raise EngineCheckError("the GPU is none of NVIDIA's")
    return f"{torch.__version__} {torch.cuda.get_device_name()}"


_VERSIONS = {"openvino": _openvino_version, "cuda": _cuda_version}
# name -> loader, which imports lazily
ENGINES: dict[str, Load] = {"torch": _torch, "openvino": _openvino, "cuda": _cuda}
BF16_ENGINES = tuple(_VERSIONS)  # those that are checked
AUTO = "auto"
_GPU_WORKSPACE_BYTES = 600_000_000  # of the CUDA context, its libraries and the activations
_WORTH = 1.2  # times as fast as in f32 must bf16 be on a GPU


def choose_engine(checkpoint: str | Path, runtime: RuntimeConfig) -> tuple[RuntimeConfig, str]:
    """The runtime with engine, precision and threads decided, and the reason in one line.

    engine: on a machine with a GPU that `device` allows and that has the memory, CUDA graphs, otherwise OpenVINO; each
    where it agrees with torch on fixed noise and is faster: see `self_check`. Otherwise torch.
    precision: bf16 where the engine and what it runs on have it and it passes the same check, otherwise f32.
    threads in real time: half of the cores. On two cores beside the simulator, two threads make a plan later than one,
    because the node's callbacks and the cameras wait for a core.

    CheckpointError, and ConfigError where the sampler does not fit the weights, or `gate.max_ood_score` needs
    statistics that the checkpoint lacks.
    """
    if ood_stats_of(checkpoint) is None and runtime.gate.max_ood_score:
        raise ConfigError(
            f"gate.max_ood_score {runtime.gate.max_ood_score:g}: {checkpoint} has no statistics of its training "
            "pictures: make them with `dp_ros ood-stats`, or set it to 0"
        )
    sampler_settings(policy_config(checkpoint).diffusion, runtime)  # a wrong setting is no fault of an engine
    runtime = _with_threads(runtime)
    if runtime.engine not in (AUTO, *BF16_ENGINES):
        if runtime.precision == "bf16":
            raise ConfigError(
                f"engine {runtime.engine} has no precision bf16: set precision or engine to auto"
            )
        return _decided(runtime, runtime.engine, "f32"), "as set"
    reasons = []
    wants_gpu = runtime.engine == "cuda"
    if runtime.engine == AUTO and (runtime.device == "cuda" or (runtime.device == "auto" and has_gpu())):
        lacking = "" if runtime.device == "cuda" else _gpu_lacks(Path(checkpoint))
        if lacking:
            reasons.append(f"the GPU was not taken: {lacking}")
            runtime = runtime.model_copy(update={"device": "cpu"})
        wants_gpu = not lacking
    places = {("cuda", "cpu"): "a GPU", ("openvino", "cuda"): "the CPU"}
    if where := places.get((runtime.engine, runtime.device)):
        wrong = "engine {} computes on {}, and device is {}: set device or engine to auto"
        raise ConfigError(wrong.format(runtime.engine, where, runtime.device))
    if runtime.engine != AUTO and runtime.precision != "auto":
        return runtime, "as set"
    engine = "cuda" if wants_gpu else "openvino"
    precisions = [runtime.precision]
    if runtime.precision == "auto":
        precisions = ["bf16", "f32"] if (_gpu_has_bf16() if wants_gpu else has_bf16()) else ["f32"]
    passed: list[tuple[RuntimeConfig, Path, float]] = []  # with the time of a plan
    for precision in precisions:
        candidate = _decided(runtime, engine, precision)
        try:
            folder, verdict = _check(Path(checkpoint), candidate)
        except EngineCheckError as error:
            reasons.append(f"{engine} {candidate.precision} was not taken: {error}")
            continue
        reasons.append(
            f"a plan takes {engine} {precision} {verdict.plan_ms:.1f} ms and torch {verdict.reference_ms:.1f} ms, "
            f"and their actions differ by {verdict.error:.1g} of half their range"
        )
        if runtime.engine != AUTO or verdict.plan_ms <= verdict.reference_ms:
            passed.append((candidate, folder, verdict.plan_ms))
            if not wants_gpu:  # a small plan waits for its launches, in any precision: compare
                break
    if passed:
        candidate, folder, plan_ms = passed[0]
        if len(passed) == 2 and passed[1][2] < _WORTH * plan_ms:  # bf16 costs accuracy
            candidate, folder, _ = passed[1]
        _verified[_key(checkpoint, candidate)] = folder
        return candidate, "; ".join(reasons)
    if runtime.engine != AUTO:
        raise ConfigError(_refusal(engine, "; ".join(reasons)))
    return _decided(runtime, "torch", "f32"), "; ".join(reasons)


def _decided(runtime: RuntimeConfig, engine: str, precision: str) -> RuntimeConfig:
    return runtime.model_copy(update={"engine": engine, "precision": precision})


def _with_threads(runtime: RuntimeConfig) -> RuntimeConfig:
    if runtime.threads or runtime.mode == "lockstep":
        return runtime
    return runtime.model_copy(update={"threads": max(1, len(os.sched_getaffinity(0)) // 2)})


def load_engine(checkpoint: str | Path, runtime: RuntimeConfig) -> Engine:
    """The engine `runtime.engine` with the checkpoint in the folder `checkpoint`, warm.

    Raises ConfigError (an unknown engine, one that fails its check, a device that is missing, a sampler that does not
    fit the weights) and CheckpointError.
    """
    runtime, _ = choose_engine(checkpoint, runtime)
    if runtime.engine not in ENGINES:
        known = ", ".join((AUTO, *ENGINES))
        raise ConfigError(f"engine '{runtime.engine}' is unknown: choose one of {known}")
    return ENGINES[runtime.engine](checkpoint, runtime)


def _gpu_lacks(checkpoint: Path) -> str:
    """Why the GPU has no room for the policy; empty where it has."""
    half = read_config(checkpoint).get("weights_dtype") == "f16"
    needed = (checkpoint / WEIGHTS).stat().st_size * (2 if half else 1) + _GPU_WORKSPACE_BYTES
    free = free_gpu_bytes()
    return f"{free / 1e6:.0f} MB of its memory are free, {needed / 1e6:.0f} needed" if free < needed else ""


def _gpu_has_bf16() -> bool:
    """Whether the GPU multiplies numbers of bf16: from Ampere on."""
    if not has_gpu():
        return False
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def crop(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """picture (H, W, 3) -> its centre, of `size` (height, width): what a policy sees when it is served."""
    top, left = (picture.shape[0] - size[0]) // 2, (picture.shape[1] - size[1]) // 2
    return picture[top : top + size[0], left : left + size[1]]


def blank_request(config: PolicyConfig) -> PlanRequest:
    """A request with black pictures, to warm up with."""
    encoder, T_o = config.encoder, config.horizons.T_o
    frame = tuple(np.zeros((*encoder.target(c).size, 3), dtype=np.uint8) for c in encoder.cameras)
    told = None
    if config.instruction:
        told = np.full(config.instruction.embedding_dim, config.instruction.embedding_dim**-0.5, np.float32)
    state = np.zeros((T_o, STATE_DIM))
    return PlanRequest((frame,) * T_o, state, np.zeros(POSITION.size), 0, (0,), instruction=told)


def needed_instruction(embedding: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """The embedding; InstructionError where there is none."""
    if embedding is None:
        raise InstructionError("no instruction: this policy is told by a sentence what to do")
    return embedding


def sampler_settings(diffusion: DiffusionConfig, runtime: RuntimeConfig) -> DiffusionConfig:
    """The checkpoint's sampler, iterations and spacing, with the runtime's overrides.

    ConfigError where the weights were not trained for them.
    """
    changes: dict[str, str | int] = {}
    if runtime.sampler != "checkpoint":
        changes["sampler"] = runtime.sampler
        if runtime.sampler in FULL_SAMPLERS:
            changes["sampler_iterations"] = diffusion.iterations
    if runtime.sampler_iterations:
        changes["sampler_iterations"] = runtime.sampler_iterations
    if runtime.sampler_spacing != "checkpoint":
        changes["spacing"] = runtime.sampler_spacing
    chosen = override(diffusion, changes, where="sampler")
    visited = visited_iterations(chosen.iterations, chosen.sampler_iterations, chosen.spacing)
    if diffusion.distilled_for and not set(visited) <= set(diffusion.distilled_for):
        raise ConfigError(
            f"sampler: these weights were distilled for iterations {', '.join(map(str, diffusion.distilled_for))}, and "
            f"{chosen.sampler} of {chosen.sampler_iterations} with {chosen.spacing} spacing visits others: leave "
            "sampler, iterations and spacing as the checkpoint has them"
        )
    _check_warm_start(visited, runtime.warm_start)
    return chosen


def _check_warm_start(visited: list[int], last: int) -> None:
    """ConfigError where a plan cannot begin `last` iterations before the end of those visited."""
    if last and last >= len(visited):
        raise ConfigError(
            f"warm_start {last}: it must be less than the sampler's {len(visited)} iterations: lower it, or set it to 0"
        )
    if last and visited[-last] == 0:
        raise ConfigError(
            f"warm_start {last}: the last iteration is k = 0, where the network expects a clean chunk and hardly "
            "changes it: raise it, or set sampler_spacing to trailing"
        )
