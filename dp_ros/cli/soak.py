"""`dp_ros soak`: real-time episodes for an hour; memory, handles, threads, latency and logs must not grow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dp_ros.cli.console import ProgressLine, check_outputs, command_line, duration, table_console
from dp_ros.cli.errors import CliError, Interrupted
from dp_ros.cli.evaluate import task_and_seeds
from dp_ros.cli.options import EngineOption, FirstSeed, MaxSteps, Precision, Task, Threads, typed_config
from dp_ros.errors import UserError

if TYPE_CHECKING:
    from dp_ros.evaluation.soak import Soak

_MODEL = "drawer-open-v3-unet"


def soak(
    checkpoint: Annotated[
        str, typer.Argument(help="Checkpoint or run folder, or the name of a shipped model.")
    ] = _MODEL,
    minutes: Annotated[float, typer.Option(min=0.05, help="Minutes of measurement.")] = 60.0,
    task: Task = "",
    seed: FirstSeed = 0,
    max_steps: MaxSteps = 200,
    engine: EngineOption = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    sample_s: Annotated[
        float | None,
        typer.Option(
            "--sample",
            min=0.05,
            show_default="5, less in short tests",
            help="Time between two samples in seconds.",
        ),
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers there.")
    ] = None,
) -> None:
    """Run episodes in real time for an hour; fails where memory, handles, threads, latency or logs grow.

    It runs the processes of `dp_ros eval --transport ros --mode realtime`. Ctrl-C ends the test and prints the
    measurements so far.

    Example: dp_ros soak drawer-open-v3-unet --minutes 10
    """
    from dp_ros.ros.processes.environment import require_ros

    require_ros()
    from dp_ros.evaluation.soak import Soak
    from dp_ros.inference.engine import choose_engine
    from dp_ros.policy.checkpoint_config import weights_sha256
    from dp_ros.policy.checkpoint_folder import find_checkpoint
    from dp_ros.ros.processes.soaking import soak_test
    from dp_ros.schema import RuntimeConfig

    check_outputs(files=[json_path])
    folder = find_checkpoint(checkpoint)
    task, _ = task_and_seeds(folder, task, seed, 1)
    settings = {"mode": "realtime", "engine": engine, "precision": precision, "threads": threads}
    runtime, why = choose_engine(folder, typed_config(RuntimeConfig, settings))
    print(f"engine: {runtime.engine} {runtime.precision}, {why}", flush=True)
    measured, total_s = Soak(), 60.0 * minutes
    about = {
        "command": command_line(),
        "task": task,
        "checkpoint": str(checkpoint),
        "weights_sha256": weights_sha256(folder),
        "engine": runtime.engine,
        "precision": runtime.precision,
        "cores": os.cpu_count(),
        "minutes": minutes,
    }
    with ProgressLine("seconds", total=round(total_s)) as progress:

        def on_sample(soak: Soak) -> None:
            left_s = max(0.0, total_s - soak.duration_s)
            newest = ", ".join(f"{name} {each[-1].rss_mb:.0f} MB" for name, each in soak.samples.items())
            done = min(round(soak.duration_s), round(total_s) - 1)  # the last episode goes on to its end
            progress.update(done, f"{duration(left_s)} left, {newest}")

        try:
            soak_test(
                folder,
                task,
                minutes,
                runtime=runtime,
                sample_s=sample_s or min(5.0, total_s / 100),
                max_steps=max_steps,
                first_seed=seed,
                on_sample=on_sample,
                soak=measured,
            )
        except (KeyboardInterrupt, UserError) as error:
            _show(measured, {**about, "ended_by": str(error) or "Ctrl-C"}, json_path)
            if isinstance(error, UserError):
                raise
            raise Interrupted(f"measured {duration(measured.duration_s)} of {duration(total_s)}") from None
    score = _show(measured, about, json_path)
    if not score["ok"]:
        raise CliError(f"failed: {'; '.join(score['problems'])}")


def _show(soak: Soak, about: dict[str, Any], json_path: Path | None) -> dict[str, Any]:
    """Print the tables and write the file; the scores."""
    from rich.table import Table

    from dp_ros.evaluation.soak import latency_table, process_table
    from dp_ros.files import write_json

    score = {**about, **soak.as_dict()}
    if json_path:
        write_json(json_path, score)
    for head, rows in (process_table(score), latency_table(score)):
        view = Table(*head)
        for row in rows:
            view.add_row(*row)
        table_console().print(view)
    print(
        f"{duration(soak.duration_s)}, {soak.episodes} episodes, {soak.successes} successes: "
        f"{'passed' if score['ok'] else 'FAILED'}",
        flush=True,
    )
    return score
