"""`dp_ros bench realtime`: the real node over DDS, and its times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dp_ros.cli import main


def test_bench_realtime_measures_every_command(
    push_checkpoint: Path,
    ros_domain: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(ros_domain))
    report, plot = tmp_path / "realtime.json", tmp_path / "realtime.png"
    outputs = ("--json", str(report), "--plot", str(plot))
    assert (
        main(["bench", "realtime", str(push_checkpoint), "--engine", "torch", "--seconds", "3", *outputs])
        == 0
    )
    data, shown = json.loads(report.read_text()), capsys.readouterr().out
    assert data["engine"] == "torch f32"
    assert 5 <= data["commands"] <= 65  # 20 Hz; a busy machine misses ticks
    assert 0.0 <= data["held_share"] <= 1.0
    ms = data["ms"]
    assert ms.keys() == {
        "overhead", "overhead_of_plans", "late", "sent", "transport", "picture", "plan", "request",
    }  # fmt: skip
    for row in ms.values():
        assert row["p50"] <= row["p99"] <= row["max"]
    assert ms["sent"]["p50"] > 0
    assert ms["transport"]["p50"] > 0
    assert ms["plan"]["p50"] < ms["request"]["p50"]  # the plan is a part of it
    assert ms["picture"]["p50"] >= ms["transport"]["p50"]
    for process in data["processes"].values():
        assert 0 < process["cpu"] < 16
        assert 10 < process["rss_mb"] <= process["peak_mb"]
    assert "beyond the plan" in shown
    assert "of ticks held" in shown
    assert "policy_node: " in shown
    assert plot.read_bytes().startswith(b"\x89PNG")
