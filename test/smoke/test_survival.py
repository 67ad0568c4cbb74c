"""Training that is killed, stopped, starved of disk or fed damage: one line, the last state intact, the same weights
after --resume. Everything that changes what is learned is on. Needs no simulator."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from dp_ros.cli import errors
from dp_ros.policy.checkpoint import load_checkpoint

Cli = Callable[..., subprocess.CompletedProcess[str]]
KEPT = ("state.safetensors", "checkpoint/policy.safetensors", "best/policy.safetensors")


def contents(run: Path) -> dict[str, bytes]:
    """Every tensor of every file; the order of a file's metadata is not the same from process to process."""
    return {
        f"{name}: {tensor}": values.tobytes()
        for name in KEPT
        for tensor, values in load_file(run / name).items()
    }


def the_line(stderr: str) -> str:
    (line,) = [line for line in stderr.splitlines() if line.startswith("dp_ros: ")]
    assert "Traceback" not in stderr
    return line


@pytest.mark.parametrize("moment", ["state.safetensors", "best/config.json"])
def test_killed_run_resumes_to_the_same_weights_and_the_same_best(
    moment: str,
    training: tuple[object, ...],
    undisturbed: Path,
    dp_ros: Cli,
    start_held: Any,
    wait_for: Any,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    process = start_held(*training, out)
    wait_for(out / moment, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    resume = ["--resume"] if (out / "state.safetensors").exists() else []
    resumed = dp_ros(*training, out, *resume)
    assert resumed.returncode == 0, resumed.stderr
    assert contents(out) == contents(undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_run_saves_a_whole_step_and_resumes_to_the_same_weights(
    number: signal.Signals,
    training: tuple[object, ...],
    undisturbed: Path,
    dp_ros: Cli,
    start_held: Any,
    wait_for: Any,
    go_on: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    process = start_held(*training, out)
    wait_for(out / "best", process)
    process.send_signal(number)
    go_on.touch()
    assert process.wait(300) == errors.INTERRUPTED
    load_checkpoint(out / "checkpoint")
    resumed = dp_ros(*training, out, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert contents(out) == contents(undisturbed)


def test_full_disk_leaves_the_last_state_and_the_run_goes_on_later(
    training: tuple[object, ...],
    undisturbed: Path,
    dp_ros: Cli,
    start_held: Any,
    wait_for: Any,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    process = start_held(*training, out)
    wait_for(out / "checkpoint", process)
    process.kill()
    process.wait()
    before = (out / "state.safetensors").read_bytes()
    largest = len(before) // 2

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    done = dp_ros(*training, out, "--resume", preexec_fn=small_files)
    assert done.returncode == errors.FAILED
    assert "free some space and add --resume" in the_line(done.stderr)
    assert (out / "state.safetensors").read_bytes() == before
    load_checkpoint(out / "checkpoint")
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
    assert dp_ros(*training, out, "--resume").returncode == 0
    assert contents(out) == contents(undisturbed)


def test_loss_that_explodes_is_one_line_and_what_was_saved_can_be_loaded(
    training: tuple[object, ...], dp_ros_here: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = dp_ros_here(
        *training, out, "--set", "lr=1.0e+30", "--set", "checkpoint_every=1", "--set", "validation=0"
    )
    assert done.returncode == errors.FAILED
    assert "train in another --out with an lr below 1e+30" in the_line(done.stderr)
    load_checkpoint(out / "checkpoint")


def test_damaged_dataset_is_one_line_and_leaves_the_run_as_it_was(
    training: tuple[object, ...], noise: Path, undisturbed: Path, dp_ros_here: Cli, tmp_path: Path
) -> None:
    damaged, out = tmp_path / "damaged", tmp_path / "run"
    shutil.copytree(noise, damaged)
    shutil.copytree(undisturbed, out)
    chunk = next(
        path for path in (damaged / "images").rglob("c/*") if path.is_file() or list(path.rglob("*"))
    )
    chunk = chunk if chunk.is_file() else next(path for path in chunk.rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:100])
    arguments = [damaged if part == noise else part for part in training]
    done = dp_ros_here(*arguments, out, "--resume")
    assert done.returncode == errors.FAILED
    assert "a chunk cannot be read" in the_line(done.stderr)
    assert contents(out) == contents(undisturbed)
