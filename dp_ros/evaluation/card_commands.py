"""Commands of a model card that make the datasets and the weights of each stage of a training."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dp_ros.evaluation.card_tables import group_name
from dp_ros.schema import CollectConfig

_LAST = ""  # of the last stage the weights have no hash yet


def stages(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The training and those of the checkpoints that it began with, the first one first."""
    before = training.get("init")
    return [*(stages(before) if before else ()), training]


def is_told(stage: Mapping[str, Any]) -> bool:
    """Whether a checkpoint that a training began with tells how it was made itself."""
    return "step" in stage and "command" in stage


@dataclass(frozen=True)
class Names:
    """Names of the datasets (DATA, DATA2) and of the runs (RUN, RUN2) in the commands.

    They are numbered from the first stage to the last. A dataset of several stages has one name.
    """

    data: Mapping[str, list[str]]  # of each stage, by the sha256 of its weights
    runs: Mapping[str, str]  # the same

    @classmethod
    def of(cls, training: Mapping[str, Any]) -> Names:
        data: dict[str, list[str]] = {}
        runs: dict[str, str] = {}
        named: dict[str, str] = {}
        for stage in stages(training):
            key = stage.get("weights_sha256", _LAST)
            calls, others = collect_calls(stage.get("data", {}))
            made = [json.dumps(call, sort_keys=True) for call in calls]
            made += [f"{key} {i}" for i in range(len(others))]
            data[key] = [named.setdefault(each, _numbered("DATA", len(named) + 1)) for each in made]
            if key == _LAST or is_told(stage):
                runs[key] = _numbered("RUN", len(runs) + 1)
        return cls(data, runs)

    def policy(self, call: Mapping[str, Any]) -> str:
        """The policy that the expert corrected: one of the runs, or what it was called then; "" where there is none."""
        if not call.get("policy"):
            return ""
        return self.runs.get(call["policy_sha256"], call["policy"])

    def collect_commands(self, stage: Mapping[str, Any]) -> list[str]:
        """The `dp_ros collect` commands that make the data of a stage; none for those of a person or another robot.

        Of an earlier stage those are left out that make data of the last one, too.
        """
        key = stage.get("weights_sha256", _LAST)
        calls, _ = collect_calls(stage.get("data", {}))
        return [
            collect_command({**call, "policy": self.policy(call)}, name)
            for call, name in zip(calls, self.data[key], strict=False)
            if key == _LAST or name not in self.data[_LAST]
        ]

    def train_command(self, stage: Mapping[str, Any]) -> str:
        """The `dp_ros train` or `dp_ros distill` command that makes the weights of a stage."""
        key = stage.get("weights_sha256", _LAST)
        command, run = stage.get("command", {}), self.runs[key]
        settings = "".join(f" --set {shlex.quote(text)}" for text in command.get("set", ()))
        data = " ".join(f"--data {name}" for name in self.data[key])
        if teacher := stage.get("teacher"):
            return f"dp_ros distill {teacher['name']} {data} --out {run}{settings}"
        config = Path(command.get("config", "cpu.yaml")).stem
        before = stage.get("init")
        init = f" --init {self.runs.get(before['weights_sha256'], before['name'])}" if before else ""
        return f"dp_ros train --config {config} {data} --out {run}{init}{settings}"


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}{number}"


def collect_calls(data: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[int]]:
    """(calls of `dp_ros collect` that make the data, episodes of each dataset of a person or another robot).

    Datasets that differ by their tasks alone are one call.
    """
    calls: list[dict[str, Any]] = []
    others: list[int] = []
    for part in data.get("parts", [data]):
        if not {"first_seed", "noise"} <= part.keys():
            others.append(part.get("episodes", 0))
            continue
        tasks = [task or "TASK" for task in part.get("tasks", [part.get("task")])]
        settings = {key: value for key, value in part.items() if key not in ("task", "tasks", "episodes")}
        of_task = part.get("episodes", 0) // len(tasks)
        same = next((c for c in calls if (c["settings"], c["of_task"]) == (settings, of_task)), None)
        if same is None or set(same["tasks"]) & set(tasks):
            calls.append({"settings": settings, "of_task": of_task, "tasks": tasks})
        else:
            same["tasks"] += tasks
    return [{**c["settings"], "tasks": c["tasks"], "episodes": c["of_task"]} for c in calls], others


def collect_command(call: Mapping[str, Any], name: str) -> str:
    """The `dp_ros collect` command that makes the dataset `name`. call: settings, tasks, and episodes of each task."""
    cameras = " ".join(f"--camera {camera}" for camera in call.get("cameras", ()))
    noise = ",".join(f"{value:g}" for value in call.get("noise", ()))
    size = f"{call.get('width_px')}x{call.get('height_px')}"
    markers = " --markers" if call.get("markers") else ""
    others = "".join(
        f" --{option.replace('_', '-')} {call[option]}"
        for option in ("max_steps", "keep_steps", "policy", "policy_ticks")
        if call.get(option, _default(option)) != _default(option)
    )
    return (
        f"dp_ros collect --task {group_name(call['tasks'])} --out {name} --episodes {call['episodes']} "
        f"{cameras} --size {size} --noise {noise} --seed {call.get('first_seed')}{markers}{others}"
    )


def _default(option: str) -> Any:
    return CollectConfig.model_fields[option].default
