"""`dp_ros pack` and `dp_ros card`: a training run to a model to ship, and the card of what was measured."""

from __future__ import annotations

import json
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
    report: Annotated[list[Path], typer.Option(help="What `dp_ros eval --json` wrote; repeat.")],
) -> None:
    """Write what was measured into the checkpoint's card.md."""
    from dp_ros.evaluation.card import write_card
    from dp_ros.policy.checkpoint_config import policy_config

    folder = find_checkpoint(checkpoint)
    reports = []
    for path in report:
        try:
            data = json.loads(path.read_text())
            reports.append({key: data[key] for key in _NEEDED})
        except (ValueError, KeyError, TypeError):
            raise CliError(f"{path}: is not a report of `dp_ros eval --json`") from None
        task = policy_config(folder).task
        if reports[-1]["task"] != task or Path(reports[-1]["checkpoint"]).name != folder.name:
            raise CliError(
                f"{path}: is of {reports[-1]['checkpoint']} on {reports[-1]['task']}, not of {folder.name}"
            )
    write_card(folder, folder.name, reports)
    print(folder / "card.md")


_NEEDED = (
    "task", "checkpoint", "transport", "per_episode", "success_rate", "wilson_low", "wilson_high", "plan_ms",
)  # fmt: skip
