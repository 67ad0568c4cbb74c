"""`dp_ros replay`: compute the commands of recorded policies again, and compare them with the recorded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dp_ros.cli.console import ProgressLine, check_outputs, table_console
from dp_ros.cli.convert import read_map
from dp_ros.cli.errors import CliError
from dp_ros.cli.options import Bags, JsonFile, TopicMapFile


def replay(
    bags: Bags,
    checkpoint: Annotated[
        str,
        typer.Option(help="Checkpoint or run folder that was served, or the name of a shipped model."),
    ],
    engine: Annotated[
        str, typer.Option(show_default="as recorded", help="Engine of the inference, e.g. torch.")
    ] = "",
    precision: Annotated[
        str, typer.Option(show_default="as recorded", help="Precision of the inference: f32 or bf16.")
    ] = "",
    map_file: TopicMapFile = None,
    json_path: JsonFile = None,
) -> None:
    """Compute the commands of recorded policies again. Exit code 1 where they differ from the recorded ones.

    With the engine, precision and kind of machine of the recording, the commands must be the same to the bit. Else
    they may differ by 1 mm and by 0.02 of the gripper's command in f32, and by 20 mm and 0.1 where one is bf16. The
    bags are those of record.launch.py.

    Example: dp_ros replay runs/served --checkpoint drawer-open-v3-unet
    """
    from dp_ros.data.bags.reader import BagError, find_bags
    from dp_ros.evaluation.replay import ReplayScore
    from dp_ros.files import write_json
    from dp_ros.policy.checkpoint_folder import find_checkpoint
    from dp_ros.ros.bags.replay import replay_bag
    from dp_ros.schema import TopicMap

    check_outputs(files=[json_path])
    folder, paths = find_checkpoint(checkpoint), find_bags(bags)
    topics = read_map(map_file) if map_file else TopicMap()
    changes = _changes(engine, precision)
    scores: list[ReplayScore] = []
    refused: list[str] = []
    with ProgressLine("ticks") as progress:
        for path in paths:
            try:
                score = replay_bag(
                    path,
                    folder,
                    topics,
                    changes,
                    lambda done, total, path=path: progress.update(done, path.name, total),
                )
            except BagError as error:
                if len(paths) == 1:
                    raise
                refused.append(str(error))
                continue
            scores.append(score)
    _show(scores)
    if json_path:
        write_json(json_path, {"bags": [score.as_dict() for score in scores], "refused": refused})
    for score in scores:
        print(f"{score.bag}: {score.line}")
    for line in refused:
        print(line)
    if failed := len(refused) + sum(not score.is_same for score in scores):
        raise CliError(f"{failed} of {len(paths)} bags: the commands differ, or the bag was refused")


def _changes(engine: str, precision: str) -> dict[str, Any]:
    """Settings of the engine that were typed. ConfigError for values that do not exist."""
    from dp_ros.cli.options import typed_config
    from dp_ros.schema import RuntimeConfig

    given = {name: value for name, value in (("engine", engine), ("precision", precision)) if value}
    if given:
        typed_config(RuntimeConfig, given)
    if engine and not precision:
        given["precision"] = "auto"
    return given


def _show(scores: list[Any]) -> None:
    from rich.table import Table

    view = Table("bag", "mode", "engine", "plans", "commands", "equal", "largest mm", "not replayed", "same")
    for score in scores:
        view.add_row(
            Path(score.bag).name,
            score.mode,
            score.engine,
            str(score.plans),
            str(score.compared),
            str(score.equal),
            f"{score.largest_m * 1e3:.3g}",
            "; ".join(f"{count}: {why}" for why, count in score.skipped.items()) or "none",
            "yes" if score.is_same else "no",
        )
    if scores:
        table_console().print(view)
