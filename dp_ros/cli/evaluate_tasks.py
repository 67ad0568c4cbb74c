"""`dp_ros eval --task A,B`: one policy on several tasks, resumed where it was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dp_ros.cli.errors import CliError
from dp_ros.documents import read_json

if TYPE_CHECKING:
    from dp_ros.evaluation.results import Report

_MAY_DIFFER = ("jobs", "threads")  # settings that change the time only, or the last bits


def evaluate_tasks(
    tasks: Sequence[str],
    about: Mapping[str, Mapping[str, Any]],
    says: Mapping[str, Any],
    episodes: int,
    run: Callable[[str], Report],
    json_path: Path | None,
) -> None:
    """Run each task that `json_path` does not hold already, and print the means.

    about: `settings` and `provenance` of the reports; says: what else a report of the file must say, see `_said`. The
    file is written after each task. CliError where it holds something else.
    """
    from dp_ros.evaluation.many_tasks import lines, summary
    from dp_ros.files import write_json

    settings = {key: value for key, value in about["settings"].items() if key not in _MAY_DIFFER}
    weights = about["provenance"]["weights_sha256"]
    wanted = {"gate": None, **settings, **says, "episodes": episodes, "weights_sha256": weights}
    reports = _read(json_path) if json_path and json_path.exists() else {}
    for task, report in reports.items():
        if task not in tasks:
            raise CliError(f"{json_path}: holds {task}, which is not evaluated now: give another --json")
        if other := _difference(report, wanted):
            raise CliError(f"{json_path}: holds {task} with {other}: give another --json")
    if reports:
        print(f"{json_path}: holds {len(reports)} of {len(tasks)} tasks already")
    for task in tasks:
        if task in reports:
            continue
        reports[task] = run(task).as_dict()
        if json_path:
            write_json(json_path, {"tasks": list(reports.values()), **summary(reports)})
    print("\n".join(lines(reports)))


def _read(path: Path) -> dict[str, Any]:
    """Task -> report."""
    try:
        reports = read_json(path)["tasks"]
        if not all(_is_whole(report) for report in reports):
            raise ValueError
        return {report["task"]: report for report in reports}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CliError(f"{path}: is not of an evaluation of several tasks: give another --json") from None


def _is_whole(report: Mapping[str, Any]) -> bool:
    """Whether it has what `summary` reads."""
    episodes = report["per_episode"]
    reasons = (each["reason"] for each in episodes if each["success"] is not True)
    is_counted = report["episodes"] == len(episodes) > 0
    return (
        isinstance(report["task"], str)
        and is_counted
        and all(isinstance(reason, str) for reason in reasons)
        and report["success_rate"] == sum(each["success"] for each in episodes) / len(episodes)
    )


def _difference(report: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first setting in which the report differs, in words; empty where it agrees."""
    try:
        said = {
            **report["settings"],
            "policy_seed": report["policy_seed"],
            "episodes": report["episodes"],
            "first_seed": report["per_episode"][0]["seed"],
            "weights_sha256": report["provenance"]["weights_sha256"],
        }
    except (KeyError, IndexError, TypeError):
        return "no settings"
    return next(
        (f"{key} {said.get(key)}, not {value}" for key, value in wanted.items() if said.get(key) != value), ""
    )
