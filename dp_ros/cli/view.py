"""`dp_ros view`: one bag as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dp_ros.cli.console import check_outputs
from dp_ros.cli.convert import read_map
from dp_ros.cli.errors import USAGE, CliError
from dp_ros.cli.options import TopicMapFile


def view(
    bag: Annotated[Path, typer.Argument(help="Bag: a folder, or its .mcap or .db3 file.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default="NAME.html of the bag, here", help="Page to write."),
    ] = None,
    pictures: Annotated[
        int, typer.Option(min=1, max=60, help="Pictures of each camera, evenly spread in time.")
    ] = 12,
    map_file: TopicMapFile = None,
) -> None:
    """Write a page of one bag: pictures of each camera, trajectories, gripper, verdicts, rates, audit.

    The page is one file without scripts and without access to the network, so it can be sent.

    Example: dp_ros view runs/bags/pick/episode_00003
    """
    from dp_ros.data.bags.reader import find_bags
    from dp_ros.evaluation.report.bag_page import render
    from dp_ros.files import write_text
    from dp_ros.ros.bags.view import bag_page
    from dp_ros.schema import AuditConfig, TopicMap

    found = find_bags([bag])
    if len(found) > 1:
        raise CliError(f"{bag}: holds {len(found)} bags: give one of them, e.g. {found[0]}", USAGE)
    path = found[0]
    page = Path(f"{path.stem if path.is_file() else path.name}.html") if out is None else out
    check_outputs(files=(page,))
    topics = read_map(map_file) if map_file else TopicMap()
    text = render(bag_page(path, topics, AuditConfig(), pictures))
    write_text(page, text)
    print(f"{page}: {len(text) / 1e6:.1f} MB")
