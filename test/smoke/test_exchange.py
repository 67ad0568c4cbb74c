"""`dp_ros export` and `dp_ros import` as users run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dp_ros.cli import errors, main
from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import load
from dp_ros.data.reader import StoredEpisode


@pytest.fixture
def small(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    with DatasetWriter(tmp_path / "data", {"rate_hz": 80.0}) as writer:
        for i in range(3):
            image = rng.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
            arm = np.full((4, 3), 0.1 * i)
            command = np.concatenate([arm, np.ones((4, 1))], axis=1)
            writer.append(
                StoredEpisode(i, 0.0, i + 1, {"wrist": image}, arm, np.ones(4), command, command), i + 1
            )
        writer.finish()
    return tmp_path / "data"


@pytest.fixture
def needs_pyarrow() -> None:
    pytest.importorskip("pyarrow")


def test_a_dataset_goes_out_and_comes_back(
    needs_pyarrow: None, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, back = tmp_path / "lerobot", tmp_path / "back"
    assert main(["export", str(small), "--out", str(out), "--task", "lift it"]) == 0
    written = capsys.readouterr()
    assert f"{out}: 3 episodes, 12 ticks" in written.out
    assert "exporting 3/3" in written.err
    assert main(["import", str(out), "--out", str(back), "--camera", "wrist"]) == 0
    written = capsys.readouterr()
    assert f"{back}: 3 episodes, 12 ticks" in written.out
    assert "importing 3/3" in written.err
    np.testing.assert_array_equal(load(back).images["wrist"], load(small).images["wrist"])
    assert main(["import", str(out), "--out", str(back), "--camera", "wrist"]) == 0, "nothing left to do"
    assert main(["inspect", str(back)]) == 0
    assert "lift it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["export", "{small}", "--out", "{out}"], "names no task: give one in words, e.g. --task"),
        (["export", "{out}", "--out", "{out}"], "does not exist; make one with `dp_ros collect"),
        (["import", "{small}", "--out", "{out}"], "has no meta/info.json"),
    ],
)
def test_refusals_are_one_line_and_write_nothing(
    needs_pyarrow: None,
    small: Path,
    tmp_path: Path,
    command: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"small": small, "out": tmp_path / "out"}
    assert main([part.format(**names) for part in command]) == errors.FAILED
    written = capsys.readouterr()
    assert said in written.err
    assert written.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [small]


@pytest.mark.parametrize(
    ("command", "function", "said"),
    [
        ("export", "exporter.export_dataset", "interrupted; nothing is left at"),
        (
            "import",
            "importer.import_dataset",
            "interrupted; the finished episodes are kept: run the same command",
        ),
    ],
)
def test_ctrl_c_says_what_is_left(
    needs_pyarrow: None,
    command: str,
    function: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"dp_ros.data.lerobot.{function}", interrupt)
    assert main([command, "anything", "--out", "anywhere"]) == errors.INTERRUPTED
    assert said in capsys.readouterr().err


def test_missing_pyarrow_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['pyarrow'] = None; from dp_ros.cli import main; "
        "sys.exit(main(['export', 'x', '--out', 'y']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == errors.FAILED
    assert done.stderr.strip().endswith("which is not installed: pip install 'dp_ros[lerobot]'")
    assert done.stderr.count("\n") == 1
