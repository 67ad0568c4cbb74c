"""The commands with the tiny arm: another simulator, another rate, and nothing said of it but the task."""

import json
import re
from pathlib import Path

import pytest

from dp_ros.cli import main

pytestmark = pytest.mark.sim


def test_from_demonstrations_to_an_evaluation(
    can_render: None, tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, report, video = (tmp_path / name for name in ("data", "run", "report.json", "videos"))
    corrections, again = tmp_path / "corrections", tmp_path / "again"

    def dp_ros(*arguments: object) -> str:
        assert main(list(map(str, arguments))) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    collect = ("collect", "--task", "tiny-push", "--size", "64x64", "--jobs", 1, "--noise", "0,0.3")
    assert "2 episodes (2 tried)" in dp_ros(*collect, "--episodes", 2, "--out", data)
    train = ("train", "--config", tiny_config, "--data", data, "--out", run, "--set", "steps=4")
    assert main([*map(str, train), "--set", "policy.rate_hz=80"]) != 0
    assert "20 Hz" in capsys.readouterr().err  # the dataset's
    dp_ros(*train)
    short = ("--episodes", 1, "--max-steps", 8, "--iterations", 2, "--engine", "torch")
    assert "tiny-push [in-process]: " in dp_ros("eval", run, *short, "--json", report, "--video", video)
    assert json.loads(report.read_text())["task"] == "tiny-push"

    import av

    with av.open(str(video / "seed0.mp4")) as film:
        assert film.streams.video[0].average_rate == 10
        assert len(list(film.decode(video=0))) == 8 // 2 + 1

    # The policy's camera and size are those of its corrections, which it is trained further on.
    of_run = (
        "collect",
        "--policy",
        run,
        "--task",
        "tiny-push",
        "--episodes",
        1,
        "--policy-ticks",
        9,
        "--jobs",
        1,
    )
    assert "1 episodes" in dp_ros(*of_run, "--out", corrections)
    facts = dp_ros("inspect", corrections)
    assert "gripperPOV 64x64 px" in facts
    assert re.search(r"collect\.policy +│ run ", facts)
    both = ("--data", data, "--data", corrections)
    dp_ros("train", "--config", tiny_config, "--init", run, *both, "--out", again, "--set", "steps=2")
    parts = json.loads((again / "checkpoint" / "config.json").read_text())["training"]["data"]["parts"]
    assert [part.get("policy") for part in parts] == [None, "run"]
