"""Speed of the real training loop, on random data."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile, schedule

from dp_ros.actions import POSITION, join
from dp_ros.data.episodes import Dataset
from dp_ros.data.windows import Windows
from dp_ros.policy.instructions import Instructions, Sentence
from dp_ros.schema import EncoderConfig, TrainConfig, override
from dp_ros.train.batches import Batches
from dp_ros.train.progress import Progress
from dp_ros.train.trainer import Trainer

WARM_UP = 3  # steps that are not measured
TICKS_PER_EPISODE = 80


def measure_training(config: TrainConfig, steps: int, profiled: bool) -> tuple[dict[str, Any], str]:
    """Milliseconds of each step and the share of forward and backward; the profiler's table, "" if not `profiled`."""
    total = WARM_UP + steps
    config = override(config, {"steps": total, "log_every": 1, "checkpoint_every": total})
    windows = noise_windows(config)
    reports: list[Progress] = []
    with tempfile.TemporaryDirectory(prefix="dp_ros-bench-") as folder:
        told = noise_instructions(config)
        batches = partial(Batches, instructions=told)
        trainer = Trainer(config, windows, Path(folder) / "run", make_batches=batches, instructions=told)
        parameters = sum(parameter.numel() for parameter in trainer.policy.parameters())
        device = trainer.device.type
        table = ""
        if profiled:
            activities = [ProfilerActivity.CPU]
            if device == "cuda":
                activities.append(ProfilerActivity.CUDA)
            phases = schedule(wait=WARM_UP - 1, warmup=1, active=steps)
            with profile(activities=activities, schedule=phases) as profiler:

                def on_step(report: Progress) -> None:
                    reports.append(report)
                    profiler.step()

                trainer.run(on_step)
            table = profiler.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=20)
        else:
            trainer.run(reports.append)
    measured = reports[WARM_UP:]
    samples_ms = [report.step_s * 1e3 for report in measured]
    data = {
        "batch_size": config.batch_size,
        "parameters": parameters,
        "precision": config.precision,
        "device": device,
        "threads": torch.get_num_threads(),
        "median_ms": median(samples_ms),
        "compute_share": median(report.compute_share for report in measured),
        "samples_ms": samples_ms,
    }
    return data, table


def noise_windows(config: TrainConfig) -> Windows:
    """Windows of random data, in the shapes that `config` trains on."""
    policy = config.policy
    return Windows(_noise(policy.encoder, config.batch_size), policy.horizons, policy.action, policy.encoder)


def noise_instructions(config: TrainConfig) -> Instructions | None:
    """One sentence for the only task of `noise_windows`, where the policy is told what to do."""
    if config.policy.instruction is None:
        return None
    dim = config.policy.instruction.embedding_dim
    return Instructions((Sentence("any", ""),), np.full((1, dim), dim**-0.5, dtype=np.float32))


def _noise(encoder: EncoderConfig, at_least: int) -> Dataset:
    """Episodes of random pictures and motion, with at least `at_least` ticks in all."""
    rng = np.random.default_rng(0)
    episodes = max(2, -(-at_least // TICKS_PER_EPISODE))
    ticks = episodes * TICKS_PER_EPISODE
    path_m = np.cumsum(rng.normal(0.0, 0.005, (ticks, POSITION.size)), axis=0)
    command = join(path_m, rng.uniform(-1.0, 1.0, ticks))
    return Dataset(
        images={
            camera: rng.integers(0, 256, (ticks, *encoder.target(camera).size, 3), dtype=np.uint8)
            for camera in encoder.cameras
        },
        ee_pose=path_m,
        gripper=rng.uniform(0.0, 1.0, ticks),
        action=command,
        command=command,
        episode_ends=np.arange(1, episodes + 1) * TICKS_PER_EPISODE,
        attributes={},
    )
