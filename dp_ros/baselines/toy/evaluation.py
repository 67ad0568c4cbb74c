"""Evaluation of a method on the bimodal toy: the share of each side, of collisions and of success."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from dp_ros.baselines.config import BimodalToyConfig, Method
from dp_ros.baselines.methods.policy import ChunkPolicy
from dp_ros.baselines.toy.paths import START, Array, judge, observations
from dp_ros.baselines.toy.training import ToyTraining

PATHS_PER_PLAN = 128
DRAWN = 40  # paths of one observation that are kept for the picture


def run_toy(config: BimodalToyConfig, method: Method, seed: int) -> dict[str, Any]:
    """Train one method with one seed. Returns a mapping for JSON: every evaluation, and paths to draw."""
    with one_thread():
        return _run(config, method, seed)


def _run(config: BimodalToyConfig, method: Method, seed: int) -> dict[str, Any]:
    training = ToyTraining(config, method, seed)
    # Every method and seed gets the same observations; none of them was trained on.
    state = observations(config.observations, np.random.default_rng([config.data_seed, 1]))
    evaluations: list[dict[str, float]] = []
    drawn: list[list[list[float]]] = []

    def on_evaluation(step: int, loss: float, policy: ChunkPolicy) -> None:
        is_last = step == config.steps
        samples = config.final_samples if is_last else config.samples
        paths = sample_paths(policy, state, samples, seed)
        evaluations.append({"step": step, "loss": loss, **measure(state, paths, config)})
        if is_last:
            many = sample_paths(policy, state[:1], DRAWN, seed)[0]
            start = np.tile(START.of(state[0]), (DRAWN, 1, 1))
            drawn.extend(np.concatenate([start, many], axis=1).round(4).tolist())

    training.run(on_evaluation)
    return {
        "method": method,
        "seed": seed,
        "parameters": training.parameters,
        "evaluations": evaluations,
        "paths_m": drawn,
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """Run on one torch thread: small networks gain nothing from more, and sums keep their order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def sample_paths(policy: ChunkPolicy, state: Array, samples: int, seed: int) -> Array:
    """`samples` paths for each row of state (N, STATE_DIM): (N, samples, T_p, 2) in metres."""
    repeated = torch.from_numpy(state).float().repeat_interleave(samples, dim=0)[:, None]
    generator = torch.Generator().manual_seed(seed)
    # In parts, for memory: the implicit policy searches hundreds of candidates for each path.
    plans = [policy.plan(None, part, generator) for part in repeated.split(PATHS_PER_PLAN)]
    return torch.cat(plans).double().numpy().reshape(len(state), samples, -1, 2)


def measure(state: Array, paths: Array, config: BimodalToyConfig) -> dict[str, float]:
    """Shares over all paths (N, samples, T_p, 2), sampled for state (N, STATE_DIM).

    `minority` is the share of the rarer side among one observation's paths, averaged over observations. It is near 0.5
    if both sides are equally likely for each observation, and 0 if each observation has one side, even if left and
    right are equally frequent overall.
    """
    count, samples = paths.shape[:2]
    verdict = judge(np.repeat(state, samples, axis=0), paths.reshape(count * samples, -1, 2), config)
    left, right = (side.reshape(count, samples).mean(1) for side in (verdict.left, verdict.right))
    return {
        "left": float(left.mean()),
        "right": float(right.mean()),
        "neither": float(1.0 - (left + right).mean()),
        "minority": float(np.minimum(left, right).mean()),
        "collided": float(verdict.collided.mean()),
        "success": float(verdict.success.mean()),
    }
