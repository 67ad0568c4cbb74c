"""`dp_ros robustness`: how much goes wrong before a policy fails."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from dp_ros.cli.console import ProgressLine, duration, find_checkpoint
from dp_ros.cli.evaluate import (
    FirstSeed,
    Jobs,
    MaxSteps,
    PolicySeed,
    Task,
    Threads,
    describe,
    lockstep_runtime,
    task_and_seeds,
)


def robustness(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint or run folder, or a name in models/.")],
    report_path: Annotated[
        Path, typer.Option("--report", metavar="DIR", help="Write the page and robustness.json there.")
    ],
    disturb: Annotated[
        list[str] | None,
        typer.Option(
            "--disturb",
            metavar="KIND[=S,S...]",
            show_default="all that the task allows",
            help="occlusion, patch [frames], brightness [stops], dropped-frames [share], camera-shift, "
            "object-shift [mm] or action-delay [ticks], with strengths of your own; repeat.",
        ),
    ] = None,
    task: Task = "",
    episodes: Annotated[int, typer.Option(min=1, help="At each strength, the same seeds.")] = 20,
    seed: FirstSeed = 0,
    policy_seed: PolicySeed = 0,
    max_steps: MaxSteps = 200,
    jobs: Jobs = 1,
    threads: Threads = 0,
) -> None:
    """Success against the strength of what may go wrong: covered cameras, late commands, moved objects."""
    folder = find_checkpoint(checkpoint)
    runtime = lockstep_runtime("checkpoint", 0, policy_seed, threads)
    task, seeds = task_and_seeds(folder, task, seed, episodes)
    from dp_ros.evaluation.disturbances import possible, sweep
    from dp_ros.evaluation.publish import examples_of, name_of, publish, section_of
    from dp_ros.evaluation.robustness import measure
    from dp_ros.evaluation.rollout import Setting
    from dp_ros.evaluation.statistics import write_json

    sweeps = [sweep(text) for text in disturb or possible(task)]
    setting = Setting(str(folder), task, runtime, max_steps)
    began = time.monotonic()
    with ProgressLine("episodes") as progress:

        def on_episode(done: int, total: int) -> None:
            left_s = (time.monotonic() - began) / done * (total - done)
            progress.update(done, f"{duration(left_s)} left", total)

        report, curves = measure(setting, sweeps, seeds, jobs, on_episode)
    describe(report, folder, runtime, max_steps, jobs)
    print(report.summary())
    for curve in curves:
        print(curve.line())
    section = section_of(report, name_of(folder), setting)
    data = [curve.as_dict() for curve in curves]
    write_json(report_path / "robustness.json", {**report.as_dict(), "curves": data})
    title = f"Robustness of {section.name}"
    examples = list(examples_of(setting, curves))
    print(f"report: {publish(report_path, title, [section], data, examples)}")
