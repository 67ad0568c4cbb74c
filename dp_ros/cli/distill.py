"""`dp_ros distill`: a checkpoint to a student that plans with one or two calls of the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dp_ros.cli.console import ProgressLine, duration
from dp_ros.cli.errors import USAGE, CliError, on_interrupt
from dp_ros.cli.options import Checkpoint, given, set_option, typed_config

if TYPE_CHECKING:
    from dp_ros.schema import DistillConfig


def distill(
    checkpoint: Checkpoint,
    data: Annotated[Path, typer.Option(help="Dataset of the teacher's task and cameras.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: state, checkpoint/ and TensorBoard logs.")],
    steps: Annotated[
        int | None, typer.Option(min=1, show_default="1500", help="Number of optimiser steps.")
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(min=1, max=4, show_default="2", help="Calls of the network in a plan of the student."),
    ] = None,
    assignments: Annotated[
        list[str] | None, set_option("a setting of DistillConfig", "train_encoder=true")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --out.")] = False,
) -> None:
    """Train a student: the teacher's network, which gives the teacher's plan in one or two calls.

    Example: dp_ros distill drawer-open-v3-unet --data runs/data/drawer --out runs/student
    """
    from dp_ros.policy.checkpoint_folder import find_checkpoint

    for text in assignments or ():
        if text.startswith("policy"):
            raise CliError(f"--set {text}: the student's policy is the teacher's: leave it out", USAGE)
    teacher = find_checkpoint(checkpoint)
    options = given(steps=steps, student_iterations=iterations)
    config = _settings(teacher, options, assignments)
    from dp_ros.train.distill import distill as run
    from dp_ros.train.distributed import is_first_process

    hint = on_interrupt("run the same command with --resume to resume")
    with ProgressLine("distilling", quiet=not is_first_process()) as progress, hint:
        student = run(
            config,
            teacher,
            data,
            out,
            resume=resume,
            on_start=lambda hardware: progress.say(f"distilling {teacher} on {hardware}"),
            on_planned=lambda done, total: progress.update(done, "episodes that the teacher planned", total),
            on_progress=lambda report: progress.update(
                report.step,
                f"loss {report.loss:.5f}, {report.step_s:.2f} s/step, {duration(report.eta_s)} left",
                report.steps,
            ),
            on_validation=lambda measured: progress.say(str(measured)),
            on_warning=lambda line: progress.say(f"warning: {line}"),
            command={"set": [*(f"{key}={value}" for key, value in options.items()), *(assignments or ())]},
        )
    if student:
        print(f"checkpoint: {student}")


def _settings(teacher: Path, options: Mapping[str, Any], assignments: list[str] | None) -> DistillConfig:
    """The settings that were typed; the augmentation is the teacher's where none was typed."""
    from dp_ros.policy.checkpoint_config import read_config
    from dp_ros.schema import DistillConfig

    kept = read_config(teacher).get("training", {}).get("config", {}).get("augmentation", {})
    return typed_config(DistillConfig, {**options, "augmentation": kept}, assignments)
