"""`dp_ros ood-stats`: statistics of the training pictures, with which pictures unlike them are noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dp_ros.cli.options import Checkpoint


def ood_stats(
    checkpoint: Checkpoint,
    data: Annotated[
        list[Path], typer.Option(help="Dataset that the checkpoint was trained on; repeat for more.")
    ],
) -> None:
    """Add statistics of the training pictures to a checkpoint, as `dp_ros train` does by itself.

    With them a running policy warns of pictures that are unlike those of its training. The weights stay the same.

    Example: dp_ros ood-stats models/my-drawer --data runs/data/drawer
    """
    from dp_ros.policy.checkpoint_folder import find_checkpoint
    from dp_ros.train.ood import describe_pictures

    folder = find_checkpoint(checkpoint)
    stats = describe_pictures(folder, data)
    size_kb = (folder / "ood.safetensors").stat().st_size / 1e3
    print(f"{folder}: statistics of {stats.shape[0]} cameras, {size_kb:.0f} kB")
