"""`dp_ros soak` over DDS: some seconds of real time, and Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

SECONDS = 300.0
pytestmark = pytest.mark.sim


def command(checkpoint, numbers) -> list[str]:
    options = ("--max-steps", "20", "--engine", "torch", "--threads", "1", "--json", str(numbers))
    return [sys.executable, "-m", "dp_ros.cli", "soak", str(checkpoint), *options]


def test_seconds_of_real_time_are_measured_and_judged(ros_environment, told, tmp_path):
    """Of a policy that is told what to do."""
    numbers = tmp_path / "soak.json"
    words = [*command(told, numbers), "--task", "tiny-push", "--minutes", "0.25", "--sample", "0.25"]
    done = subprocess.run(
        words, env=ros_environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    score = json.loads(numbers.read_text())
    assert done.returncode == (0 if score["ok"] else 1), done.stderr
    assert score["ok"] == (not score["problems"])
    assert score["duration_s"] >= 5.0
    assert score["episodes"] >= 2
    assert [each["name"] for each in score["processes"]] == ["metaworld_bridge", "policy_node"]
    for each in score["processes"]:
        assert each["samples"] >= 8
        assert each["rss_mb"]["end"] > 20.0
        assert each["handles"]["max"] > 3
        assert each["threads"]["max"] > 1
        assert each["segments"]["max"] > 0
        assert each["logs_mb"]["end"] > 0.0
        assert len(each["series"]["rows"]) == each["samples"]
    assert len(score["parts"]) == 6
    assert sum(part["plans"] for part in score["parts"]) > 10
    assert "policy_node" in done.stdout
    assert " left, " in done.stderr


def test_ctrl_c_prints_what_was_measured(ros_environment, push_checkpoint, tmp_path):
    numbers = tmp_path / "soak.json"
    run = subprocess.Popen(
        [*command(push_checkpoint, numbers), "--minutes", "30"],
        env=ros_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + SECONDS
    assert run.stderr is not None
    while " left, " not in run.stderr.readline():  # the first sample
        assert time.monotonic() < deadline
    run.send_signal(signal.SIGINT)
    output, said = run.communicate(timeout=SECONDS)
    assert run.returncode == 130
    assert "measured " in said
    assert "of 30:00" in said
    assert "metaworld_bridge" in output
    assert json.loads(numbers.read_text())["ended_by"] == "Ctrl-C"
