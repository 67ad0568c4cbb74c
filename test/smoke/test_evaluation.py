"""Evaluation as users run it, in its smallest form: many processes, a report, a comparison, robustness."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dp_ros.cli import errors, main

Cli = Callable[..., subprocess.CompletedProcess[str]]
MakeOnce = Callable[[str, Callable[[Path], object]], Path]
# By name: `auto` takes the faster engine, and another process of the tests may have measured another one.
TORCH = ("--engine", "torch", "--threads", 1)
SHORT = ("--episodes", 4, "--max-steps", 10, *TORCH)

pytestmark = pytest.mark.sim


@pytest.fixture(scope="session")
def one_process(trained: Path, dp_ros_here: Cli, make_once: MakeOnce) -> Path:
    """The report of one process, of two checkpoints with the same name in different folders."""

    def evaluate(folder: Path) -> None:
        done = dp_ros_here("eval", trained, trained / "checkpoint", *SHORT, "--report", folder)
        assert done.returncode == 0, done.stderr

    return make_once("one_process", evaluate)


def test_two_processes_give_what_one_gives_seed_by_seed(
    one_process: Path, trained: Path, dp_ros: Cli, tmp_path: Path
) -> None:
    done = dp_ros("eval", trained, *SHORT, "--jobs", 2, "--report", tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^seed (\d)", done.stdout, re.MULTILINE) == list("0123")
    one, two = (
        json.loads(path.read_text()) for path in (one_process / "whole-1.json", tmp_path / "whole.json")
    )
    assert one["per_episode"] == two["per_episode"]
    assert (one["settings"]["jobs"], two["settings"]["jobs"]) == (1, 2)
    with np.load(one_process / "whole-1.npz") as a, np.load(tmp_path / "whole.npz") as b:
        assert len(a["command"]) == 40
        for name in ("command", "ee_position_m", "verdict", "episode_ends"):
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_report_shows_each_checkpoint_and_where_it_comes_from(one_process: Path) -> None:
    assert sorted(path.name for path in one_process.iterdir()) == [
        "index.html", "page.json", "whole-1.json", "whole-1.npz", "whole-2.json", "whole-2.npz",
    ]  # fmt: skip
    page = (one_process / "index.html").read_text()
    data = json.loads((one_process / "whole-1.json").read_text())
    assert page.count("<article") == 2
    assert page.count("data:video/mp4;base64,") == 2 * min(3, data["episodes"])
    assert "://" not in page
    assert data["provenance"]["weights_sha256"] in page
    assert "dp_ros eval" in data["provenance"]["command"]
    assert "no difference shown" in page


def test_compare_judges_reports_and_refuses_others(
    one_process: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, out = one_process / "whole-1.json", one_process / "whole-2.json", tmp_path / "comparison.json"
    assert main(["compare", str(a), str(b), "--json", str(out)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("handle-press-v3: no difference shown at 5 %; 0 of 4 seeds disagree")
    assert json.loads(out.read_text())["p"] == 1.0

    shorter = json.loads(b.read_text())
    shorter["per_episode"].pop()
    b = tmp_path / "shorter.json"
    b.write_text(json.dumps(shorter))
    assert main(["compare", str(a), str(b)]) == errors.USAGE
    assert "1 seeds, the first 3, are in one report only" in capsys.readouterr().err
    b.write_text("{}")
    assert main(["compare", str(a), str(b)]) == errors.USAGE
    assert "is not a report of `dp_ros eval --json`" in capsys.readouterr().err


def test_checkpoint_beside_a_report_is_put_to_the_same_test(
    one_process: Path, trained: Path, dp_ros_here: Cli
) -> None:
    done = dp_ros_here("compare", one_process / "whole-1.json", trained, *TORCH)
    assert done.returncode == 0, done.stderr
    assert "0 of 4 seeds disagree" in done.stdout


def test_robustness_draws_curves_that_begin_with_the_undisturbed_evaluation(
    one_process: Path, trained: Path, dp_ros_here: Cli, tmp_path: Path
) -> None:
    disturb = ("--disturb", "action-delay=2", "--disturb", "occlusion=5")
    done = dp_ros_here("robustness", trained, *SHORT, *disturb, "--report", tmp_path)
    assert done.returncode == 0, done.stderr
    point = r"\d/4, \d+% of ticks warned"
    assert re.search(rf"^action-delay \[ticks\] 0: {point}, 2: {point}$", done.stdout, re.MULTILINE)
    data = json.loads((tmp_path / "robustness.json").read_text())
    calm = json.loads((one_process / "whole-1.json").read_text())["per_episode"]
    assert data["per_episode"] == calm
    assert [curve["points"][0]["per_episode"] for curve in data["curves"]] == [calm, calm]
    assert [[point["strength"] for point in curve["points"]] for curve in data["curves"]] == [[0, 2], [0, 5]]
    page = (tmp_path / "index.html").read_text()
    assert page.count("Success against ") >= 2
    assert "first seed at the greatest strength" in page


def test_robustness_refuses_what_the_task_does_not_allow(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["robustness", str(trained), "--report", str(tmp_path / "new"), "--disturb", "object-shift"]
    assert main(asked) == errors.USAGE
    assert "the object of handle-press-v3 is fixed" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_options_that_do_not_go_together(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args, said in (
        ([str(trained), "--jobs", "0"], "jobs 0: give a number of processes"),
        ([str(trained), "--jobs", "2", "--transport", "ros"], "--jobs goes with --transport in-process"),
        ([str(trained), str(trained), "--json", "x.json"], "--json takes one checkpoint"),
    ):
        assert main(["eval", *args]) == errors.USAGE
        assert said in capsys.readouterr().err


def test_bench_eval(trained: Path, dp_ros: Cli, tmp_path: Path) -> None:
    report = tmp_path / "eval.json"
    done = dp_ros("bench", "eval", trained, "--rounds", 1, "--max-steps", 4, "--json", report)
    assert done.returncode == 0, done.stderr
    data = json.loads(report.read_text())
    many_hz = data["many"]["median_hz"]
    assert data["ratio"] == {side: many_hz / data[side]["median_hz"] for side in ("equal", "one")}
    assert [data[side]["threads"] for side in ("equal", "one", "many")] == [1, 1, 1]
    assert data["same_results"] == 1.0
