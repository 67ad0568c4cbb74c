"""`dp_ros train`: a dataset to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from dp_ros.cli.console import ProgressLine, duration
from dp_ros.cli.errors import USAGE, CliError, on_interrupt
from dp_ros.cli.options import set_option

if TYPE_CHECKING:
    from dp_ros.schema import Settings, TrainConfig
    from dp_ros.train.progress import Progress


def train(
    data: Annotated[list[Path], typer.Option(help="Dataset of dp_ros; repeat for more.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: state, checkpoint/ and TensorBoard logs.")],
    config: Annotated[
        str,
        typer.Option(
            help="Preset (cpu, cpu-transformer, metaworld-50, paper, paper-transformer) or YAML file of TrainConfig."
        ),
    ] = "cpu",
    assignments: Annotated[list[str] | None, set_option("a setting of TrainConfig", "steps=500")] = None,
    init: Annotated[
        str,
        typer.Option(
            help="Checkpoint whose weights the training begins with; its policy settings replace the preset's."
        ),
    ] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --out.")] = False,
) -> None:
    """Train a policy. A resumed run gives the same result as an uninterrupted one: to the bit on a CPU with the same
    number of threads, up to rounding on a GPU.

    On several GPUs or hosts: accelerate launch --multi_gpu --num_processes N -m dp_ros.cli train ...

    Example: dp_ros train --config cpu --data runs/data/drawer --out runs/drawer --set steps=500
    """
    from dp_ros.policy.checkpoint_folder import find_checkpoint

    source = find_checkpoint(init) if init else None
    settings = training_settings(config, assignments, init=source)
    from dp_ros.data.merged import merged_layout, short_name
    from dp_ros.train.fit import describe, fit

    settings = fit(settings, merged_layout(data), short_name(data))
    from dp_ros.train.distributed import is_first_process
    from dp_ros.train.run import train as run

    reports: list[Progress] = []
    hint = on_interrupt("run the same command with --resume to resume")
    with ProgressLine("training", quiet=not is_first_process()) as progress, hint:

        def on_progress(report: Progress) -> None:
            reports.append(report)
            progress.update(
                report.step,
                f"loss {report.loss:.4f}, {report.step_s:.2f} s/step, {report.compute_share:.0%} compute, "
                f"{duration(report.eta_s)} left",
                report.steps,
            )

        progress.say(describe(settings))
        checkpoint = run(
            settings.config,
            data,
            out,
            resume=resume,
            on_start=lambda hardware: progress.say(f"training on {hardware}"),
            on_progress=on_progress,
            on_validation=lambda measured: progress.say(str(measured)),
            on_warning=lambda line: progress.say(f"warning: {line}"),
            command={"config": find_preset(config).name, "set": list(assignments or [])},
            init=source,
            on_encoded=lambda done, total: progress.update(done, "episodes encoded", total),
        )
    if reports:
        step_s = median(report.step_s for report in reports)
        share = median(report.compute_share for report in reports)
        print(f"profile: {step_s:.3f} s/step, {share:.0%} of it forward and backward")
    if checkpoint:
        print(f"checkpoint: {checkpoint}")


def training_settings(
    config: str, assignments: list[str] | None, option: str = "--set", init: Path | None = None
) -> Settings[TrainConfig]:
    """Settings of a training, from a preset or YAML file and options KEY=VALUE."""
    from dp_ros.resources import share_file
    from dp_ros.train.fit import read_training

    path = find_preset(config)
    is_preset = path.absolute().parent == share_file("config/train").absolute()
    return read_training(path, assignments, option, is_preset=is_preset, init=init)


def find_preset(name: str) -> Path:
    """The YAML file of a preset, or the path itself."""
    from dp_ros.resources import share_file

    path = Path(name)
    if path.suffix or len(path.parts) > 1:
        return path
    folder = share_file("config/train")
    presets = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in presets:
        raise CliError(f"unknown preset '{name}': give {', '.join(presets)} or a YAML file", USAGE)
    return folder / f"{name}.yaml"
