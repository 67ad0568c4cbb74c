"""Episodes on several processes against one process that has the machine to itself, by turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from dp_ros.evaluation.disturbances import NONE
from dp_ros.evaluation.rollout import Episode, Setting, Stage, run_episodes, worker_threads
from dp_ros.policy.checkpoint_config import policy_config
from dp_ros.schema import RuntimeConfig


def compare_jobs(checkpoint: Path, jobs: int, rounds: int, max_steps: int) -> dict[str, Any]:
    """Ticks a second of both, each round on seeds of its own, and the median of the rounds' ratios.

    What is measured is the steady state: processes are started, and policy and simulator loaded, before.
    """
    task = policy_config(checkpoint).task
    setting = Setting(str(checkpoint), task, RuntimeConfig(mode="lockstep"), max_steps)
    stage = Stage(setting)

    def one(seeds: range) -> list[Episode]:
        return [stage.run(seed) for seed in seeds]

    def many(seeds: range) -> list[Episode]:
        return list(run_episodes(setting, [(seed, NONE) for seed in seeds], jobs))

    samples_hz: dict[str, list[float]] = {"one": [], "many": []}
    alike = 0
    try:
        one(range(1)), many(range(jobs))  # to warm up
        order: list[tuple[str, Callable[[range], list[Episode]]]] = [("one", one), ("many", many)]
        for i in range(rounds):
            seeds = range(i * 2 * jobs, (i + 1) * 2 * jobs)
            results = []
            for name, run in order:
                began = time.perf_counter()
                episodes = run(seeds)
                ticks = sum(episode.result.steps for episode in episodes)
                samples_hz[name].append(ticks / (time.perf_counter() - began))
                results.append([episode.result for episode in episodes])
            alike += sum(a == b for a, b in zip(*results, strict=True))
            order.reverse()  # neither always follows the other
    finally:
        stage.close()
    ratios = [many_hz / one_hz for one_hz, many_hz in zip(samples_hz["one"], samples_hz["many"], strict=True)]
    threads = {"one": torch.get_num_threads(), "many": worker_threads(setting.runtime, jobs)}
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
        "ratio": median(ratios),
        "same_results": alike / (rounds * 2 * jobs),
    }
