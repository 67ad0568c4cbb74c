"""`dp_ros compare`: whether one policy does better than another, on the same seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dp_ros.cli.console import find_checkpoint
from dp_ros.cli.errors import USAGE, CliError
from dp_ros.cli.evaluate import FirstSeed, Jobs, MaxSteps, PolicySeed, Threads, lockstep_runtime, run_episodes

_NEEDED = ("task", "checkpoint", "per_episode")


def compare(
    a: Annotated[Path, typer.Argument(help="Report of `dp_ros eval`, or a checkpoint to evaluate.")],
    b: Annotated[Path, typer.Argument(help="The other one.")],
    episodes: Annotated[
        int, typer.Option(min=1, help="Of a checkpoint; beside a report, the report's seeds.")
    ] = 50,
    seed: FirstSeed = 0,
    policy_seed: PolicySeed = 0,
    max_steps: MaxSteps = 200,
    jobs: Jobs = 1,
    threads: Threads = 0,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the comparison there.")
    ] = None,
) -> None:
    """Say whether two policies differ at 5 %, paired by seed."""
    known = {path: read_report(path) for path in (a, b) if path.suffix == ".json"}
    task = ""
    for report in known.values():  # a checkpoint beside a report is put to the same test
        seeds = [episode["seed"] for episode in report["per_episode"]]
        task, seed, episodes = report["task"], min(seeds, default=0), max(1, len(seeds))
        max_steps = report.get("settings", {}).get("max_steps", max_steps)
    runtime = lockstep_runtime("checkpoint", 0, policy_seed, threads)
    reports = []
    for path in (a, b):
        if path not in known:
            checkpoint = find_checkpoint(path)
            known[path] = run_episodes(
                checkpoint, task, seed, episodes, "in-process", max_steps, runtime, None, jobs
            ).as_dict()
        reports.append(known[path])
    from dp_ros.evaluation.comparison import compare as paired

    comparison = paired(*reports)
    print("\n".join(comparison.lines()))
    if json_path:
        from dp_ros.evaluation.statistics import write_json

        write_json(json_path, comparison.as_dict())


def read_report(path: Path) -> dict[str, Any]:
    """What `dp_ros eval` wrote; CliError where it is something else."""
    try:
        report = json.loads(path.read_text())
        for episode in report["per_episode"]:
            _ = (episode["seed"], episode["success"], episode["steps"])
        return {**report, **{key: report[key] for key in _NEEDED}}
    except (ValueError, KeyError, TypeError):
        raise CliError(f"{path}: is not a report of `dp_ros eval`", USAGE) from None
