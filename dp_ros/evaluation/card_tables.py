"""Tables of a model card: measured results of one task, or of many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dp_ros.evaluation.many_tasks import MAX_STEPS, Mean, difficulties, mean_of_groups, mean_of_tasks
from dp_ros.evaluation.model_results import MAX_STEPS as ONE_TASK_STEPS
from dp_ros.evaluation.model_results import Result
from dp_ros.sim.arm import task_groups

Row = Sequence[str]
_ONE_TASK = (
    "transport", "seeds", "time limit [ticks]", "success", "95 % interval", "ticks held", "real-time factor",
    "plan p50 / p99 [ms]", "command",
)  # fmt: skip


def markdown(head: Row, rows: Iterable[Row]) -> list[str]:
    """Lines of a table."""
    first, *others = (f"| {' | '.join(row)} |" for row in (head, *rows))
    return [first, f"|{'---|' * len(head)}", *others]


def table_of_one_task(name: str, results: Sequence[Result], diffusion: Mapping[str, Any]) -> list[str]:
    """A row for each evaluation."""
    return markdown(
        _ONE_TASK,
        (
            (
                result.where,
                f"{result.first_seed} to {result.first_seed + result.episodes - 1}",
                f"{result.max_steps}",
                result.success,
                result.interval,
                result.held,
                result.pace,
                result.plan,
                f"`{result.command(name, diffusion)}`",
            )
            for result in results
        ),
    )


def tables_of_tasks(name: str, results: Sequence[Result], diffusion: Mapping[str, Any]) -> list[str]:
    """The means of each evaluation, and below them a row for each task with a column for each evaluation."""
    evaluations = by_evaluation(results)
    head = (
        "evaluation",
        "tasks",
        "mean of tasks",
        "mean of the four groups",
        "plan p50 / p99 [ms]",
        "command",
    )
    rows = []
    for number, of_tasks in enumerate(evaluations, 1):
        of_groups = mean_of_groups(rates(of_tasks))
        limit = MAX_STEPS if len(of_tasks) > 1 else ONE_TASK_STEPS
        command = of_tasks[0].command(name, diffusion, group_name([r.task for r in of_tasks]), limit)
        what = f"{number}: {of_tasks[0].instructions or '-'}, {of_tasks[0].where}"
        means = (str(mean_of_tasks(rates(of_tasks))), str(of_groups) if of_groups else "-")
        rows.append((what, str(len(of_tasks)), *means, slowest_plan(of_tasks), f"`{command}`"))
    group_of = {task: group for group, tasks in difficulties().items() for task in tasks}
    tasks = dict.fromkeys(result.task for result in results)
    cells = [{result.task: f"{result.success} {result.interval}" for result in each} for each in evaluations]
    return [
        *markdown(head, rows),
        "",
        "Intervals of means are by bootstrap over tasks; those of a task, and of a mean of 0 or 100 %, are Wilson's. "
        "Plans: the slowest task's.",
        "",
        *markdown(
            ("task", "group", *(f"evaluation {number}" for number in range(1, len(cells) + 1))),
            ((task, group_of.get(task, "-"), *(each.get(task, "-") for each in cells)) for task in tasks),
        ),
    ]


def by_evaluation(results: Sequence[Result]) -> list[list[Result]]:
    """The results of many tasks, those of one command together."""
    found: dict[Result, list[Result]] = {}
    for result in results:
        nothing = replace(result, task="", successes=0, plan_p50_ms=None, plan_p99_ms=None)
        found.setdefault(replace(nothing, realtime_factor=None, held_share=None), []).append(result)
    return list(found.values())


def rates(results: Sequence[Result]) -> dict[str, float]:
    """Task -> success rate."""
    return {result.task: result.rate for result in results}


def mean_of(results: Sequence[Result]) -> Mean:
    """Mean over the tasks of one evaluation."""
    return mean_of_tasks(rates(results))


def slowest_plan(results: Sequence[Result]) -> str:
    """Latency of a plan, p50 / p99 [ms], of the task with the greatest p99."""
    return max(results, key=lambda result: result.plan_p99_ms or 0.0).plan


def group_name(tasks: Sequence[str]) -> str:
    """The tasks as `--task` takes them: the name of their group, or a list."""
    return next(
        (name for name, of_group in task_groups().items() if set(of_group) == set(tasks)), ",".join(tasks)
    )
