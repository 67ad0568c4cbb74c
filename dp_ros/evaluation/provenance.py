"""Provenance of a report: weights, settings, software and command."""

from __future__ import annotations

import os
import platform
import shlex
from pathlib import Path
from typing import Any

import torch

from dp_ros import __version__
from dp_ros.evaluation.rollout import worker_count, worker_threads
from dp_ros.inference.engine import choose_engine, sampler_settings
from dp_ros.policy.checkpoint_config import policy_config, read_config
from dp_ros.schema import RuntimeConfig
from dp_ros.train.run import git_commit

_POLICY = ("network", "rate_hz", "horizons", "encoder", "action", "diffusion")


def settings(
    checkpoint: str | Path, runtime: RuntimeConfig, max_steps: int, jobs: int, episodes: int
) -> dict[str, Any]:
    """Settings of the episodes. Same settings and seeds give the same results, to the bit, for any `jobs`."""
    runtime, _ = choose_engine(checkpoint, runtime)
    diffusion = sampler_settings(policy_config(checkpoint).diffusion, runtime)
    jobs = worker_count(jobs, episodes)
    limits = runtime.gate.model_dump(mode="json", exclude_defaults=True)
    return {
        "max_steps": max_steps,
        "sampler": diffusion.sampler,
        "sampler_iterations": diffusion.sampler_iterations,
        "spacing": diffusion.spacing,
        "warm_start": runtime.warm_start,
        "engine": runtime.engine,
        "precision": runtime.precision,
        "continuity": runtime.transition,
        "jobs": jobs,
        "threads": worker_threads(runtime, jobs) or torch.get_num_threads(),
        **({"gate": limits} if limits else {}),
    }


def provenance(checkpoint: str | Path, command: str = "") -> dict[str, Any]:
    """Weights, software and kind of machine. Absolute paths in `command` are shortened to their last part."""
    config = read_config(checkpoint)
    left_out = ("config", "history")
    training = {key: value for key, value in config.get("training", {}).items() if key not in left_out}
    return {
        "command": shlex.join(map(_shortened, shlex.split(command))),
        "dp_ros": __version__,
        "commit": git_commit() or "",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "weights_sha256": config["sha256"]["policy.safetensors"],
        "policy": {key: config["policy"][key] for key in _POLICY if key in config["policy"]},
        "training": training,
    }


def _shortened(word: str) -> str:
    """A word of a command line: an absolute path, alone or after "--option=", becomes its last part."""
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    return f"{option}{equals}{Path(value).name}" if value.startswith("/") else word
