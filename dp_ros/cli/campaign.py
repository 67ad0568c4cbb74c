"""`dp_ros campaign`: many models on an unattended machine, and their results as an archive of small files."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from dp_ros.cli.campaign_job import Job, run_job
from dp_ros.cli.errors import FAILED, USAGE, CliError, on_interrupt
from dp_ros.cli.options import Jobs, MaxSteps, numbers, set_option
from dp_ros.cli.train import find_preset, training_settings

app = typer.Typer(help="Train many models unattended and archive their results.")


@app.command()
def run(
    tasks: Annotated[list[str], typer.Option("--task", help="Task of the simulated arm; repeat for more.")],
    out: Annotated[Path, typer.Option(help="Folder of the campaign; the same command resumes it.")],
    presets: Annotated[
        list[str] | None,
        typer.Option(
            "--config", show_default="paper", help="Preset or YAML file of TrainConfig; repeat for more."
        ),
    ] = None,
    assignments: Annotated[list[str] | None, set_option("a setting of every training", "device=cuda")] = None,
    demonstrations: Annotated[int, typer.Option(min=1, help="Number of demonstrations of each task.")] = 250,
    noise: Annotated[
        str,
        typer.Option(help="Noise injected into them; several values, e.g. 0,0.3,0.6, are used in turn."),
    ] = "0",
    episodes: Annotated[int, typer.Option(min=1, help="Number of episodes of each model's evaluation.")] = 50,
    max_steps: MaxSteps = 200,
    jobs: Jobs = -1,
    hours: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Time limit: the training that reaches it saves its state, and its model is packed."
        ),
    ] = None,
) -> None:
    """Collect, train, evaluate and pack every task with every preset. A model that fails is named; the others go on.

    Example: dp_ros campaign run --task drawer-open-v3 --task handle-press-v3 --config cpu --out runs/campaign
    """
    began = time.monotonic()
    planned = _plan(tasks, presets or ["paper"], tuple(assignments or []), demonstrations, noise, out)

    def time_is_over() -> bool:
        return hours is not None and time.monotonic() - began >= hours * 3600

    from dp_ros.train.stopping import sigterm_as_ctrl_c

    outcomes: dict[str, str] = {}
    try:
        with on_interrupt("run the same command to resume"), sigterm_as_ctrl_c():
            for job in planned:
                outcomes[job.name] = run_job(job, episodes, max_steps, jobs, time_is_over)
                print(f"{job.name}: {outcomes[job.name]}", flush=True)
                with suppress(OSError):  # a full disk: reported by the archive written at the end
                    _archive(out, outcomes)  # now, because the process may be killed
    finally:
        parts = _archive(out, outcomes)
        print(f"{out / 'parts'}: {len(parts)} parts and manifest.json; join them with `dp_ros campaign join`")
    if any(outcome.startswith("failed") for outcome in outcomes.values()):
        raise typer.Exit(FAILED)


@app.command()
def join(
    parts: Annotated[Path, typer.Argument(help="Folder with manifest.json and every part.")],
    out: Annotated[Path, typer.Option(help="Folder to make, e.g. results.")],
) -> None:
    """Join the parts of a campaign's archive and verify the files.

    Example: dp_ros campaign join runs/parts/campaign.part* --out runs/models
    """
    from dp_ros.evaluation.archive import join as join_parts

    files = join_parts(parts, out)
    print(f"{out}: {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB, verified")


def _plan(
    tasks: list[str],
    presets: list[str],
    assignments: tuple[str, ...],
    demonstrations: int,
    noise: str,
    out: Path,
) -> list[Job]:
    """The jobs of a campaign; ConfigError, TaskError or CliError for wrong settings, before hours of work."""
    from dp_ros.schema import CollectConfig, parse
    from dp_ros.sim.arm import check_task

    planned = []
    for preset in presets:
        path = find_preset(preset)
        train = training_settings(preset, list(assignments))
        encoder = train.config.policy.encoder
        if encoder.pictures:
            raise CliError(
                f"{preset}: policy.encoder.pictures: demonstrations are drawn in one size for all cameras: remove it",
                USAGE,
            )
        for task in tasks:
            settings = {
                "task": check_task(task),
                "episodes": demonstrations,
                "cameras": encoder.cameras,
                "width_px": encoder.width_px,
                "height_px": encoder.height_px,
                "noise": numbers("--noise", noise, "0,0.3,0.6"),
            }
            collect = parse(CollectConfig, settings, where="campaign")
            planned.append(Job(collect, train.config, path.name, out, assignments, train.sources))
    names = [job.name for job in planned]
    if len(set(names)) < len(names):
        raise CliError("a task and preset are given twice: two models would have one name")
    return planned


def _archive(out: Path, outcomes: dict[str, str]) -> list[Path]:
    """Write the results so far as parts; their paths."""
    from dp_ros.evaluation.archive import split
    from dp_ros.files import write_json

    results = out / "results"
    written: dict[str, Any] = {"outcomes": outcomes}
    write_json(results / "campaign.json", written)
    return split(results, out / "parts")
