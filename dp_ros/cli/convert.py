"""`dp_ros convert`: bags to a dataset."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dp_ros.cli.console import ProgressLine, folder_mb
from dp_ros.cli.errors import on_interrupt
from dp_ros.cli.options import (
    Bags,
    Cluster,
    Fits,
    Jobs,
    Sizes,
    TopicMapFile,
    camera_option,
    given,
    picture_sizes,
    set_option,
    typed_config,
)

if TYPE_CHECKING:
    from dp_ros.schema import TopicMap


def convert(
    bags: Bags,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the dataset; the same command resumes a stopped conversion and adds new bags."
        ),
    ],
    cameras: Annotated[list[str] | None, camera_option("convert", "all")] = None,
    size: Sizes = None,
    fit: Fits = None,
    rate: Annotated[
        float | None,
        typer.Option(show_default="as recorded", help="Control rate in Hz: one frame and action a tick."),
    ] = None,
    map_file: TopicMapFile = None,
    assignments: Annotated[
        list[str] | None, set_option("a setting of ConvertConfig", "audit.max_gap_s=0.2")
    ] = None,
    outcomes: Annotated[
        list[str] | None,
        typer.Option(
            "--outcome", show_default="success", help="Outcome of the bags to convert; repeat for more."
        ),
    ] = None,
    accept_failed: Annotated[
        bool, typer.Option("--accept-failed", help="Also convert episodes that fail the audit.")
    ] = False,
    as_arrived: Annotated[
        bool,
        typer.Option("--as-arrived", help="Build frames by time of arrival in place of the stamps."),
    ] = False,
    jobs: Jobs = -1,
    cluster: Cluster = "",
) -> None:
    """Make a dataset of bags. Episodes that fail the audit are refused and named.

    Example: dp_ros convert runs/bags/mine --out runs/data/mine --rate 10
    """
    from dp_ros.schema import ConvertConfig

    settings = given(
        cameras=cameras,
        **picture_sizes(size, fit),
        rate_hz=rate,
        outcomes=outcomes,
        accept_failed=accept_failed or None,
        as_arrived=as_arrived or None,
        topics=read_map(map_file).model_dump() if map_file else None,
    )
    config = typed_config(ConvertConfig, settings, assignments)
    from dp_ros.ros.bags.convert import convert as run

    began = time.monotonic()
    resume = on_interrupt("the converted bags are kept: run the same command to resume")
    with ProgressLine("converting") as progress, resume:

        def on_progress(what: str, done: int, total: int) -> None:
            # The check of the bags counts as the first half.
            progress.update(done if what == "checking" else total + done, what, 2 * total)

        result = run(bags, out, config, jobs=jobs, cluster=cluster, on_progress=on_progress)
    origin = f", that of {result.rate.source} (--rate sets another)" if result.rate.source else ""
    print(f"control rate: {result.rate.hz:g} Hz{origin}")
    for name, share in result.repeats.items():
        print(
            f"warning: {share:.0%} of the ticks repeat the sample of {name}, so a policy would learn to stand still: "
            "give a lower --rate"
        )
    for path, why in result.refused:
        print(f"refused {path}: {why}")
    for path, share in result.sparse:
        print(f"{path}: only {share:.0%} of its ticks have every stream; see `dp_ros bag check {path}`")
    print(
        f"{out}: {result.episodes} episodes, {result.ticks} ticks, {result.new_bags} bags converted, "
        f"{len(result.refused)} refused, {folder_mb(out):.1f} MB, {time.monotonic() - began:.1f} s"
    )


def read_map(path: Path) -> TopicMap:
    """The topic names of a mapping file."""
    from dp_ros.schema import TopicMap, load_yaml

    return load_yaml(TopicMap, path)
