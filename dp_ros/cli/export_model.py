"""`dp_ros export-model`: the graphs of a checkpoint for people who serve it otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dp_ros.cli.console import check_outputs
from dp_ros.cli.errors import CliError
from dp_ros.cli.options import Checkpoint


def export_model(
    checkpoint: Checkpoint,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New or empty folder to write to.")],
    format: Annotated[Literal["openvino", "onnx"], typer.Option(help="Format of the graphs.")] = "openvino",
) -> None:
    """Write a checkpoint's graphs and constants as OpenVINO or ONNX files: see docs/deploy.md.

    Example: dp_ros export-model runs/drawer runs/exported --format onnx
    """
    from dp_ros.policy.checkpoint_folder import find_checkpoint

    checkpoint = find_checkpoint(checkpoint)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CliError(f"{folder}: is there and not an empty folder: choose another")
    check_outputs(folders=[folder], files=[])
    from dp_ros.files import replacing_folder
    from dp_ros.inference.export import export
    from dp_ros.policy.checkpoint import load_checkpoint

    policy = load_checkpoint(checkpoint)
    with replacing_folder(folder) as staging:
        export(policy, staging, format)
    size_mb = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    names = ", ".join(sorted(path.name for path in folder.iterdir() if path.suffix != ".bin"))
    print(f"{folder}: {names}; {size_mb:.0f} MB")
