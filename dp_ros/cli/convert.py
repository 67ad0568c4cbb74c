"""`dp_ros convert`: bags to a dataset."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dp_ros.cli.collect import size_px
from dp_ros.cli.console import ProgressLine, folder_mb
from dp_ros.cli.errors import USAGE, CliError, Interrupted

if TYPE_CHECKING:
    from dp_ros.schema import TopicMap


def convert(
    bags: Annotated[list[Path], typer.Argument(help="Bags, or folders of bags.")],
    out: Annotated[
        Path, typer.Option(help="Folder of the dataset; the same command goes on, and adds new bags.")
    ],
    cameras: Annotated[
        list[str] | None,
        typer.Option("--camera", show_default="all", help="A camera to convert; repeat for more."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(show_default="as recorded", help="WIDTHxHEIGHT of the pictures in pixels.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(show_default="80", help="Control rate in Hz: one frame and action a tick.")
    ] = None,
    map_file: Annotated[
        Path | None,
        typer.Option("--map", metavar="FILE", help="YAML of dp_ros.schema.TopicMap: which topic is what."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any setting of ConvertConfig, e.g. --set audit.max_gap_s=0.2."
        ),
    ] = None,
    outcomes: Annotated[
        list[str] | None,
        typer.Option(
            "--outcome", show_default="success", help="What to convert of labelled bags; repeat for more."
        ),
    ] = None,
    accept_failed: Annotated[
        bool, typer.Option("--accept-failed", help="Convert episodes that fail the audit as well.")
    ] = False,
    as_arrived: Annotated[
        bool,
        typer.Option("--as-arrived", help="Hold what had arrived by a tick, not what was stamped by then."),
    ] = False,
    jobs: Annotated[int, typer.Option(help="Processes; -1 for one per core.")] = -1,
    cluster: Annotated[
        str, typer.Option(help="dask:tcp://HOST:8786 or ray:ADDRESS instead of this machine's cores.")
    ] = "",
) -> None:
    """Make a dataset of bags; episodes that fail the audit are refused, and named."""
    if jobs == 0:
        raise CliError("--jobs 0: give a number of processes, or -1 for one per core", USAGE)
    from dp_ros.schema import ConvertConfig, override, parse_assignment

    width_px, height_px = size_px(size) if size else (None, None)
    given: dict[str, Any] = {
        "cameras": tuple(cameras or ()) or None,
        "width_px": width_px,
        "height_px": height_px,
        "rate_hz": rate,
        "outcomes": tuple(outcomes or ()) or None,
        "accept_failed": accept_failed or None,
        "as_arrived": as_arrived or None,
        "topics": read_map(map_file).model_dump() if map_file else None,
    }
    given = {key: value for key, value in given.items() if value is not None}
    given |= dict(parse_assignment(text) for text in assignments or [])
    config = override(ConvertConfig(), given, where="convert")
    from dp_ros.ros.bags.convert import convert as run

    began = time.monotonic()
    with ProgressLine("converting") as progress:

        def on_progress(what: str, done: int, total: int) -> None:
            # Looking through the bags is the first half of the way.
            progress.update(done if what == "checking" else total + done, what, 2 * total)

        try:
            result = run(bags, out, config, jobs=jobs, cluster=cluster, on_progress=on_progress)
        except KeyboardInterrupt:
            raise Interrupted("the converted bags are kept: run the same command to go on") from None
    for path, why in result.refused:
        print(f"refused {path}: {why}")
    for path, share in result.sparse:
        print(f"{path}: only {share:.0%} of its ticks have every stream; see `dp_ros bag check {path}`")
    print(
        f"{out}: {result.episodes} episodes, {result.ticks} ticks, {result.new_bags} bags converted, "
        f"{len(result.refused)} refused, {folder_mb(out):.1f} MB, {time.monotonic() - began:.1f} s"
    )


def read_map(path: Path) -> TopicMap:
    """The mapping file that says which topic is what."""
    from dp_ros.schema import TopicMap, load_yaml

    return load_yaml(TopicMap, path)
