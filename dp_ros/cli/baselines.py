"""`dp_ros baselines`: Diffusion Policy compared with regression, mixture and implicit policies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dp_ros.cli.console import ProgressLine, duration
from dp_ros.cli.errors import USAGE, CliError, on_interrupt
from dp_ros.cli.options import Jobs, set_option
from dp_ros.cli.train import training_settings

if TYPE_CHECKING:
    from dp_ros.baselines.config import ComparisonConfig
    from dp_ros.schema import Settings, TrainConfig
    from dp_ros.train.progress import Progress


def baselines(
    out: Annotated[Path, typer.Option(help="Folder for the report, results.json and every run.")],
    task: Annotated[str, typer.Option(show_default="the dataset's", help="Task of the dataset.")] = "",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Dataset made by `dp_ros collect`: also compare on the simulated arm, which takes hours."
        ),
    ] = None,
    config: Annotated[
        str, typer.Option(help="Training on the arm: a preset (cpu, paper) or a YAML file.")
    ] = "cpu",
    assignments: Annotated[
        list[str] | None, set_option("a setting of ComparisonConfig", "arm.episodes=50")
    ] = None,
    train_assignments: Annotated[
        list[str] | None,
        set_option("a setting of the arm's TrainConfig", "steps=500", name="--train"),
    ] = None,
    toy: Annotated[bool, typer.Option(help="Compare on the bimodal toy.")] = True,
    jobs: Jobs = -1,
) -> None:
    """Compare diffusion with regression, mixture and implicit policies; runs that are in OUT are not repeated.

    Example: dp_ros baselines --out runs/baselines --data runs/data/drawer
    """
    from dp_ros.baselines.config import ComparisonConfig
    from dp_ros.schema import Layers

    if task and not data:
        raise CliError("--task without a dataset: give one with --data", USAGE)
    if not (toy or data):
        raise CliError("nothing to compare: give a dataset with --data, or omit --no-toy", USAGE)
    layers = Layers()
    layers.assign(assignments)
    settings = layers.settings(ComparisonConfig).config
    chosen = training_settings(config, train_assignments, "--train")
    training = chosen.config
    if data:
        from dp_ros.baselines.arm import check_comparable

        check_comparable(settings, training)
        training = _fit(chosen, data, task)
    with on_interrupt("run the same command to resume"):
        _run(settings, training, data, out, toy, jobs)


def _fit(settings: Settings[TrainConfig], data: Path, task: str) -> TrainConfig:
    """The training with the dataset's rate, cameras and size; ConfigError where it does not fit the dataset."""
    from dp_ros.data.episodes import read_layout
    from dp_ros.schema import Layers, Source, override
    from dp_ros.sim.arm import check_task
    from dp_ros.train.fit import TASK, fit

    if task:
        layers = Layers.of(settings)
        layers.add(TASK, check_task(task), Source(f"--task {task}"))
        settings = layers.settings(type(settings.config))
    fitted = fit(settings, read_layout(data), str(data)).config
    return override(
        fitted, {TASK: settings.config.policy.task}
    )  # runs in --out were compared with the typed task


def _run(
    settings: ComparisonConfig, training: TrainConfig, data: Path | None, out: Path, toy: bool, jobs: int
) -> None:
    from dp_ros.baselines.comparison import RESULTS, compare_on_toy, write_results
    from dp_ros.baselines.report import write_report

    toy_runs, arm_runs = [], []
    if toy:
        with ProgressLine("toy") as line:
            toy_runs = compare_on_toy(
                settings, out, jobs, lambda done, total: line.update(done, "runs", total)
            )
    if data:
        from dp_ros.baselines.arm import compare_on_arm

        with ProgressLine("arm") as line:

            def on_step(method: str, seed: int, progress: Progress) -> None:
                note = f"{method}, seed {seed}: loss {progress.loss:.4f}, {duration(progress.eta_s)} left"
                line.update(progress.step, note, progress.steps)

            arm_runs = compare_on_arm(
                settings, training, data, out, on_step, lambda fault: line.say(f"warning: {fault}")
            )
    results = write_results(out, settings, toy_runs, arm_runs)
    report = write_report(out, settings, results, toy_runs)
    for method, row in results["toy"]["summary"].items():
        print(
            f"{method}: left {row['left']['mean']:.0%}, right {row['right']['mean']:.0%}, "
            f"collisions {row['collided']['mean']:.1%}, success {row['success']['mean']:.1%}"
        )
    for run in arm_runs:
        end = run["evaluations"][-1]
        print(f"{run['method']}, seed {run['seed']}: {end['successes']}/{end['episodes']} on {run['task']}")
    print(f"numbers: {out / RESULTS}\nreport: {report}")
