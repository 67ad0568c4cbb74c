"""Measured results of a model, kept beside its weights in results.json and taken from evaluation reports."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter

from dp_ros.documents import read_json
from dp_ros.errors import UserError
from dp_ros.evaluation.statistics import wilson_interval
from dp_ros.evaluation.told import InstructionKind
from dp_ros.files import write_json
from dp_ros.policy.checkpoint_config import instructions_of, policy_config, read_config

RESULTS = "results.json"
MAX_STEPS = 200  # ticks of an episode, unless the command says otherwise
INSTRUCTION_KINDS = get_args(InstructionKind)


class ResultError(UserError):
    """A report that cannot be used for this checkpoint."""


_MEASURED = (
    "first_seed",
    "episodes",
    "successes",
    "plan_p50_ms",
    "plan_p99_ms",
    "realtime_factor",
    "held_share",
)


@dataclass(frozen=True)
class Result:
    """One evaluation, and its cells of a table."""

    transport: str
    first_seed: int
    episodes: int
    successes: int
    plan_p50_ms: float | None
    plan_p99_ms: float | None
    max_steps: int
    sampler: str
    sampler_iterations: int
    policy_seed: int
    spacing: str = "leading"  # files of older versions have none of the following
    mode: str = "lockstep"
    realtime_factor: float | None = None  # in real time only, means over the episodes
    held_share: float | None = None
    task: str = ""  # of a model that does several; empty: the model's only one
    instructions: str = ""  # kind of the sentences, or the sentence, of a model that is told what to do
    warm_start: int = 0

    @property
    def rate(self) -> float:
        return self.successes / self.episodes

    @property
    def settings(self) -> tuple[object, ...]:
        """All but the episodes and what was measured in them."""
        facts = asdict(self)
        return tuple(value for name, value in facts.items() if name not in _MEASURED)

    @property
    def where(self) -> str:
        """Transport, and the mode where it is real time."""
        return self.transport if self.mode == "lockstep" else f"{self.transport}, {self.mode}"

    @property
    def held(self) -> str:
        """Share of ticks held; a dash in lockstep."""
        return "-" if self.held_share is None else f"{self.held_share:.1%}"

    @property
    def pace(self) -> str:
        """Real-time factor; a dash in lockstep."""
        return "-" if self.realtime_factor is None else f"{self.realtime_factor:.2f}"

    @property
    def success(self) -> str:
        return f"{self.successes}/{self.episodes} = {self.rate:.0%}"

    @property
    def interval(self) -> str:
        """Wilson's 95 % interval."""
        low, high = wilson_interval(self.successes, self.episodes)
        return f"[{low:.0%}, {high:.0%}]"

    @property
    def plan(self) -> str:
        """Latency of a plan, p50 / p99 [ms]."""
        if self.plan_p50_ms is None or self.plan_p99_ms is None:
            return "-"
        return f"{self.plan_p50_ms:.0f} / {self.plan_p99_ms:.0f}"

    def command(
        self, name: str, diffusion: Mapping[str, Any], task: str = "", default_max_steps: int = MAX_STEPS
    ) -> str:
        """The `dp_ros eval` command that measures it, without defaults. `diffusion`: of the model's config."""
        told = self.instructions or "known"
        kind = "--instructions" if told in INSTRUCTION_KINDS else "--instruction"
        options = [
            ("--task", task, ""),
            (kind, shlex.quote(told), "known"),
            ("--seed", self.first_seed, 0),
            ("--transport", self.transport, "in-process"),
            ("--mode", self.mode, "lockstep"),
            ("--max-steps", self.max_steps, default_max_steps),
            ("--sampler", self.sampler, diffusion["sampler"]),
            ("--iterations", self.sampler_iterations, diffusion["sampler_iterations"]),
            ("--spacing", self.spacing, diffusion.get("spacing", "leading")),
            ("--warm-start", self.warm_start, 0),
            ("--policy-seed", self.policy_seed, 0),
        ]
        words = [f"{option} {value}" for option, value, default in options if value != default]
        return " ".join([f"dp_ros eval models/{name} --episodes {self.episodes}", *words])


def results_of(report: str | Path, folder: str | Path) -> list[Result]:
    """Results of the checkpoint in `folder` from `report`, a file of `dp_ros eval --json`: one of each task.

    ResultError where the file is no such report, or is of other weights or another task.
    """
    try:
        data = read_json(report)
        found = [(each["task"], each) for each in data.get("tasks", [data])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ResultError(f"{report}: is not a report of `dp_ros eval --json`") from None
    if not found or len({task for task, _ in found}) < len(found):
        raise ResultError(f"{report}: holds no task, or one twice: give a report of `dp_ros eval --json`")
    instructions = instructions_of(folder)
    known = instructions.tasks if instructions else (policy_config(folder).task,)
    results = [_result(report, each, folder) for _, each in found]
    for task, _ in found:
        if task not in known:
            raise ResultError(
                f"{report}: is of {task}, not of the task of {folder}: evaluate {folder} on its own task"
            )
    if not instructions:
        return results
    return [replace(result, task=task) for result, (task, _) in zip(results, found, strict=True)]


def _result(report: str | Path, data: Mapping[str, Any], folder: str | Path) -> Result:
    try:
        episodes, settings, plan = data["per_episode"], data["settings"], data["plan_ms"]
        seeds = [episode["seed"] for episode in episodes]
        result = Result(
            transport=data["transport"],
            first_seed=seeds[0],
            episodes=len(episodes),
            successes=sum(episode["success"] for episode in episodes),
            plan_p50_ms=plan["p50"],
            plan_p99_ms=plan["p99"],
            max_steps=settings["max_steps"],
            sampler=settings["sampler"],
            sampler_iterations=settings["sampler_iterations"],
            spacing=settings.get("spacing", "leading"),  # reports of older versions have none
            warm_start=settings.get("warm_start", 0),
            policy_seed=data["policy_seed"],
            mode=settings.get("mode", "lockstep"),
            realtime_factor=data.get("realtime_factor"),
            held_share=data.get("held_share"),
            instructions=settings.get("instructions", ""),
        )
        result, weights = _row(asdict(result)), data["provenance"]["weights_sha256"]
    except (ValueError, KeyError, TypeError, IndexError):
        raise ResultError(f"{report}: is not a report of `dp_ros eval --json`") from None
    if weights != read_config(folder)["sha256"]["policy.safetensors"]:
        raise ResultError(
            f"{report}: is of other weights than {folder}: evaluate {folder}, then write the card"
        )
    if seeds != list(range(seeds[0], seeds[0] + len(seeds))):
        raise ResultError(f"{report}: its seeds have gaps: evaluate a whole range of seeds")
    return result


def read_results(folder: str | Path) -> list[Result]:
    """Results that `write_results` wrote to `folder`; none where nothing was measured."""
    path = Path(folder) / RESULTS
    if not path.is_file():
        return []
    try:
        return [_row(row) for row in read_json(path)]
    except (ValueError, TypeError):
        raise ResultError(f"{path}: cannot be read: write it again with `dp_ros card --report`") from None


def _row(row: dict[str, Any]) -> Result:
    """TypeError or ValueError where a value is of another type, or its episodes are not so many."""
    result = TypeAdapter(Result).validate_python(asdict(Result(**row)))
    if not (result.episodes > 0 and 0 <= result.successes <= result.episodes):
        raise ValueError
    return result


def merged(kept: Sequence[Result], new: Sequence[Result]) -> list[Result]:
    """The kept results, those of the same settings as a new one replaced by it, then the other new ones."""
    by_settings: dict[tuple[object, ...], list[Result]] = {}
    for each in new:
        by_settings.setdefault(each.settings, []).append(each)
    replaced, results = set(by_settings), []
    for each in kept:
        results += by_settings.pop(each.settings, []) if each.settings in replaced else [each]
    return [*results, *(each for others in by_settings.values() for each in others)]


def write_results(folder: str | Path, results: Sequence[Result]) -> None:
    write_json(Path(folder) / RESULTS, [asdict(result) for result in results])
