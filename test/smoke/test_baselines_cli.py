"""`dp_ros baselines`, as small as it goes: the toy, what is kept of it, and the arm."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dp_ros.cli import main

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
Cli = Callable[..., subprocess.CompletedProcess[str]]
METHODS = ("diffusion", "regression", "mixture", "implicit")
TINY = (
    "--jobs", "1", "--set", "seeds=1", "--set", "toy.steps=4", "--set", "toy.evaluations=2",
    "--set", "toy.demonstrations=16", "--set", "toy.batch_size=4", "--set", "toy.final_samples=4",
    "--set", "toy.heads.implicit.candidates=8", "--set", "toy.heads.implicit.negatives=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def compared(dp_ros: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("baselines")
    done = dp_ros("baselines", "--out", out, *TINY)
    assert done.returncode == 0, done.stderr
    for method in METHODS:
        assert f"{method}: left " in done.stdout
    return out


def test_report_shows_pictures_and_every_method(compared: Path) -> None:
    text = (compared / "report.md").read_text()
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert sorted(pictures) == ["toy_curves.png", "toy_paths.png"]
    for picture in pictures:
        assert (compared / picture).stat().st_size > 10_000
    for name in ("Diffusion", "Regression (MSE)", "Mixture (MDN)", "Implicit (IBC)"):
        assert f"| {name} |" in text
    assert str(compared) not in text, "a path of this machine"


def test_every_number_of_the_report_is_in_the_results(compared: Path) -> None:
    results = json.loads((compared / "results.json").read_text())
    text = (compared / "report.md").read_text()
    assert [run["method"] for run in results["toy"]["runs"]] == list(METHODS)
    for row in results["toy"]["summary"].values():
        assert f"| {row['parameters']:,} |" in text
        assert f"| {row['collided']['mean']:.1%} [" in text


def test_parts_that_exist_are_not_run_again(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {path: path.stat().st_mtime_ns for path in (compared / "toy").iterdir()}
    assert len(parts) == len(METHODS)
    lost = compared / "toy" / "mixture-0.json"
    before = json.loads(lost.read_text())
    lost.unlink()
    assert main(["baselines", "--out", str(compared), *TINY]) == 0
    assert json.loads(lost.read_text()) == before
    del parts[lost]
    assert parts == {path: path.stat().st_mtime_ns for path in parts}


def test_parts_of_other_settings_are_refused(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baselines", "--out", str(compared), *TINY, "--set", "toy.lr=0.5"]) == 2
    said = capsys.readouterr().err
    assert "was made with other settings" in said
    assert said.count("\n") == 1


def test_wrong_setting_is_answered_with_the_right_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["baselines", "--out", str(tmp_path), "--set", "toy.step=5"]) == 2
    assert "did you mean 'steps'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--task", "drawer-open-v3"), "give one with --data"),
        (("--no-toy",), "nothing to compare"),
        (("--no-toy", "--data", "nowhere", "--config", "paper"), "add --train steps=N"),
        (("--no-toy", "--data", "nowhere", "--train", "run_length=4"), "add --train run_length=1"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    options: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["baselines", "--out", str(tmp_path), *options]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_toy_needs_no_simulator() -> None:
    program = (
        "import sys; from dp_ros.baselines import comparison, report; "
        "sys.exit(str([m for m in ('mujoco', 'metaworld') if m in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stderr.strip() == ""


@pytest.mark.sim
def test_methods_on_the_arm_are_trained_judged_and_kept(
    dataset: Path, tiny_config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = [
        "baselines", "--out", str(tmp_path), "--no-toy", "--task", "handle-press", "--data", str(dataset),
        "--config", str(tiny_config), "--train", "steps=4", "--set", "arm.evaluations=2", "--set", "arm.episodes=1",
        "--set", "arm.max_steps=6", "--set", "methods=[diffusion, mixture]",
    ]  # fmt: skip
    assert main(command) == 0, capsys.readouterr().err
    assert "mixture, seed 0: " in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    runs = results["arm"]["runs"]
    assert [run["method"] for run in runs] == ["diffusion", "mixture"]
    for run in runs:
        assert [point["step"] for point in run["evaluations"]] == [2, 4]
        assert [point["step"] for point in run["losses"]] == [1, 2, 3, 4]
    text = (tmp_path / "report.md").read_text()
    assert "## handle-press-v3" in text
    assert "| Mixture (MDN) | 0 |" in text
    assert (tmp_path / "arm_curves.png").is_file()

    # Interrupted between the last step and its episodes: only those are run again.
    states = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("state.safetensors")}
    assert len(states) == 2
    record = tmp_path / "arm" / "mixture-0" / "run.json"
    whole = json.loads(record.read_text())
    record.write_text(json.dumps({**whole, "evaluations": whole["evaluations"][:1]}))
    assert main(command) == 0, capsys.readouterr().err
    assert json.loads(record.read_text()) == whole
    assert states == {path: path.stat().st_mtime_ns for path in states}, "trained again"
