"""`dp_ros robustness`: success of a policy against the strength of disturbances."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dp_ros.cli.console import ProgressLine, check_outputs
from dp_ros.cli.evaluate import describe, task_and_seeds
from dp_ros.cli.options import (
    Checkpoint,
    EngineOption,
    FirstSeed,
    Iterations,
    Jobs,
    MaxSteps,
    PolicySeed,
    Precision,
    Sampler,
    SpacingOption,
    Task,
    Threads,
    lockstep_runtime,
)

if TYPE_CHECKING:
    from dp_ros.evaluation.results import Report
    from dp_ros.evaluation.robustness import Curve


def robustness(
    checkpoint: Checkpoint,
    report_path: Annotated[
        Path, typer.Option("--report", metavar="DIR", help="Write the HTML report and robustness.json there.")
    ],
    disturb: Annotated[
        list[str] | None,
        typer.Option(
            "--disturb",
            metavar="KIND[=S,S...]",
            show_default="all that fit task and policy",
            help="Disturbance and its strengths: occlusion, patch (frames), brightness (stops), dropped-frames "
            "(share), camera-shift, object-shift (mm), action-delay, known-delay or plan-delay (ticks), "
            "speed-limit or speed-clip (% slower); repeat for more.",
        ),
    ] = None,
    task: Task = "",
    episodes: Annotated[
        int, typer.Option(min=1, help="Number of episodes at each strength, on the same seeds.")
    ] = 20,
    seed: FirstSeed = 0,
    policy_seed: PolicySeed = 0,
    max_steps: MaxSteps = 200,
    sampler: Sampler = "checkpoint",
    iterations: Iterations = 0,
    spacing: SpacingOption = "checkpoint",
    engine: EngineOption = "auto",
    precision: Precision = "auto",
    continuity: Annotated[
        str,
        typer.Option(
            help="Transition to a new chunk: auto, switch, shift, ensemble or inpaint; see the reference."
        ),
    ] = "auto",
    jobs: Jobs = 1,
    threads: Threads = 0,
) -> None:
    """Measure success against the strength of disturbances: covered cameras, late commands, moved objects.

    Example: dp_ros robustness runs/drawer --report runs/robust --jobs 2
    """
    from dp_ros.policy.checkpoint_folder import find_checkpoint

    folder = find_checkpoint(checkpoint)
    task, seeds = task_and_seeds(folder, task, seed, episodes)
    from dp_ros.evaluation.disturbances import sweep
    from dp_ros.evaluation.report.write_report import (
        add_videos,
        examples_of,
        section_of,
        unique_names,
        write_report,
        write_section,
    )
    from dp_ros.evaluation.robustness import check_sweeps, default_sweeps, largest_part, measure
    from dp_ros.evaluation.rollout import EvalConfig
    from dp_ros.files import write_json
    from dp_ros.schema import override

    runtime = lockstep_runtime(
        policy_seed, threads, sampler, iterations, spacing, engine=engine, precision=precision
    )
    runtime = override(runtime, {"continuity": continuity}, where="robustness")
    sweeps = [sweep(text) for text in disturb] if disturb else default_sweeps(task, folder, runtime)
    check_sweeps(sweeps, task, folder, runtime)
    about = describe(folder, runtime, max_steps, jobs, largest_part(sweeps, seeds))
    check_outputs(folders=[report_path])
    setting = EvalConfig(
        str(folder), task, runtime, max_steps, weights_sha256=about["provenance"]["weights_sha256"]
    )

    def write(report: Report, curves: list[Curve], complete: bool = False) -> None:
        """Write the finished part, because a run of hours may be stopped."""
        report.settings, report.provenance = about["settings"], about["provenance"]
        data = {"complete": complete, "curves": [curve.as_dict() for curve in curves]}
        write_json(report_path / "robustness.json", {**report.as_dict(), **data})

    with ProgressLine("episodes") as progress:

        def on_episode(done: int, total: int) -> None:
            progress.update(done, "", total)

        report, curves = measure(setting, sweeps, seeds, jobs, on_episode, write)
    write(report, curves, complete=True)
    print(report.summary())
    for curve in curves:
        print(curve.line())
    (name,) = unique_names([folder])
    section = section_of(report, name)
    write_section(report_path, section)
    add_videos(section, setting)
    title = f"Robustness of {section.name}"
    examples = list(examples_of(setting, curves))
    page = write_report(report_path, title, [section], [curve.as_dict() for curve in curves], examples)
    print(f"report: {page}")
