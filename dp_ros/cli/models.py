"""`dp_ros models`: table of checkpoints with their measured success and their training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from dp_ros.cli.console import check_outputs, table_console
from dp_ros.cli.errors import USAGE, CliError
from dp_ros.cli.options import JsonFile

_HEAD = (
    "model", "network", "success", "95 % interval", "transport", "ticks held", "plan p50 / p99 [ms]",
    "demonstrations", "training", "hardware",
)  # fmt: skip


def models(
    folder: Annotated[
        str | None,
        typer.Argument(
            show_default="the models of dp_ros", help="Folder of checkpoints or runs, or one checkpoint."
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    json_path: JsonFile = None,
) -> None:
    """List models with their measured success (`dp_ros card`) and their training.

    Example: dp_ros models runs/campaign --json runs/models.json
    """
    from dp_ros.files import write_json
    from dp_ros.policy.checkpoint_folder import (
        CheckpointError,
        checkpoints_in,
        expanded,
        find_checkpoint,
        name_of,
    )
    from dp_ros.resources import share_dir

    try:
        path = share_dir() / "models" if folder is None else expanded(folder)
        found = checkpoints_in(path) or [find_checkpoint(path)]
    except CheckpointError as error:
        raise CliError(f"holds no checkpoint: {error}", USAGE) from None
    if json_path is not None:
        check_outputs(files=(json_path,))
        write_json(json_path, {name_of(path): facts_of(path) for path in found})
    rows = [row for path in found for row in rows_of(path)]
    if markdown:
        print("\n".join(f"| {' | '.join(row)} |" for row in (_HEAD, ("---",) * len(_HEAD), *rows)))
        return
    from rich.table import Table

    table = Table(*_HEAD)
    for row in rows:
        table.add_row(*row)
    table_console().print(table)


def facts_of(folder: Path) -> dict[str, Any]:
    """Task, training and evaluations of a checkpoint, for JSON."""
    from dp_ros.evaluation.model_results import read_results
    from dp_ros.policy.checkpoint_config import policy_config, read_config

    policy = policy_config(folder)
    return {
        "folder": str(folder),
        "task": policy.task,
        "network": policy.network,
        "training": read_config(folder)["training"],
        "results": [asdict(result) for result in read_results(folder)],
    }


def rows_of(folder: Path) -> list[tuple[str, ...]]:
    """One row per evaluation of the checkpoint in `folder`, of all of its tasks; "not measured" without one."""
    from dp_ros.evaluation.card import duration
    from dp_ros.evaluation.card_commands import stages
    from dp_ros.evaluation.card_tables import by_evaluation, mean_of, slowest_plan
    from dp_ros.evaluation.model_results import INSTRUCTION_KINDS, read_results
    from dp_ros.policy.checkpoint_config import policy_config, read_config
    from dp_ros.policy.checkpoint_folder import name_of

    trained = stages(read_config(folder)["training"])
    steps = " + ".join(str(stage.get("step", "-")) for stage in trained)
    made = (
        " + ".join(str(stage.get("data", {}).get("episodes", "-")) for stage in trained),
        f"{steps} steps, {duration(*trained)}",
        " + ".join(dict.fromkeys(stage.get("hardware", "-") for stage in trained)),
    )
    measured = []
    for results in by_evaluation(read_results(folder)):
        first, count = results[0], len(results)
        if not first.task:
            measured += [(r.success, r.interval, r.where, r.held, r.plan) for r in results]
            continue
        mean = mean_of(results)
        told = (
            f"{first.instructions} sentences"
            if first.instructions in INSTRUCTION_KINDS
            else first.instructions
        )
        success, interval = (
            f"mean of {count} tasks {mean.rate:.1%}, {told}",
            f"[{mean.low:.0%}, {mean.high:.0%}]",
        )
        measured.append((success, interval, first.where, "-", slowest_plan(results)))
    name, network = name_of(folder), policy_config(folder).network
    return [(name, network, *cells, *made) for cells in measured or [("not measured", "-", "-", "-", "-")]]
