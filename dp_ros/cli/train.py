"""`dp_ros train`: a dataset to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from dp_ros.cli.console import ProgressLine, duration
from dp_ros.cli.errors import USAGE, CliError, Interrupted

if TYPE_CHECKING:
    from dp_ros.train.progress import Progress


def train(
    data: Annotated[Path, typer.Option(help="Dataset made by `dp_ros collect`.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: state, checkpoint/ and TensorBoard logs.")],
    config: Annotated[
        str,
        typer.Option(
            help="A preset (cpu, cpu-transformer, paper, paper-transformer) or a YAML file of TrainConfig."
        ),
    ] = "cpu",
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting, e.g. --set steps=500; repeat."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Train a policy. A run that was interrupted and resumed gives the same result: to the last bit on a CPU with
    as many threads, up to rounding on a GPU.

    On several GPUs or hosts: accelerate launch --multi_gpu --num_processes N -m dp_ros.cli train ...
    """
    from dp_ros.schema import TrainConfig, load_yaml, parse_assignment

    path = find_preset(config)
    settings = load_yaml(TrainConfig, path, dict(parse_assignment(text) for text in assignments or []))
    from dp_ros.train.distributed import is_first_process
    from dp_ros.train.run import train as run

    command = {"config": path.name, "set": list(assignments or [])}
    reports: list[Progress] = []
    with ProgressLine("training", quiet=not is_first_process()) as progress:

        def on_progress(report: Progress) -> None:
            reports.append(report)
            progress.update(
                report.step,
                f"loss {report.loss:.4f}, {report.step_s:.2f} s/step, {report.compute_share:.0%} compute, "
                f"{duration(report.eta_s)} left",
                report.steps,
            )

        try:
            checkpoint = run(
                settings,
                data,
                out,
                resume=resume,
                on_start=lambda hardware: progress.say(f"training on {hardware}"),
                on_progress=on_progress,
                on_validation=lambda measured: progress.say(str(measured)),
                command=command,
            )
        except KeyboardInterrupt:
            raise Interrupted("run the same command with --resume to go on") from None
    if reports:
        step_s = median(report.step_s for report in reports)
        share = median(report.compute_share for report in reports)
        print(f"profile: {step_s:.3f} s/step, {share:.0%} of it forward and backward")
    if checkpoint:
        print(f"checkpoint: {checkpoint}")


def find_preset(name: str) -> Path:
    """The YAML file of a preset's name, or the path itself."""
    from dp_ros.resources import share_file

    path = Path(name)
    if path.suffix or len(path.parts) > 1:
        return path
    folder = share_file("config/train")
    presets = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in presets:
        raise CliError(f"unknown preset '{name}': give {', '.join(presets)} or a YAML file", USAGE)
    return folder / f"{name}.yaml"
