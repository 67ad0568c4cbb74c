"""`dp_ros bench train`: milliseconds of a training step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dp_ros.cli.bench.results import write
from dp_ros.cli.options import JsonFile, set_option

Against = Literal["lerobot"]


def train(
    config: Annotated[
        str | None,
        typer.Option(
            show_default="cpu; with --against, LeRobot's network of 17 M parameters at 96 px",
            help="Preset of config/train, e.g. cpu, or YAML file of TrainConfig.",
        ),
    ] = None,
    assignments: Annotated[list[str] | None, set_option("a setting of TrainConfig", "batch_size=8")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Number of steps to measure, after 3 that warm up.")] = 20,
    profile: Annotated[bool, typer.Option("--profile", help="Also print the time of each operator.")] = False,
    against: Annotated[
        Against | None,
        typer.Option(
            help="Compare with that project's training, step by step, in f32 and bf16, or as --set precision says."
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Measure on a dataset, from disk against from memory; repeat for more."),
    ] = None,
    json_path: JsonFile = None,
) -> None:
    """Measure a training step on random pictures of the preset's shapes: milliseconds and share of computing.

    Example: dp_ros bench train --config cpu
    """
    from dp_ros.cli.train import training_settings
    from dp_ros.schema import Layers, Settings, TrainConfig

    if against:
        from dp_ros.cli.bench.lerobot import LIKE_FOR_LIKE, compare_training, precisions_of

        layers = Layers.of(Settings(TrainConfig(**LIKE_FOR_LIKE), {}))
        layers.assign(assignments)
        settings = training_settings(config, assignments) if config else layers.settings(TrainConfig)
        rows = [compare_training(settings.config, precision, steps) for precision in precisions_of(settings)]
        for row in rows:
            for clock in ("wall", "processor"):
                of = row[clock]
                shown = ", ".join(
                    f"dp_ros with {side} {of['median_ms'][side]:.0f} ms = {ratio:.2f} times as fast"
                    for side, ratio in of["ratio"].items()
                )
                print(
                    f"batch {row['batch_size']}, {row['precision']}, {clock} time, median of {steps} steps: "
                    f"lerobot {of['median_ms']['lerobot']:.0f} ms, {shown}"
                )
        write(json_path, {"against": against, "rows": rows})
        return
    settings = training_settings(config or "cpu", assignments)
    if data:
        from dp_ros.cli.bench.stream import compare_streaming

        found = compare_streaming(settings, data, steps)
        disk, memory = (found["median_ms"][side] for side in ("disk", "memory"))
        print(
            f"from disk {disk:.0f} ms/step, from memory {memory:.0f} ms/step: {found['ratio'] - 1:+.1%}; "
            f"{found['resident_gb']:.2f} GB resident from disk"
        )
        write(json_path, found)
        return
    from dp_ros.cli.bench.train import measure_training

    measured, table = measure_training(settings.config, steps, profile)
    print(
        f"batch {measured['batch_size']}, {measured['parameters'] / 1e6:.1f} M parameters, {measured['precision']}, "
        f"{measured['device']}: {measured['median_ms']:.0f} ms/step (median of {steps}), "
        f"{measured['compute_share']:.0%} of it forward and backward"
    )
    if table:
        print(table)
    write(json_path, measured)
