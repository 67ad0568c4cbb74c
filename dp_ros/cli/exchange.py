"""`dp_ros export` and `dp_ros import`: datasets to other formats and from them; LeRobotDataset v3.0 so far."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from dp_ros.cli.collect import size_px
from dp_ros.cli.console import ProgressLine, duration, folder_mb
from dp_ros.cli.errors import USAGE, CliError, Interrupted

Format = Annotated[Literal["lerobot"], typer.Option("--format", help="The other format.")]


def export(
    dataset: Annotated[Path, typer.Argument(help="A dataset of dp_ros.")],
    out: Annotated[Path, typer.Option(help="Folder of the LeRobotDataset; appears whole or not at all.")],
    task: Annotated[
        str | None, typer.Option(show_default="the dataset's own", help="What the episodes show, in words.")
    ] = None,
    robot: Annotated[str | None, typer.Option(help="LeRobot's robot_type.")] = None,
    crf: Annotated[
        int | None,
        typer.Option(show_default="lossless", help="Small video that browsers play, 1 (best) to 51."),
    ] = None,
    format: Format = "lerobot",
) -> None:
    """Write a dataset in another format: a LeRobotDataset v3.0."""
    from dp_ros.schema import ExportConfig, parse

    config = parse(ExportConfig, {"task": task, "robot": robot, "crf": crf}, where="export")
    from dp_ros.data.lerobot.exporter import export_dataset

    began = time.monotonic()
    with ProgressLine("exporting") as progress:
        try:
            reader = export_dataset(dataset, out, config, _shown(progress))
        except KeyboardInterrupt:
            raise Interrupted(f"nothing is left at {out}") from None
    print(
        f"{out}: {len(reader)} episodes, {reader.ends[-1]} ticks, {folder_mb(out):.1f} MB, "
        f"{time.monotonic() - began:.1f} s"
    )


def import_(
    folder: Annotated[Path, typer.Argument(help="Folder of a LeRobotDataset v3.0.")],
    out: Annotated[
        Path, typer.Option(help="Folder of the dataset; the same command goes on where it stopped.")
    ],
    ee_position: Annotated[
        str | None,
        typer.Option(
            show_default="observation.state:ee_x,ee_y,ee_z",
            help="Measured position [m] as FEATURE:NUMBERS, by index or name, e.g. observation.state:0,1,2.",
        ),
    ] = None,
    gripper: Annotated[
        str | None,
        typer.Option(show_default="observation.state:gripper", help="Measured opening, likewise."),
    ] = None,
    action: Annotated[
        str | None,
        typer.Option(
            show_default="action:ee_x,ee_y,ee_z,gripper",
            help="Commanded absolute position [m] and gripper, likewise.",
        ),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(show_default="the action", help="What really moved the arm, if that is another."),
    ] = None,
    gripper_range: Annotated[
        str | None, typer.Option(show_default="0,1", help="Measured values that mean closed and open.")
    ] = None,
    action_gripper_range: Annotated[
        str | None, typer.Option(show_default="-1,1", help="Commanded values that mean -1 and 1.")
    ] = None,
    cameras: Annotated[
        list[str] | None,
        typer.Option("--camera", show_default="all", help="A camera to import; repeat for more."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(show_default="as they are", help="WIDTHxHEIGHT in pixels to shrink pictures to."),
    ] = None,
    format: Format = "lerobot",
) -> None:
    """Make a dataset of one in another format: a LeRobotDataset v3.0."""
    width_px, height_px = size_px(size) if size else (None, None)
    given = {
        "ee_position": ee_position,
        "gripper": gripper,
        "action": action,
        "command": command,
        "gripper_range": _range("--gripper-range", gripper_range),
        "action_gripper_range": _range("--action-gripper-range", action_gripper_range),
        "cameras": cameras or None,
        "width_px": width_px,
        "height_px": height_px,
    }
    from dp_ros.schema import ImportConfig, parse

    settings = {key: value for key, value in given.items() if value is not None}
    config = parse(ImportConfig, settings, where="import")
    from dp_ros.cli.inspect import dataset_facts
    from dp_ros.data.lerobot.importer import import_dataset

    began = time.monotonic()
    with ProgressLine("importing") as progress:
        try:
            import_dataset(folder, out, config, _shown(progress))
        except KeyboardInterrupt:
            raise Interrupted("the finished episodes are kept: run the same command to go on") from None
    facts = dataset_facts(out)
    assert facts is not None
    print(
        f"{out}: {facts.episodes} episodes, {facts.ticks} ticks, {folder_mb(out):.1f} MB, "
        f"{time.monotonic() - began:.1f} s"
    )


def _shown(progress: ProgressLine) -> Callable[[int, int], None]:
    began, first = time.monotonic(), None

    def on_episode(done: int, of: int) -> None:
        nonlocal first
        first = done - 1 if first is None else first  # a resumed import does not begin at none
        left_s = (time.monotonic() - began) / (done - first) * (of - done)
        progress.update(done, f"{duration(left_s)} left", total=of)

    return on_episode


def _range(option: str, text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise CliError(
            f"{option} '{text}': give two numbers with a comma between, e.g. 0,100", USAGE
        ) from None
    return low, high
