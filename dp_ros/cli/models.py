"""`dp_ros models`: what there is to serve, how it was made and what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dp_ros.cli.errors import USAGE, CliError
from dp_ros.cli.inspect import console

_HEAD = (
    "model", "network", "success", "95 % interval", "transport", "plan p50 / p99 [ms]", "demonstrations", "training",
    "hardware",
)  # fmt: skip


def models(
    folder: Annotated[
        Path | None, typer.Argument(show_default="those that come with dp_ros", help="Folder of checkpoints.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table as Markdown.")] = False,
) -> None:
    """List models: what was measured of each (`dp_ros card`), and the training behind it."""
    from dp_ros.resources import share_dir

    folder = folder or share_dir() / "models"
    found = sorted(path.parent for path in folder.glob("*/config.json"))
    if not found:
        raise CliError(f"{folder}: holds no checkpoint", USAGE)
    rows = [row for path in found for row in rows_of(path)]
    if markdown:
        print("\n".join(f"| {' | '.join(row)} |" for row in (_HEAD, ("---",) * len(_HEAD), *rows)))
        return
    from rich.table import Table

    table = Table(*_HEAD)
    for row in rows:
        table.add_row(*row)
    console().print(table)


def rows_of(folder: Path) -> list[tuple[str, ...]]:
    """A row for each evaluation of the checkpoint in `folder`; one for a checkpoint that was never evaluated."""
    from dp_ros.evaluation.card import duration
    from dp_ros.evaluation.model_results import read_results
    from dp_ros.policy.checkpoint_config import policy_config, read_config

    training = read_config(folder)["training"]
    made = (
        str(training.get("data", {}).get("episodes", "-")),
        f"{training.get('step', '-')} steps, {duration(training)}",
        training.get("hardware", "-"),
    )
    measured = [(r.success, r.interval, r.transport, r.plan) for r in read_results(folder)]
    name, network = folder.name, policy_config(folder).network
    return [(name, network, *cells, *made) for cells in measured or [("not measured", "-", "-", "-")]]
