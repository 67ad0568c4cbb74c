"""One policy on several tasks: means, sentences, and an evaluation that continues where it was interrupted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mujoco")

from dp_ros.cli import main
from dp_ros.evaluation.many_tasks import difficulties, lines, mean_of_groups, mean_of_tasks, summary
from dp_ros.evaluation.provenance import provenance
from dp_ros.evaluation.results import EpisodeResult, Report
from dp_ros.evaluation.statistics import wilson_interval
from dp_ros.evaluation.told import InstructionKind, instruction_for
from dp_ros.policy.checkpoint import save_checkpoint
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.instructions import Instructions, Sentence
from dp_ros.schema import InstructionError, PolicyConfig, override
from dp_ros.sim.arm import simulator_of

DIM = 12
TASKS = ("tiny-push", "tiny-push-tilt30")
KNOWN = Instructions(
    (
        Sentence("push it", TASKS[0]),
        Sentence("shove it", TASKS[0]),
        Sentence("nudge it", TASKS[0], kind="held_out"),
        Sentence("push it, tilted", TASKS[1]),
    ),
    np.eye(DIM, dtype=np.float32)[:4],
)


def report(task: str, *reasons: str) -> dict[str, Any]:
    """Report of an episode for each reason; a success where it is empty."""
    episodes = [{"success": not reason, "reason": reason} for reason in reasons]
    rate = sum(not reason for reason in reasons) / len(reasons)
    return {"task": task, "success_rate": rate, "per_episode": episodes}


@pytest.fixture
def told(tiny_policy: PolicyConfig, stats: Mapping[str, Any], tmp_path: Path) -> Path:
    """A checkpoint of two tasks that is told which one to do."""
    changes = {
        "encoder.cameras": ["gripperPOV"],
        "rate_hz": 20.0,
        "instruction": {"embedding_dim": DIM, "features": 6},
    }
    policy = DiffusionPolicy(override(tiny_policy, changes), stats)
    return save_checkpoint(policy, tmp_path / "told", instructions=KNOWN)


def test_the_groups_of_difficulty_are_the_tasks_of_metaworld() -> None:
    pytest.importorskip("metaworld")
    tasks = [task for of_group in difficulties().values() for task in of_group]
    assert sorted(tasks) == sorted(simulator_of("reach-v3").tasks)


def test_the_mean_of_groups_weighs_groups_and_the_mean_of_tasks_weighs_tasks() -> None:
    groups = difficulties()
    rates = {task: float(name == "very_hard") for name, tasks in groups.items() for task in tasks}
    of_groups, of_tasks = mean_of_groups(rates), mean_of_tasks(rates)
    assert of_groups is not None
    assert of_groups.rate == 0.25
    assert of_tasks.rate == pytest.approx(len(groups["very_hard"]) / 50)
    assert of_groups.low == of_groups.high == 0.25  # tasks are drawn within their group, where all are equal
    assert of_tasks.low < of_tasks.rate < of_tasks.high


def test_no_mean_of_groups_without_all_of_their_tasks() -> None:
    rates = dict.fromkeys((task for tasks in difficulties().values() for task in tasks), 1.0)
    rates.pop("reach-v3")
    assert mean_of_groups(rates) is None


def test_the_bootstrap_interval_is_about_two_standard_errors() -> None:
    rates = {str(i): float(i % 2) for i in range(100)}
    mean = mean_of_tasks(rates)
    assert mean.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.01)
    assert mean.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.01)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_interval_of_equal_rates_is_not_a_point(rate: float) -> None:
    mean = mean_of_tasks({str(i): rate for i in range(50)})
    assert mean.low < mean.high
    assert (mean.low, mean.high) == pytest.approx(wilson_interval(round(50 * rate), 50))


def test_summary_counts_failures_by_reason_and_names_whole_groups_only() -> None:
    reports = {"a": report("a", "", "time limit"), "reach-v3": report("reach-v3", "time limit", "no command")}
    found = summary(reports)
    assert found["failures"] == {"time limit": 2, "no command": 1}
    assert (found["groups"], found["mean_of_groups"]) == ({}, None)
    text = "\n".join(lines(reports))
    assert text.startswith("mean of 2 tasks: 25.0% [")
    assert "failures: 2 time limit, 1 no command" in text


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("known", ["push it", "shove it", "push it"]),
        ("held_out", ["nudge it"] * 3),
        ("wrong", ["push it, tilted"] * 3),
    ],
)
def test_sentences_take_turns_by_seed(kind: InstructionKind, said: list[str]) -> None:
    assert [instruction_for(KNOWN, TASKS[0], seed, kind=kind) for seed in range(3)] == said


def test_tasks_do_not_share_their_wrong_sentences() -> None:
    names = tuple(f"task-{i}" for i in range(20))
    known = Instructions(tuple(Sentence(name, name) for name in names), np.eye(20, dtype=np.float32))
    said = {name: instruction_for(known, name, 1000, kind="wrong") for name in names}
    assert all(said[name] != name for name in names)
    assert len(set(said.values())) > 8  # of 20 drawn independently, 13 are expected


def test_a_policy_of_one_task_takes_no_instruction() -> None:
    assert instruction_for(None, TASKS[0], 0) == ""
    for options in ({"sentence": "push it"}, {"kind": "wrong"}):
        with pytest.raises(InstructionError, match=r"does one thing and takes no instruction"):
            instruction_for(None, TASKS[0], 0, **options)


@pytest.mark.sim
def test_an_evaluation_of_several_tasks_resumes_without_instructions_too(
    tiny_policy: PolicyConfig,
    stats: Mapping[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    one_thread: None,
) -> None:
    policy = override(tiny_policy, {"encoder.cameras": ["gripperPOV"], "rate_hz": 20.0})
    plain = save_checkpoint(DiffusionPolicy(policy, stats), tmp_path / "plain")
    args = ["eval", plain, "--task", ",".join(TASKS), "--episodes", 1, "--max-steps", 1, "--engine", "torch"]
    for _ in range(2):
        assert main([*map(str, args), "--json", str(tmp_path / "tasks.json")]) == 0
    assert "holds 2 of 2 tasks already" in capsys.readouterr().out


@pytest.mark.sim
def test_an_interrupted_evaluation_of_several_tasks_resumes(
    told: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    file = tmp_path / "tasks.json"
    args = ["eval", told, "--episodes", 2, "--max-steps", 2, "--engine", "torch", "--json", file]
    assert main([*map(str, args), "--task", ",".join(TASKS)]) == 0
    whole = json.loads(file.read_text())
    assert [each["task"] for each in whole["tasks"]] == list(TASKS)
    assert whole["failures"] == {"time limit": 4}
    episodes = [(e["seed"], e["instruction"]) for each in whole["tasks"] for e in each["per_episode"]]
    assert episodes == [(0, "push it"), (1, "shove it"), (0, "push it, tilted"), (1, "push it, tilted")]

    kept = {**whole, "tasks": whole["tasks"][1:]}  # as if the run had ended before the other task
    file.write_text(json.dumps(kept))
    capsys.readouterr()
    assert main([*map(str, args), "--task", ",".join(TASKS)]) == 0
    assert "holds 1 of 2 tasks already" in capsys.readouterr().out
    again = json.loads(file.read_text())
    assert again["mean_of_tasks"] == whole["mean_of_tasks"]
    assert sorted(each["task"] for each in again["tasks"]) == sorted(TASKS)

    assert (
        main(
            [
                "eval",
                str(told),
                "--episodes",
                "2",
                "--max-steps",
                "2",
                "--engine",
                "torch",
                "--json",
                str(file),
            ]
        )
        == 0
    )
    assert "holds 2 of 2 tasks already" in capsys.readouterr().out, "without --task, all tasks of the model"
    before = file.read_text()
    for other, said in (
        (["--task", ",".join(TASKS), "--policy-seed", "1"], "with policy_seed 0, not 1: give another --json"),
        (["--task", ",".join(TASKS), "--instructions", "wrong"], "with instructions known, not wrong"),
        (
            ["--task", "tiny-push,tiny-push-tilt180", "--instruction", "push it"],
            "holds tiny-push-tilt30, which is not",
        ),
    ):
        assert main([*map(str, args), *other]) != 0
        assert said in capsys.readouterr().err
    assert file.read_text() == before

    first, second = whole["tasks"]
    limited = {**first, "settings": {**first["settings"], "gate": {"max_speed_m_s": 0.1}}}
    for report, said in (
        (limited, "with gate {'max_speed_m_s': 0.1}, not None: give another --json"),
        ({**first, "success_rate": "high"}, "is not of an evaluation of several tasks"),
        ({**first, "per_episode": [{"seed": 0}] * 2}, "is not of an evaluation of several tasks"),
        ({key: value for key, value in first.items() if key != "success_rate"}, "is not of an evaluation"),
    ):
        file.write_text(json.dumps({**whole, "tasks": [report, second]}))
        assert main([*map(str, args), "--task", ",".join(TASKS)]) != 0
        assert said in capsys.readouterr().err


def test_the_card_and_the_list_of_models_show_all_tasks_of_an_evaluation(
    told: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for kind, successes in (("known", (9, 6)), ("wrong", (0, 1))):
        reports = []
        for task, count in zip(TASKS, successes, strict=True):
            results = [EpisodeResult(seed, seed < count, 30, instruction="push it") for seed in range(10)]
            one = Report(task, str(told), "in-process", results=results, plan_s=[0.01 * count + 0.01])
            settings = {"max_steps": 500, "sampler": "ddim", "sampler_iterations": 5, "instructions": kind}
            one.settings, one.provenance = settings, provenance(told)
            reports.append(one.as_dict())
        files.append(tmp_path / f"{kind}.json")
        files[-1].write_text(json.dumps({"tasks": reports}))
    assert main(["card", str(told), *(word for file in files for word in ("--report", str(file)))]) == 0
    text = (told / "card.md").read_text()
    command = f"`dp_ros eval models/told --episodes 10 --task {','.join(TASKS)}"
    assert f"| 1: known, in-process | 2 | 75.0% [60%, 90%] | - | 100 / 100 | {command}` |" in text
    assert (
        f"| 2: wrong, in-process | 2 | 5.0% [0%, 10%] | - | 20 / 20 | {command} --instructions wrong` |"
        in text
    )
    assert f"| {TASKS[1]} | - | 6/10 = 60% [31%, 83%] | 1/10 = 10% [2%, 40%] |" in text
    assert "3 sentences of 2 tasks, e.g. 'push it'" in text
    capsys.readouterr()
    assert main(["models", str(told), "--markdown"]) == 0
    assert "| mean of 2 tasks 75.0%, known sentences | [60%, 90%] | in-process |" in capsys.readouterr().out

    files[0].write_text(json.dumps({**reports[1], "settings": {**reports[1]["settings"], "max_steps": 200}}))
    assert main(["card", str(told), "--report", str(files[0])]) == 0
    alone = f"`dp_ros eval models/told --episodes 10 --task {TASKS[1]} --instructions wrong`"
    assert alone in (told / "card.md").read_text(), "the limit of one task is 200 ticks without --max-steps"

    files[0].write_text(json.dumps({"tasks": [{**reports[0], "task": "reach-v3"}]}))
    assert main(["card", str(told), "--report", str(files[0])]) != 0
    assert "is of reach-v3, not of the task of" in capsys.readouterr().err

    before = (told / "results.json").read_text()
    slow = {**reports[0], "plan_ms": {"p50": "fast", "p99": 1.0}}
    for tasks in ([], [reports[0], reports[0]], [slow]):
        files[0].write_text(json.dumps({"tasks": tasks}))
        assert main(["card", str(told), "--report", str(files[0])]) != 0
        assert str(files[0]) in capsys.readouterr().err, "the report is to blame, and nothing is written"
        assert (told / "results.json").read_text() == before


def test_sentences_that_do_not_exist_are_refused_before_the_first_episode(
    told: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, said in (
        (["--task", TASKS[1], "--instructions", "held_out"], "has no held-out instruction"),
        (["--task", "tiny-push-tilt180"], "task tiny-push-tilt180 has no instruction in this model"),
        (
            ["--task", TASKS[0], "--instruction", "push it", "--instructions", "wrong"],
            "leave --instructions out",
        ),
        (["--task", TASKS[0], "--instruction", " "], "the instruction is empty"),
        (["--task", ",".join(TASKS), "--report", "out"], "several tasks go with one checkpoint"),
    ):
        assert main(["eval", str(told), *options]) != 0
        printed = capsys.readouterr()
        assert said in printed.err
        assert "seed 0" not in printed.out
