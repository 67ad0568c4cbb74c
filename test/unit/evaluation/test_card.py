"""Model card and list of models: figures come from files, and only from files of these weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from dp_ros.cli import main
from dp_ros.evaluation.card import write_card
from dp_ros.evaluation.provenance import provenance
from dp_ros.evaluation.results import EpisodeResult, Report
from dp_ros.policy.checkpoint import save_checkpoint
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import PolicyConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def save(tiny_policy: PolicyConfig, stats: dict[str, Any], tmp_path: Path) -> Any:
    torch.manual_seed(0)
    policy = DiffusionPolicy(tiny_policy.model_copy(update={"task": "reach-v3"}), stats)

    def write(**training: Any) -> Path:
        folder = save_checkpoint(policy, tmp_path / "tiny", training={"step": 40, **training})
        write_card(folder, "tiny")
        return folder

    return write


def test_card_tells_and_shows_how_the_training_went(save: Any) -> None:
    history = {"seconds": 740.2, "loss": [[20, 0.8], [40, 0.0625]], "validation_loss": [[40, 0.07]]}
    folder = save(hardware="2 CPU threads", history=history)
    text = (folder / "card.md").read_text()
    assert "12 min on 2 CPU threads; last loss 0.062." in text
    assert "![Loss over the steps](curve.png)" in text
    before = (folder / "curve.png").read_bytes()
    assert before.startswith(b"\x89PNG")
    assert len(before) < 100_000
    write_card(folder, "tiny")
    assert (folder / "curve.png").read_bytes() == before, "the same numbers are another picture"
    folder = save(hardware="2 CPU threads", history={"seconds": 1.0, "loss": [[20, 0.8], [40, 0.5]]})
    assert (folder / "curve.png").read_bytes() != before


@pytest.mark.parametrize(
    "history", [None, {"seconds": 3.0, "loss": []}], ids=["never kept", "stopped at once"]
)
def test_card_of_a_run_that_kept_no_history_shows_none(save: Any, history: Any) -> None:
    folder = save(hardware="1 CPU thread", history=history)
    assert "curve" not in (folder / "card.md").read_text()
    assert not (folder / "curve.png").exists()


def report_of(folder: Path, path: Path, successes: int, episodes: int = 10, **changes: Any) -> Path:
    """The file of an evaluation of `folder`."""
    results = [EpisodeResult(seed, seed < successes, 30) for seed in range(episodes)]
    report = Report("reach-v3", str(folder), "in-process", results=results, plan_s=[0.05, 0.07])
    report.settings = {"max_steps": 200, "sampler": "ddim", "sampler_iterations": 5}
    report.provenance = provenance(folder)
    path.write_text(json.dumps({**report.as_dict(), **changes}))
    return path


def test_measured_row_is_what_the_report_says(
    save: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save(
        hardware="2 CPU threads",
        history={"seconds": 120.0, "loss": [[40, 0.1]]},
        data={"episodes": 7, "ticks": 70, "first_seed": 5, "noise": [0.0]},
    )
    report = report_of(folder, tmp_path / "a.json", successes=9)
    longer = report_of(folder, tmp_path / "b.json", successes=10, transport="ros")
    data = json.loads(longer.read_text())
    longer.write_text(json.dumps({**data, "settings": {**data["settings"], "max_steps": 500}}))
    assert main(["card", str(folder), "--report", str(report), "--report", str(longer)]) == 0
    text = (folder / "card.md").read_text()
    assert (
        "| in-process | 0 to 9 | 200 | 9/10 = 90% | [60%, 98%] | - | - | 60 / 70 | "
        "`dp_ros eval models/tiny --episodes 10`" in text
    )
    assert "`dp_ros eval models/tiny --episodes 10 --transport ros --max-steps 500`" in text
    capsys.readouterr()
    assert main(["models", str(folder.parent), "--markdown"]) == 0
    first = "| tiny | unet | 9/10 = 90% | [60%, 98%] | in-process | - | 60 / 70 | 7 | 40 steps, 2 min | 2 CPU threads |"
    assert first in capsys.readouterr().out.splitlines()
    (folder / "card.md").unlink()
    assert main(["card", str(folder)]) == 0
    assert (folder / "card.md").read_text() == text, "kept results are shown again"


def test_kept_results_give_way_to_those_of_the_same_settings(save: Any, tmp_path: Path) -> None:
    folder = save()

    def card(*options: str, **reports: tuple[int, str]) -> list[str]:
        """Write the card from reports of (successes of 10, transport); the successes in its table."""
        files = [
            report_of(folder, tmp_path / f"{name}.json", successes, transport=transport)
            for name, (successes, transport) in reports.items()
        ]
        words = [word for file in files for word in ("--report", str(file))]
        assert main(["card", str(folder), *words, *options]) == 0
        return re.findall(r"(\d+)/10 = ", (folder / "card.md").read_text())

    assert card(a=(9, "in-process"), b=(8, "ros"), c=(7, "ros")) == ["9", "8", "7"]
    assert card("--keep", d=(5, "in-process")) == ["5", "8", "7"]
    assert card("--keep", e=(4, "ros")) == ["5", "4"]
    assert card(f=(3, "ros")) == ["3"]
    assert card("--keep", g=(2, "in-process")) == ["3", "2"]


def test_result_in_real_time_says_how_much_was_held(
    save: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save()
    times = {"transport": "ros", "realtime_factor": 0.9984, "held_share": 0.0123, "first_move": 4.0}
    report = report_of(folder, tmp_path / "late.json", successes=9, **times)
    data = json.loads(report.read_text())
    report.write_text(json.dumps({**data, "settings": {**data["settings"], "mode": "realtime"}}))
    assert main(["card", str(folder), "--report", str(report)]) == 0
    assert (
        "| ros, realtime | 0 to 9 | 200 | 9/10 = 90% | [60%, 98%] | 1.2% | 1.00 | 60 / 70 | `dp_ros eval models/tiny "
        "--episodes 10 --transport ros --mode realtime`"
    ) in (folder / "card.md").read_text()
    capsys.readouterr()
    assert main(["models", str(folder.parent), "--markdown"]) == 0
    assert "| 9/10 = 90% | [60%, 98%] | ros, realtime | 1.2% | 60 / 70 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": "push-v3"}, "is of push-v3"),
        ({"provenance": {"weights_sha256": "0" * 64}}, "is of other weights"),
        ({"per_episode": [{"seed": s, "success": True} for s in (0, 2)]}, "its seeds have gaps"),
        ({"per_episode": []}, "is not a report of `dp_ros eval --json`"),
        ({"plan_ms": None}, "is not a report of `dp_ros eval --json`"),
    ],
)
def test_report_of_something_else_is_refused_and_the_card_stays(
    save: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], says: str
) -> None:
    folder = save()
    before = (folder / "card.md").read_text()
    report = report_of(folder, tmp_path / "a.json", 9, **change)
    assert main(["card", str(folder), "--report", str(report)]) == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert (folder / "card.md").read_text() == before
    assert not (folder / "results.json").exists()


def test_data_of_a_person_is_not_called_the_experts(save: Any) -> None:
    text = (save(data={"task": "reach-v3", "episodes": 12, "ticks": 900}) / "card.md").read_text()
    assert "12 episodes, 900 ticks." in text
    assert "expert" not in text
    assert "dp_ros collect" not in text


def collected(*tasks: str, of_task: int, first_seed: int = 9) -> dict[str, Any]:
    """A dataset's part of a training's provenance."""
    settings = {"cameras": ["wrist"], "width_px": 8, "height_px": 8, "noise": [0.0], "first_seed": first_seed}
    return {**settings, "tasks": list(tasks), "episodes": of_task * len(tasks)}


def test_each_collection_of_the_data_has_its_command(save: Any) -> None:
    parts = [
        collected("reach-v3", "push-v3", of_task=3),
        collected("sweep-v3", of_task=3),
        collected("push-v3", of_task=5),
        collected("push-v3", of_task=3, first_seed=70),
        {**collected("push-v3", of_task=3, first_seed=70), "keep_steps": 40},
    ]
    text = (save(data={"episodes": 23, "ticks": 230, "parts": parts}) / "card.md").read_text()
    assert "23 episodes, 230 ticks: successful episodes of the scripted expert, seeds from 9 and 70." in text
    asked = re.findall(r"dp_ros collect --task (\S+) --out (\S+) --episodes (\d+) .* --seed (\d+ ?.*)", text)
    assert asked == [
        ("reach-v3,push-v3,sweep-v3", "DATA", "3", "9"),
        ("push-v3", "DATA2", "5", "9"),
        ("push-v3", "DATA3", "3", "70"),
        ("push-v3", "DATA4", "3", "70 --keep-steps 40"),
    ]
    assert "dp_ros train --config cpu --data DATA --data DATA2 --data DATA3 --data DATA4 --out RUN" in text


def test_collection_that_a_policy_began_names_the_policy(save: Any) -> None:
    corrected = {
        **collected("push-v3", of_task=3),
        "policy": "first",
        "policy_sha256": "ab12",
        "policy_ticks": 90,
    }
    parts = [collected("push-v3", of_task=3), corrected]
    text = (save(data={"episodes": 6, "ticks": 60, "parts": parts}) / "card.md").read_text()
    assert "3 of the episodes begin where the expert took over from first (sha256 ab12)." in text
    asked = re.findall(r"dp_ros collect .* --out (\S+) .*(?<=--policy) (\S+) --policy-ticks (\d+)", text)
    assert asked == [("DATA2", "first", "90")]


def test_datasets_of_a_person_are_counted_beside_those_of_the_expert(save: Any) -> None:
    of_a_person = {"cameras": ["wrist"], "tasks": ["push-v3"], "episodes": 2}
    parts = [collected("reach-v3", of_task=3), of_a_person, of_a_person]
    text = (save(data={"episodes": 7, "ticks": 70, "parts": parts}) / "card.md").read_text()
    assert "4 of the episodes are of a person or another robot." in text
    assert text.count("dp_ros collect") == 1
    assert "dp_ros train --config cpu --data DATA --data DATA2 --data DATA3 --out RUN" in text


def test_training_from_a_checkpoint_tells_what_that_was_made_of(
    save: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    init = {"name": "first", "weights_sha256": "ab" * 32, "step": 30, "command": {"config": "cpu.yaml"}}
    init |= {"data": collected("reach-v3", of_task=3), "hardware": "a GPU", "seconds": 600.0}
    history = {"seconds": 120.0, "loss": [[40, 0.1]]}
    corrections = {"policy": "first", "policy_sha256": init["weights_sha256"], "policy_ticks": 90}
    parts = [collected("push-v3", of_task=2, first_seed=40), collected("push-v3", of_task=1) | corrections]
    data = {"episodes": 3, "ticks": 30, "parts": parts}
    folder = save(init=init, data=data, hardware="2 CPU threads", history=history)
    text = (folder / "card.md").read_text()
    commands = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    assert [re.sub(" --episodes .*", "", command) for command in commands] == [
        "dp_ros collect --task push-v3 --out DATA2",
        "dp_ros collect --task push-v3 --out DATA3",
        "dp_ros collect --task reach-v3 --out DATA",
        "dp_ros train --config cpu --data DATA --out RUN",
        "dp_ros train --config cpu --data DATA2 --data DATA3 --out RUN2 --init RUN",
    ]
    assert "after 30 steps (10 min on a GPU) of:" in text
    assert "1 of the episodes begin where the expert took over from RUN (sha256 abab" in text
    assert re.findall(r"--out (\S+) .*--policy (\S+)", text) == [("DATA3", "RUN")]
    assert main(["models", str(folder.parent), "--markdown"]) == 0
    made = "| 3 + 3 | 30 + 40 steps, 12 min | a GPU + 2 CPU threads |"
    assert made in capsys.readouterr().out


def test_a_dataset_of_two_trainings_has_one_command(save: Any) -> None:
    old, new = collected("reach-v3", of_task=3), collected("push-v3", of_task=2, first_seed=40)
    init = {
        "name": "first",
        "weights_sha256": "ab" * 32,
        "step": 30,
        "command": {"config": "cpu.yaml"},
        "data": old,
    }
    text = (save(init=init, data={"episodes": 5, "ticks": 50, "parts": [new, old]}) / "card.md").read_text()
    assert re.findall(r"dp_ros collect --task (\S+) --out (\S+)", text) == [
        ("push-v3", "DATA2"),
        ("reach-v3", "DATA"),
    ]
    assert "--data DATA --out RUN\n" in text
    assert "--data DATA2 --data DATA --out RUN2 --init RUN" in text


def test_folder_without_models_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", str(tmp_path)]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
