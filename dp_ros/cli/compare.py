"""`dp_ros compare`: paired comparison of two policies on the same seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dp_ros.cli.console import check_outputs
from dp_ros.cli.errors import USAGE, CliError
from dp_ros.cli.evaluate import run_episodes, task_and_seeds
from dp_ros.cli.options import (
    EngineOption,
    FirstSeed,
    Jobs,
    JsonFile,
    MaxSteps,
    PolicySeed,
    Precision,
    Threads,
    lockstep_runtime,
)
from dp_ros.documents import read_json

_NEEDED = ("task", "checkpoint", "per_episode")


def compare(
    a: Annotated[str, typer.Argument(help="Report of `dp_ros eval`, or a checkpoint to evaluate.")],
    b: Annotated[str, typer.Argument(help="The other report or checkpoint.")],
    episodes: Annotated[
        int,
        typer.Option(min=1, help="Number of episodes; a checkpoint beside a report gets the report's seeds."),
    ] = 50,
    seed: FirstSeed = 0,
    policy_seed: PolicySeed = 0,
    max_steps: MaxSteps = 200,
    jobs: Jobs = 1,
    engine: EngineOption = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    json_path: JsonFile = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also write each evaluation that is run, as NAME.json, when it ends."
        ),
    ] = None,
) -> None:
    """Test whether two policies differ at the 5 % level, paired by seed.

    Example: dp_ros compare runs/report/a.json runs/report/b.json
    """
    known = {name: read_report(Path(name)) for name in (a, b) if Path(name).suffix == ".json"}
    task = ""
    for report in known.values():  # a checkpoint beside a report runs the report's episodes
        seeds = [episode["seed"] for episode in report["per_episode"]]
        task, seed, episodes = report["task"], min(seeds, default=0), max(1, len(seeds))
        max_steps = report.get("settings", {}).get("max_steps", max_steps)
    from dp_ros.evaluation.comparison import check_comparable
    from dp_ros.evaluation.comparison import compare as paired
    from dp_ros.files import write_json
    from dp_ros.policy.checkpoint_folder import find_checkpoint

    folders = {name: find_checkpoint(name) for name in (a, b) if name not in known}
    planned = {given: _planned(folder, task, seed, episodes, max_steps) for given, folder in folders.items()}
    check_comparable(*({**known, **planned}[given] for given in (a, b)))  # before hours of work
    check_outputs(folders=[keep], files=[json_path])
    runtime = lockstep_runtime(policy_seed, threads, engine=engine, precision=precision)
    names = _names(list(folders.values())) if keep else [""] * len(folders)
    for (given, folder), name in zip(folders.items(), names, strict=True):
        report = run_episodes(folder, task, seed, episodes, "in-process", max_steps, runtime, None, jobs)
        known[given] = report.as_dict()
        if keep:
            write_json(keep / f"{name}.json", known[given])
    comparison = paired(known[a], known[b])
    print("\n".join(comparison.lines()))
    if json_path:
        write_json(json_path, comparison.as_dict())


def _planned(checkpoint: Path, task: str, seed: int, episodes: int, max_steps: int) -> dict[str, Any]:
    """The part of an evaluation's report that is known before it runs."""
    task, seeds = task_and_seeds(checkpoint, task, seed, episodes)
    return {
        "task": task,
        "settings": {"max_steps": max_steps},
        "per_episode": [{"seed": each} for each in seeds],
    }


def _names(folders: list[Path]) -> list[str]:
    from dp_ros.evaluation.report.write_report import unique_names

    return unique_names(folders)


def read_report(path: Path) -> dict[str, Any]:
    """A report of `dp_ros eval`; CliError where the file is none."""
    try:
        report = read_json(path)
        for episode in report["per_episode"]:
            if not (
                type(episode["seed"]) is type(episode["steps"]) is int and type(episode["success"]) is bool
            ):
                raise TypeError
        are_texts = isinstance(report["task"], str) and isinstance(report["checkpoint"], str)
        steps = report.get("settings", {}).get("max_steps", 1)
        if not (are_texts and type(steps) is int and steps > 0):
            raise TypeError
        return {**report, **{key: report[key] for key in _NEEDED}}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CliError(f"{path}: is not a report of `dp_ros eval --json`", USAGE) from None
