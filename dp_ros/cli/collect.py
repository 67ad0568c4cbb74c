"""`dp_ros collect`: demonstrations of the scripted expert to a dataset."""

from __future__ import annotations

import re
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dp_ros.cli.console import ProgressLine, duration, folder_mb
from dp_ros.cli.errors import USAGE, CliError, Interrupted

if TYPE_CHECKING:
    from dp_ros.schema import CollectConfig


class Via(StrEnum):
    DIRECT = "direct"
    ROS = "ros"


class Compression(StrEnum):
    NONE = "none"
    ZSTD = "zstd"


# The defaults are CollectConfig's; a test holds the help to them.
def collect(
    task: Annotated[str, typer.Option(help="Metaworld task, e.g. drawer-open-v3.")],
    out: Annotated[
        Path, typer.Option(help="Folder of the dataset (or bags); the same command goes on where it stopped.")
    ],
    episodes: Annotated[
        int | None, typer.Option(show_default="250", help="Successful episodes to record.")
    ] = None,
    cameras: Annotated[
        list[str] | None,
        typer.Option("--camera", show_default="gripperPOV", help="A camera to record; repeat for more."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(show_default="224x224", help="WIDTHxHEIGHT of the pictures in pixels.")
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            show_default="0.0",
            help="Std of the noise on the executed action, by turns, e.g. 0,0.3,0.6 (1: 1 cm per tick).",
        ),
    ] = None,
    markers: Annotated[
        bool | None,
        typer.Option(
            "--markers/--no-markers", show_default="no-markers", help="Draw goal and finger markers."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(show_default="100000", help="Seed of the first episode; then one after another."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes; -1 for one per core.")] = -1,
    max_steps: Annotated[
        int | None, typer.Option(show_default="300", help="Time limit of an episode in ticks.")
    ] = None,
    keep_steps: Annotated[
        int | None, typer.Option(show_default="10", help="Ticks recorded after success.")
    ] = None,
    via: Annotated[
        Via,
        typer.Option(help="direct: to a dataset. ros: over topics, one bag an episode, to be converted."),
    ] = Via.DIRECT,
    compression: Annotated[
        Compression, typer.Option(help="With --via ros: of the chunks of the bags.")
    ] = Compression.NONE,
    cluster: Annotated[
        str, typer.Option(help="dask:tcp://HOST:8786 or ray:ADDRESS instead of this machine's cores.")
    ] = "",
) -> None:
    """Record demonstrations of Metaworld's scripted expert."""
    if jobs == 0:
        raise CliError("--jobs 0: give a number of processes, or -1 for one per core", USAGE)
    width_px, height_px = size_px(size) if size else (None, None)
    given = {
        "episodes": episodes,
        "cameras": cameras or None,
        "width_px": width_px,
        "height_px": height_px,
        "noise": numbers(noise) if noise else None,
        "markers": markers,
        "first_seed": seed,
        "max_steps": max_steps,
        "keep_steps": keep_steps,
    }
    from dp_ros.schema import CollectConfig, parse

    settings = {key: value for key, value in given.items() if value is not None}
    parse(CollectConfig, settings, where="collect")  # before the simulator is loaded
    if via is Via.ROS and cluster:
        raise CliError(
            "--cluster goes with --via direct: over topics, one robot records one episode at a time", USAGE
        )
    from dp_ros.cli.inspect import dataset_facts
    from dp_ros.sim.metaworld_arm import check_task

    config = parse(CollectConfig, {"task": check_task(task), **settings}, where="collect")
    if via is Via.ROS:
        _collect_bags(config, out, compression)
        return
    from dp_ros.train.collect import collect as run

    began = time.monotonic()
    facts = dataset_facts(out)
    before = facts.episodes if facts else 0
    with ProgressLine("collecting", config.episodes, before) as progress:

        def on_episode(kept: int, tried: int) -> None:
            made = max(kept - before, 1)
            left_s = (time.monotonic() - began) / made * (config.episodes - kept)
            progress.update(kept, f"{tried} tried, {duration(left_s)} left")

        try:
            kept, tried = run(config, out, jobs, on_episode, cluster)
        except KeyboardInterrupt:
            raise Interrupted("the finished episodes are kept: run the same command to go on") from None
    facts = dataset_facts(out)
    ticks = facts.ticks if facts else 0
    print(
        f"{out}: {kept} episodes ({tried} tried), {ticks} ticks, {folder_mb(out):.1f} MB, "
        f"{time.monotonic() - began:.1f} s"
    )


def _collect_bags(config: CollectConfig, out: Path, compression: Compression) -> None:
    from dp_ros.ros.processes.environment import require_ros

    require_ros()
    from dp_ros.ros.processes.collecting import collect_bags

    began = time.monotonic()
    with ProgressLine("recording", config.episodes) as progress:
        try:
            kept, tried = collect_bags(
                config,
                out,
                compression=compression.value,
                on_episode=lambda kept, tried: progress.update(kept, f"{tried} tried"),
            )
        except KeyboardInterrupt:
            raise Interrupted("the finished bags are kept: run the same command to go on") from None
    print(
        f"{out}: {kept} bags with a success ({tried} tried), {folder_mb(out):.1f} MB, "
        f"{time.monotonic() - began:.1f} s; next: dp_ros convert {out} --out DATASET"
    )


def size_px(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise CliError(f"--size '{text}': give WIDTHxHEIGHT in pixels, e.g. 96x96", USAGE)
    return int(match[1]), int(match[2] or match[1])


def numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise CliError(f"--noise '{text}': give numbers with commas between, e.g. 0,0.3,0.6", USAGE) from None
