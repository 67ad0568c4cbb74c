"""Engine protocol, the table of engines, and `load_engine`. No torch is imported before an engine needs it.

To add an engine, write it in a file of this folder and enter its loader in `ENGINES`; the runtime setting `engine`
then chooses it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dp_ros.control.planner import PlanRequest
from dp_ros.schema import FULL_SAMPLERS, ConfigError, DiffusionConfig, PolicyConfig, RuntimeConfig, override


class Engine(Protocol):
    """A policy that is loaded and warm, ready to plan.

    Loading: the loader has computed one plan before it returns, so the first request is as fast as the others.
    Thread: an engine is called only from the thread that loaded it, one request at a time. Compiled GPU models
    require it, and `PlanWorker` and `InlinePlanner` keep to it.
    State: none between calls. Equal requests give equal chunks; all randomness follows from `request.seed`.
    """

    @property
    def config(self) -> PolicyConfig:
        """Meaning of the weights, as the checkpoint states it."""

    def __call__(self, request: PlanRequest, /) -> NDArray[np.float64]:
        """request.images V of (T_o, H, W, 3) uint8, at the encoder's sizes before its crops, cameras V in its order;
        request.state (T_o, STATE_DIM) -> chunk (T_p, action_dim) of the declared kinds, in metres and [-1, 1].
        """


Load = Callable[[str | Path, RuntimeConfig], Engine]


def _torch(checkpoint: str | Path, runtime: RuntimeConfig) -> Engine:
    from dp_ros.inference.torch_engine import TorchEngine

    return TorchEngine(checkpoint, runtime)


ENGINES: dict[str, Load] = {"torch": _torch}  # name in RuntimeConfig.engine -> loader, which imports lazily


def load_engine(checkpoint: str | Path, runtime: RuntimeConfig) -> Engine:
    """The engine `runtime.engine` with the checkpoint in the folder `checkpoint`, warm.

    Raises ConfigError (an unknown engine, a device that is missing, a sampler that does not fit the weights) and
    CheckpointError.
    """
    if runtime.engine not in ENGINES:
        raise ConfigError(f"engine '{runtime.engine}' is unknown: choose one of {', '.join(ENGINES)}")
    return ENGINES[runtime.engine](checkpoint, runtime)


def sampler_settings(diffusion: DiffusionConfig, runtime: RuntimeConfig) -> tuple[str, int]:
    """Sampler and its iterations: the checkpoint's, with the runtime's overrides.

    ConfigError where the weights were not trained for them.
    """
    changes: dict[str, str | int] = {}
    if runtime.sampler != "checkpoint":
        changes["sampler"] = runtime.sampler
        if runtime.sampler in FULL_SAMPLERS:
            changes["sampler_iterations"] = diffusion.iterations
    if runtime.sampler_iterations:
        changes["sampler_iterations"] = runtime.sampler_iterations
    used = override(diffusion, changes, where="sampler")
    return used.sampler, used.sampler_iterations
