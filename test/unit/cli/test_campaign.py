"""A campaign on a machine that nobody watches: whatever happens to one job, the rest goes on and is handed over."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dp_ros.cli import errors, main
from dp_ros.cli.campaign_job import evaluation_jobs
from dp_ros.schema import CollectConfig, RuntimeConfig

pytestmark = pytest.mark.sim  # the names of the tasks are Metaworld's

Collect = Callable[[CollectConfig, Path, int, Any], None]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Collect], int]:
    """The exit code of a campaign of two tasks of which `collect` makes the demonstrations."""
    command = ("--task", "handle-press", "--task", "drawer-open", "--config", "cpu", "--out", str(tmp_path))

    def run_with(collect: Collect) -> int:
        monkeypatch.setattr("dp_ros.train.collect.collect", collect)
        return main(["campaign", "run", *command])

    return run_with


def outcomes(out: Path) -> dict[str, str]:
    return json.loads((out / "results" / "campaign.json").read_text())["outcomes"]


def test_job_that_fails_in_a_way_nobody_foresaw_leaves_the_rest_to_go_on(
    run: Callable[[Collect], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handed_over = {}

    def collect(config: CollectConfig, *_: Any) -> None:
        if config.task == "handle-press-v3":
            raise LookupError("a bug\nand more of it")
        handed_over.update(outcomes(tmp_path))
        assert (tmp_path / "parts" / "manifest.json").exists()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    assert run(collect) == errors.FAILED
    assert outcomes(tmp_path) == {
        "handle-press-v3-cpu": "failed: LookupError: a bug",
        "drawer-open-v3-cpu": "failed: out of GPU memory: lower batch_size",
    }
    assert handed_over == {"handle-press-v3-cpu": "failed: LookupError: a bug"}, "only at the end"
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "LookupError: a bug" in said
    assert "OutOfMemoryError" not in said


def test_sigterm_ends_a_campaign_as_ctrl_c_does(
    run: Callable[[Collect], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def collect(*_: Any) -> None:
        signal.raise_signal(signal.SIGTERM)  # to this thread: before the call returns

    def late(number: int, frame: object) -> None:
        pytest.fail("the signal was not taken while the campaign ran")

    before = signal.signal(signal.SIGTERM, late)
    try:
        assert run(collect) == errors.INTERRUPTED
        assert "run the same command to resume" in capsys.readouterr().err
        assert (tmp_path / "parts" / "manifest.json").exists()
        assert signal.getsignal(signal.SIGTERM) is late
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("gpu", "device", "jobs"), [(True, "auto", 4), (True, "cpu", 20), (False, "auto", 20)]
)
def test_few_workers_share_a_gpu(gpu: bool, device: str, jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert evaluation_jobs(20, 50, RuntimeConfig(mode="lockstep", device=device)) == jobs
