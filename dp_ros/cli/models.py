"""`dp_ros models`: table of checkpoints with their measured success and their training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dp_ros.cli.console import table_console
from dp_ros.cli.errors import USAGE, CliError

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
) -> None:
    """List models with their measured success (`dp_ros card`) and their training."""
    from dp_ros.policy.checkpoint_folder import CheckpointError, checkpoints_in, expanded, find_checkpoint
    from dp_ros.resources import share_dir

    try:
        path = share_dir() / "models" if folder is None else expanded(folder)
        found = checkpoints_in(path) or [find_checkpoint(path)]
    except CheckpointError as error:
        raise CliError(f"holds no checkpoint: {error}", USAGE) from None
    rows = [row for path in found for row in rows_of(path)]
    if markdown:
        print("\n".join(f"| {' | '.join(row)} |" for row in (_HEAD, ("---",) * len(_HEAD), *rows)))
        return
    from rich.table import Table

    table = Table(*_HEAD)
    for row in rows:
        table.add_row(*row)
    table_console().print(table)


def rows_of(folder: Path) -> list[tuple[str, ...]]:
    """One row per evaluation of the checkpoint in `folder`, of all of its tasks; "not measured" without one."""
    from dp_ros.evaluation.card import duration
    from dp_ros.evaluation.card_tables import by_evaluation, mean_of, slowest_plan
    from dp_ros.evaluation.model_results import INSTRUCTION_KINDS, read_results
    from dp_ros.policy.checkpoint_config import policy_config, read_config
    from dp_ros.policy.checkpoint_folder import name_of

    training = read_config(folder)["training"]
    made = (
        str(training.get("data", {}).get("episodes", "-")),
        f"{training.get('step', '-')} steps, {duration(training)}",
        training.get("hardware", "-"),
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
