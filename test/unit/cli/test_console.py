"""Progress on stderr: where it is no terminal, lines with the time left."""

from __future__ import annotations

import pytest

from dp_ros.cli import console
from dp_ros.cli.console import ProgressLine


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_line_tells_the_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine("episodes", 10) as progress:
        clock.now_s = 20
        progress.update(1, "")
        assert shown(capsys) == ["episodes 1/10 3:00 left"]
        clock.now_s = 60
        progress.update(4, "seed 3")
        assert shown(capsys) == ["episodes 4/10 seed 3, 1:30 left"]
        clock.now_s = 61
        progress.update(5, "")
        assert shown(capsys) == []
        progress.update(10, "")
        assert shown(capsys) == ["episodes 10/10"]


def test_a_resumed_run_is_not_taken_for_a_fast_one(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine("collecting", 200, done=100) as progress:
        clock.now_s = 10
        progress.update(101, "")
    assert shown(capsys) == ["collecting 101/200 16:30 left"]


def test_a_total_that_is_known_later_counts(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine("importing") as progress:
        clock.now_s = 5
        progress.update(41, "", 50)  # 40 were there before
    assert shown(capsys) == ["importing 41/50 45 s left"]


def test_a_note_that_has_the_time_left_keeps_it(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine("training", 10) as progress:
        clock.now_s = 20
        progress.update(1, "loss 0.1, 7 s left")
    assert shown(capsys) == ["training 1/10 loss 0.1, 7 s left"]
