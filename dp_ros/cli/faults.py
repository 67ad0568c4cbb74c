"""`dp_ros faults`: inject faults into a robot and a policy, and measure how the commands react."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dp_ros.cli.console import ProgressLine, check_outputs
from dp_ros.cli.errors import CliError

if TYPE_CHECKING:
    from dp_ros.evaluation.faults import Score


def faults(
    trials: Annotated[int, typer.Option(min=1, help="Number of injections of each fault.")] = 20,
    fault: Annotated[
        list[str] | None,
        typer.Option("--fault", metavar="NAME", show_default="all", help="Fault to inject; repeat for more."),
    ] = None,
    params_file: Annotated[
        Path | None,
        typer.Option(
            "--params",
            metavar="FILE",
            show_default="config/robot.yaml",
            help="Take the limits (gate) from this ROS parameter file, but for its workspace.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the moments at which faults begin.")] = 0,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers there.")
    ] = None,
    markdown_path: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write the table there.")
    ] = None,
) -> None:
    """Inject faults into a robot and a policy, and measure the commands; fails where the arm was not safe in time.

    The robot is a stand-in, the policy's node, its watchdog and DDS are the real ones. Nothing else may use the
    command topics of this ROS domain.

    Example: dp_ros faults --fault camera-stops --trials 3 --json runs/faults.json
    """
    from dp_ros.ros.processes.environment import require_ros

    require_ros()
    from dp_ros.ros.faults import cases
    from dp_ros.ros.faults.suite import measure

    setting = cases.Setting.of(params_file)
    chosen = cases.chosen(fault or [], setting)
    check_outputs(files=[path for path in (json_path, markdown_path) if path])
    scores: list[dict[str, Any]] = []
    about = {
        "trials": trials,
        "seed": seed,
        "rate_hz": setting.policy.rate_hz,
        "cores": os.cpu_count(),
        "gate": setting.runtime.gate.model_dump(mode="json"),
    }
    with ProgressLine("trials", total=len(chosen) * trials) as progress:

        def on_trial(score: Score) -> None:
            progress.update(len(scores) * trials + len(score.trials), score.fault.name)

        for score in measure(chosen, trials, setting, seed, on_trial=on_trial):
            scores.append(score.as_dict())
            _write(scores, about, json_path, markdown_path)
    _print(scores)
    if failed := [score["name"] for score in scores if not score["ok"]]:
        raise CliError(f"{len(failed)} of {len(scores)} faults failed: {', '.join(failed)}")


def _write(
    scores: list[dict[str, Any]], about: dict[str, Any], json_path: Path | None, markdown_path: Path | None
) -> None:
    """Write the finished part, because a run takes half an hour."""
    from dp_ros.evaluation.faults import markdown
    from dp_ros.files import write_json, write_text

    if json_path:
        write_json(json_path, {**about, "faults": scores})
    if markdown_path:
        write_text(markdown_path, markdown(scores))


def _print(scores: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from dp_ros.evaluation.faults import table

    head, rows = table(scores)
    view = Table(*head)
    for row in rows:
        view.add_row(*row)
    Console(width=None if Console().is_terminal else 200).print(view)
