"""Comparison of the methods on a simulated arm: the same windows, steps and episodes, evaluated while they train."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from dp_ros.baselines.config import ArmConfig, ComparisonConfig, Method
from dp_ros.baselines.methods.mlp import count_parameters
from dp_ros.baselines.methods.policy import camera_policy
from dp_ros.documents import read_json
from dp_ros.evaluation.episode import run_episode
from dp_ros.evaluation.rollout import check_rate
from dp_ros.evaluation.seeds import check_unseen
from dp_ros.evaluation.statistics import wilson_interval
from dp_ros.files import write_json
from dp_ros.inference.torch_engine import plan_chunk
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import ConfigError, RuntimeConfig, TrainConfig, override
from dp_ros.sim.arm import ArmSpec, check_task, make_arm
from dp_ros.train.progress import Progress
from dp_ros.train.run import make_trainer
from dp_ros.train.run_folder import STATE
from dp_ros.train.trainer import Build

RECORD = "run.json"


def check_comparable(config: ComparisonConfig, training: TrainConfig) -> None:
    """ConfigError where the methods cannot be compared with these settings of the training."""
    if training.steps is None:
        raise ConfigError("the training has epochs, the comparison needs steps: add --train steps=N")
    if training.run_length > 1 and set(config.methods) != {"diffusion"}:
        raise ConfigError(
            f"run_length {training.run_length}: only diffusion encodes shared frames once: add --train run_length=1"
        )


def compare_on_arm(
    config: ComparisonConfig,
    training: TrainConfig,
    data: Path,
    out: Path,
    on_step: Callable[[Method, int, Progress], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """All runs on the arm, one after another, because each uses every core. The errors are those of `run_arm`.

    `on_warning` gets a line for each fault of the dataset, once.
    """
    check_comparable(config, training)
    runs: list[dict[str, Any]] = []
    for seed in range(config.arm.seeds):
        for method in config.methods:

            def report(progress: Progress, method: Method = method, seed: int = seed) -> None:
                if on_step:
                    on_step(method, seed, progress)

            folder = out / "arm" / f"{method}-{seed}"
            runs.append(
                run_arm(
                    config.arm, training, method, seed, data, folder, report, None if runs else on_warning
                )
            )
    return runs


def run_arm(
    arm_config: ArmConfig,
    training: TrainConfig,
    method: Method,
    seed: int,
    data: Path,
    folder: Path,
    on_step: Callable[[Progress], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train `method` on the dataset `data` in `folder`; the same call resumes a run that was stopped.

    Returns the losses and every evaluation's successes, and keeps them in folder/run.json. Raises ConfigError,
    DatasetError, TrainingError, TaskError, RenderingError.
    """
    steps = training.steps
    if steps is None:
        raise ConfigError("the training has epochs, the comparison needs steps: add --train steps=N")
    interval = max(1, steps // arm_config.evaluations)
    lengths = {
        "seed": seed,
        "checkpoint_every": interval,
        "log_every": math.gcd(interval, max(1, interval // 10)),
    }
    training = override(training, lengths)
    build: Build = (
        DiffusionPolicy
        if method == "diffusion"
        else partial(camera_policy, method=method, heads=arm_config.heads)
    )
    record = _begin(folder / RECORD, arm_config, training, method)
    if record["evaluations"] and record["evaluations"][-1]["step"] == steps:
        return record
    resume = (folder / STATE).exists()
    trainer = make_trainer(training, data, folder, resume=resume, build=build, on_warning=on_warning)
    policy = trainer.config.policy
    task = check_task(policy.task)
    check_rate(policy, task, str(folder))
    seeds = range(arm_config.first_seed, arm_config.first_seed + arm_config.episodes)
    check_unseen({"training": trainer.provenance}, task, seeds)
    record |= {"task": task, "parameters": count_parameters(trainer.policy)}
    plan = partial(plan_chunk, trainer.ema.plan, policy.encoder, trainer.device)
    scene = trainer.scene
    height_px, width_px = policy.encoder.largest_size()
    spec = ArmSpec(
        task,
        policy.encoder.cameras,
        scene.get("width_px", width_px),
        scene.get("height_px", height_px),
        scene.get("markers", False),
    )
    arm = make_arm(spec)

    def judge() -> None:
        """Run the episodes that are due at the trainer's step, unless the record has them."""
        step = trainer.step
        due = step == steps or (step % interval == 0 and steps - step >= interval)
        if not due or not all(evaluation["step"] < step for evaluation in record["evaluations"]):
            return
        runtime = RuntimeConfig(mode="lockstep")
        results = [run_episode(arm, plan, policy, runtime, each, arm_config.max_steps)[0] for each in seeds]
        won = [result.success for result in results]
        record["evaluations"].append(
            {
                "step": step,
                "successes": sum(won),
                "episodes": len(won),
                "success": sum(won) / len(won),
                "wilson": wilson_interval(sum(won), len(won)),
                "per_episode": [asdict(result) for result in results],
            }
        )
        write_json(folder / RECORD, record)

    def on_progress(progress: Progress) -> None:
        if all(loss["step"] < progress.step for loss in record["losses"]):  # a resumed run repeats some steps
            record["losses"].append({"step": progress.step, "loss": progress.loss})
        judge()
        if on_step:
            on_step(progress)

    try:
        if trainer.step:
            judge()  # the run may have been stopped between the step and its episodes
        trainer.run(on_progress)
    finally:
        write_json(folder / RECORD, record)
        arm.close()
    return record


def _begin(path: Path, arm_config: ArmConfig, training: TrainConfig, method: Method) -> dict[str, Any]:
    """The record of a stopped run, or an empty one; ConfigError where it had other settings."""
    settings = {
        "arm": arm_config.model_dump(mode="json", exclude={"seeds"}),
        "training": training.model_dump(mode="json"),
    }
    if path.exists():
        record: dict[str, Any] = read_json(path)
        if record["settings"] != settings:
            raise ConfigError(f"{path}: was made with other settings: give the same, or another --out")
        return record
    return {"method": method, "seed": training.seed, "settings": settings, "losses": [], "evaluations": []}
