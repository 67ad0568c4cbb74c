"""Speed of evaluation: several processes against one with equal threads, and against one with all threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from dp_ros.evaluation.disturbances import NONE
from dp_ros.evaluation.rollout import Episode, EpisodeRunner, EvalConfig, run_episodes, worker_threads
from dp_ros.policy.checkpoint_config import policy_config
from dp_ros.schema import RuntimeConfig


def compare_jobs(checkpoint: Path, jobs: int, rounds: int, max_steps: int) -> dict[str, Any]:
    """Ticks per second of each side, and the medians of the ratios; every round has its own seeds.

    The sides are "many" (`jobs` processes), "equal" (one process with as many threads as one of the many has) and "one"
    (one process with all threads). They take turns. Starting processes and loading are not measured.
    """
    task = policy_config(checkpoint).task
    config = EvalConfig(str(checkpoint), task, RuntimeConfig(mode="lockstep"), max_steps)
    runner = EpisodeRunner(config)
    all_threads, share = torch.get_num_threads(), worker_threads(config.runtime, jobs)

    def one(seeds: range, threads: int) -> list[Episode]:
        torch.set_num_threads(threads)
        return [runner.run(seed) for seed in seeds]

    def many(seeds: range) -> list[Episode]:
        return list(run_episodes(config, [(seed, NONE) for seed in seeds], jobs))

    sides: dict[str, Callable[[range], list[Episode]]] = {
        "equal": partial(one, threads=share),  # its renderer may still use every core
        "one": partial(one, threads=all_threads),
        "many": many,
    }
    samples_hz: dict[str, list[float]] = {name: [] for name in sides}
    same = 0
    try:
        one(range(1), all_threads), many(range(jobs))  # warm up
        order = list(sides)
        for i in range(rounds):
            seeds = range(i * 2 * jobs, (i + 1) * 2 * jobs)
            results = {}
            for name in order:
                began = time.perf_counter()
                episodes = sides[name](seeds)
                ticks = sum(episode.result.steps for episode in episodes)
                samples_hz[name].append(ticks / (time.perf_counter() - began))
                results[name] = [episode.result for episode in episodes]
            same += sum(a == b for a, b in zip(results["equal"], results["many"], strict=True))
            order.reverse()  # so that no side always runs after the same other
    finally:
        runner.close()
        torch.set_num_threads(all_threads)
    threads = {"equal": share, "one": all_threads, "many": share}
    ratios = {
        name: [a / b for a, b in zip(samples_hz["many"], samples_hz[name], strict=True)]
        for name in ("equal", "one")
    }
    return {
        "task": task,
        "jobs": jobs,
        "max_steps": max_steps,
        "episodes_per_block": 2 * jobs,
        **{
            name: {"threads": threads[name], "median_hz": median(samples), "samples_hz": samples}
            for name, samples in samples_hz.items()
        },
        "ratios": ratios,
        "ratio": {name: median(values) for name, values in ratios.items()},
        "same_results": same / (rounds * 2 * jobs),
    }
