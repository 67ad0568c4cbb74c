"""`dp_ros demo`: bridge and policy node as processes, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dp_ros.cli import errors, main

pytestmark = [pytest.mark.sim, pytest.mark.slow]


def test_demo_writes_report_video_and_page(
    push_checkpoint: Path,
    ros_domain: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(ros_domain))
    outputs = {"--json": "demo.json", "--video": "demo.mp4", "--report": "page"}
    options = [word for option, name in outputs.items() for word in (option, str(tmp_path / name))]
    code = main(["demo", "--checkpoint", str(push_checkpoint), "--episodes", "1", "--watch", *options])
    report, shown = json.loads((tmp_path / "demo.json").read_text()), capsys.readouterr()
    (episode,) = report["per_episode"]
    assert code == (0 if episode["success"] else errors.FAILED)  # weights that were never trained
    assert ("none of the 1 episodes succeeded" in shown.err) is not episode["success"]
    assert shown.out.startswith(("page: http://127.0.0.1:", "foxglove: ws://127.0.0.1:"))
    page = tmp_path / "page" / "index.html"
    assert f"page: {page}" in shown.out
    text = page.read_text()
    assert text.count("data:video/mp4;base64,") == 1
    assert "Histogram of the durations of" in text  # of plans, which no trace holds
    assert (tmp_path / "demo.mp4").stat().st_size > 1000
    saved = json.loads((page.parent / "push.json").read_text())
    assert saved["per_episode"] == report["per_episode"]
