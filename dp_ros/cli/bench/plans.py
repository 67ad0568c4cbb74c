"""Sides of the inference benchmark: plans of LeRobot's model and of the engines, each in a process of its own.

A side answers its first turn with `Loaded`, and each later one with the times of a block of plans, by row of the
result. A block begins with a plan that is not measured, because the sides before it took the caches.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import POSITION, STATE_DIM
from dp_ros.cli.bench.lerobot_model import load_weights, make_lerobot_model
from dp_ros.control.planner import PlanRequest
from dp_ros.inference.engine import blank_request
from dp_ros.schema import PolicyConfig, RuntimeConfig

# Milliseconds of a plan: wall time, and processor time of all threads, which other load disturbs less.
Times = tuple[float, float]
PREFETCHED = "prefetched"  # the older frames of the window


@dataclass(frozen=True)
class Loaded:
    """A side that is ready: the part from now on of its chunks for fixed requests, by row, normalised."""

    chunks: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Block:
    """Times of a block of plans by row, and the process's memory."""

    times: dict[str, list[Times]]
    rss_mb: float
    peak_mb: float  # since it began, with the loading


def lerobot(
    overlay: Path, weights: Path, config: PolicyConfig, device: str, rows: dict[str, bool], pipe: Connection
) -> None:
    """Plans of LeRobot's model with a policy's weights on a device. rows: name -> whether under autocast to bf16."""
    pipe.recv()
    model = make_lerobot_model(
        overlay,
        config,
        noise_scheduler_type="DDIM",
        num_train_timesteps=config.diffusion.iterations,
        num_inference_steps=config.diffusion.sampler_iterations,
    ).eval()
    load_weights(model, weights, config)
    model = model.to(device)
    import torch

    from dp_ros.inference.noise import PlanNoise

    def plan(request: PlanRequest, autocast: bool) -> Callable[[], NDArray[np.float64]]:
        """The plan of a batch that is ready: normalised, as LeRobot's processors leave it."""
        images = torch.from_numpy(np.stack([np.stack(frame) for frame in request.images])[None])
        noise = PlanNoise(request.seed).draw(1, config.horizons.T_p, config.action.dim)
        batch = {
            "observation.state": torch.from_numpy(request.state)[None].float().to(device),
            "observation.images": images.movedim(-1, -3).float().to(device) / 127.5 - 1.0,
        }
        drawn = torch.from_numpy(noise).to(device)

        def run() -> NDArray[np.float64]:
            precision = torch.autocast(device, torch.bfloat16) if autocast else nullcontext()
            with torch.inference_mode(), precision:
                actions = model.generate_actions(batch, noise=drawn)
            return np.asarray(actions[0].double().cpu().numpy())

        return run

    _serve(pipe, config, {row: lambda request, a=a: plan(request, a) for row, a in rows.items()})


def engine(
    checkpoint: Path, runtime: RuntimeConfig, cache: Path | None, row: str, prefetch: bool, pipe: Connection
) -> None:
    """Plans of an engine, of windows that are new; with `prefetch` also of windows whose older frames are prefetched.

    cache: a folder for what the engines export; None: the user's.
    """
    pipe.recv()
    if cache:
        os.environ["XDG_CACHE_HOME"] = str(cache)
    from dp_ros.inference.engine import load_engine

    loaded = load_engine(checkpoint, runtime)
    from_now = slice(loaded.config.horizons.T_o - 1, None)

    def whole(request: PlanRequest) -> Callable[[], NDArray[np.float64]]:
        return lambda: loaded(request)[from_now]

    def prefetched(request: PlanRequest) -> Callable[[], NDArray[np.float64]]:
        for frame in request.images[:-1]:
            loaded.prefetch(frame)
        return whole(request)

    rows = {row: whole}
    if prefetch:
        rows[f"{row}, {PREFETCHED}"] = prefetched
    _serve(pipe, loaded.config, rows)


def _serve(
    pipe: Connection,
    config: PolicyConfig,
    rows: dict[str, Callable[[PlanRequest], Callable[[], NDArray[np.float64]]]],
) -> None:
    """Answer the turns. rows: name -> a function that prepares a request, unmeasured, and returns its plan."""
    rng = np.random.default_rng(0)
    fixed = [_request(config, rng) for _ in range(FIXED)]
    pipe.send(Loaded({row: np.stack([ready(request)() for request in fixed]) for row, ready in rows.items()}))
    while True:
        plans = pipe.recv()
        times = {}
        for row, ready in rows.items():
            times[row] = [_timed(ready(_request(config, rng))) for _ in range(1 + plans)][1:]
        pipe.send(Block(times, *_memory_mb()))


FIXED = 2  # requests whose chunks are compared


def _request(config: PolicyConfig, rng: np.random.Generator) -> PlanRequest:
    """Random pictures, states and noise; new arrays, of which no engine knows anything yet."""
    encoder, T_o = config.encoder, config.horizons.T_o
    images = tuple(
        tuple(rng.integers(0, 256, (*encoder.target(c).size, 3), dtype=np.uint8) for c in encoder.cameras)
        for _ in range(T_o)
    )
    seed = tuple(int(part) for part in rng.integers(0, 1 << 31, 2))
    state, told = rng.uniform(-1.0, 1.0, (T_o, STATE_DIM)), blank_request(config).instruction
    return PlanRequest(images, state, np.zeros(POSITION.size), 0, seed, instruction=told)


def _timed(plan: Callable[[], Any]) -> Times:
    began = time.perf_counter(), time.process_time()
    plan()
    ended = time.perf_counter(), time.process_time()
    return 1e3 * (ended[0] - began[0]), 1e3 * (ended[1] - began[1])


def _memory_mb() -> tuple[float, float]:
    """Resident memory of this process, now and at most. getrusage would count the parent's, before exec."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    facts = {line[0]: line[1] for line in lines if len(line) == 3}
    return int(facts["VmRSS:"]) / 1e3, int(facts["VmHWM:"]) / 1e3
