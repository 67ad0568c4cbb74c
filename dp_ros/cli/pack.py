"""`dp_ros pack` and `dp_ros card`: a training run to a model to ship, and the card of what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dp_ros.cli.console import find_checkpoint
from dp_ros.cli.errors import CliError


def pack(
    checkpoint: Annotated[Path, typer.Argument(help="Run folder or checkpoint to ship.")],
    out: Annotated[Path, typer.Option(help="Where to, e.g. models/drawer-open-v3-unet.")],
    dtype: Annotated[str, typer.Option(help="f16 halves the size of f32; both are served in f32.")] = "f16",
) -> None:
    """Copy a checkpoint, its weights in half precision, with a card that awaits its measurements."""
    from dp_ros.evaluation.card import write_card
    from dp_ros.policy.checkpoint import DTYPES, load_checkpoint, read_config, save_checkpoint

    if dtype not in DTYPES:
        raise CliError(f"unknown dtype '{dtype}': give {' or '.join(DTYPES)}", 2)
    source = find_checkpoint(checkpoint)
    config = read_config(source)
    policy = load_checkpoint(source)
    save_checkpoint(policy, out, scene=config["scene"], training=config["training"], dtype=dtype)
    write_card(out, out.name)
    print(f"{out}: {sum(file.stat().st_size for file in out.iterdir()) / 1e6:.1f} MB")


def card(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder, or a name in models/.")],
    report: Annotated[
        list[Path] | None,
        typer.Option(
            show_default="what results.json has",
            help="What `dp_ros eval --json` wrote of these weights; repeat.",
        ),
    ] = None,
) -> None:
    """Write what was measured beside the weights (results.json), and the card that shows it (card.md)."""
    from dp_ros.evaluation.card import write_card
    from dp_ros.evaluation.model_results import result_of, write_results
    from dp_ros.evaluation.report.write_report import name_of

    folder = find_checkpoint(checkpoint)
    if report:
        write_results(folder, [result_of(path, folder) for path in report])
    write_card(folder, name_of(folder))
    print(folder / "card.md")
