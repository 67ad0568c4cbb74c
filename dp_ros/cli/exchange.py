"""`dp_ros export` and `dp_ros import`: datasets to and from other formats. So far: LeRobotDataset v3.0."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from dp_ros.cli.console import ProgressLine, folder_mb
from dp_ros.cli.errors import on_interrupt
from dp_ros.cli.options import Fits, Sizes, camera_option, given, numbers, picture_sizes, typed_config

Format = Annotated[Literal["lerobot"], typer.Option("--format", help="The other format.")]


def export(
    dataset: Annotated[Path, typer.Argument(help="A dataset of dp_ros.")],
    out: Annotated[Path, typer.Option(help="Folder of the LeRobotDataset; written whole or not at all.")],
    task: Annotated[
        str | None, typer.Option(show_default="the dataset's", help="Description of the episodes, in words.")
    ] = None,
    robot: Annotated[str | None, typer.Option(help="LeRobot's robot_type.")] = None,
    crf: Annotated[
        int | None,
        typer.Option(
            show_default="lossless", help="Quality of small video that browsers play: 1 (best) to 51."
        ),
    ] = None,
    format: Format = "lerobot",
) -> None:
    """Write a dataset in another format: a LeRobotDataset v3.0.

    Example: dp_ros export runs/data/drawer --out runs/lerobot/drawer
    """
    from dp_ros.schema import ExportConfig

    config = typed_config(ExportConfig, given(task=task, robot=robot, crf=crf))
    from dp_ros.data.lerobot.exporter import export_dataset

    began = time.monotonic()
    with ProgressLine("exporting") as progress, on_interrupt(f"nothing is left at {out}"):
        reader = export_dataset(dataset, out, config, _shown(progress))
    print(
        f"{out}: {len(reader)} episodes, {reader.ends[-1]} ticks, {folder_mb(out):.1f} MB, "
        f"{time.monotonic() - began:.1f} s"
    )


def import_(
    folder: Annotated[Path, typer.Argument(help="Folder of a LeRobotDataset v3.0.")],
    out: Annotated[Path, typer.Option(help="Folder of the dataset; the same command resumes a stopped run.")],
    ee_position: Annotated[
        str | None,
        typer.Option(
            show_default="observation.state:ee_x,ee_y,ee_z",
            help="Source of the measured position in m, as FEATURE:NUMBERS with indices or names, "
            "e.g. observation.state:0,1,2.",
        ),
    ] = None,
    gripper: Annotated[
        str | None,
        typer.Option(
            show_default="observation.state:gripper", help="Source of the measured opening, likewise."
        ),
    ] = None,
    action: Annotated[
        str | None,
        typer.Option(
            show_default="action:ee_x,ee_y,ee_z,gripper",
            help="Source of the label: commanded absolute position in m and gripper, likewise.",
        ),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            show_default="the label",
            help="Source of the executed command, where it is another than the label.",
        ),
    ] = None,
    gripper_range: Annotated[
        str | None, typer.Option(show_default="0,1", help="Measured values that mean closed and open.")
    ] = None,
    action_gripper_range: Annotated[
        str | None, typer.Option(show_default="-1,1", help="Commanded values that mean open and closed.")
    ] = None,
    cameras: Annotated[list[str] | None, camera_option("import", "all")] = None,
    size: Sizes = None,
    fit: Fits = None,
    format: Format = "lerobot",
) -> None:
    """Make a dataset of one in another format: a LeRobotDataset v3.0.

    Example: dp_ros import runs/lerobot/drawer --out runs/data/back
    """
    settings = given(
        ee_position=ee_position,
        gripper=gripper,
        action=action,
        command=command,
        gripper_range=numbers("--gripper-range", gripper_range, "0,100", count=2),
        action_gripper_range=numbers("--action-gripper-range", action_gripper_range, "0,100", count=2),
        cameras=cameras,
        **picture_sizes(size, fit),
    )
    from dp_ros.schema import ImportConfig

    config = typed_config(ImportConfig, settings)
    from dp_ros.cli.inspect import dataset_facts
    from dp_ros.data.lerobot.importer import import_dataset

    began = time.monotonic()
    resume = on_interrupt("the finished episodes are kept: run the same command to resume")
    with ProgressLine("importing") as progress, resume:
        import_dataset(folder, out, config, _shown(progress))
    facts = dataset_facts(out)
    assert facts is not None
    print(
        f"{out}: {facts.episodes} episodes, {facts.ticks} ticks, {folder_mb(out):.1f} MB, "
        f"{time.monotonic() - began:.1f} s"
    )


def _shown(progress: ProgressLine) -> Callable[[int, int], None]:
    """A callback that shows the number of finished episodes."""
    return lambda done, of: progress.update(done, "", total=of)
