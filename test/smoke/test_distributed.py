"""Two processes that train one policy over gloo: the result of one process, and one line when one of them dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dp_ros.cli import errors
from dp_ros.policy.checkpoint import load_checkpoint

COMMAND = (sys.executable, "-m", "dp_ros.cli")
DEADLINE_S = 550.0  # two processes on a busy machine; less than they wait for one another themselves
Start = Callable[..., list[subprocess.Popen[str]]]


def is_free(port: int) -> bool:
    """Below the ports that Linux hands out to clients, so that it is still free when the process group takes it."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def start_two(
    dp_ros_environment: dict[str, str], go_on: Path, held_command: Callable[..., list[str]]
) -> Iterator[Start]:
    """Both processes, as a launcher starts them. is_held: they do not end before the file `go_on` is there. Those that
    a failed test left are killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: object, is_held: bool = False) -> list[subprocess.Popen[str]]:
        command = held_command(go_on, *args) if is_held else [*COMMAND, *map(str, args)]
        port = next(filter(is_free, range(20_000 + os.getpid() % 10_000, 32_000)))
        launcher = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        both = [
            subprocess.Popen(
                command,
                env={**dp_ros_environment, **launcher, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        started.extend(both)
        return both

    yield start
    for process in started:
        process.kill()
        process.wait()


def losses(run: Path) -> list[float]:
    log = EventAccumulator(str(run / "tensorboard"))
    log.Reload()
    return [event.value for event in log.Scalars("loss")]


def assert_close(run: Path, expected: Path) -> None:
    np.testing.assert_allclose(losses(run)[-6:], losses(expected)[-6:], rtol=1e-3)
    ours, theirs = (load_file(path / "state.safetensors") for path in (run, expected))
    assert ours.keys() == theirs.keys()
    for name in ours:
        if not name.startswith("adam/"):
            np.testing.assert_allclose(ours[name], theirs[name], atol=2e-4, err_msg=name)


def test_two_processes_learn_what_one_does_and_only_the_first_writes(
    training: tuple[object, ...], undisturbed: Path, start_two: Start, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    processes = start_two(*training, out)
    (first, first_says), (second, second_says) = (
        process.communicate(timeout=DEADLINE_S) for process in processes
    )
    assert [process.returncode for process in processes] == [0, 0], first_says + second_says
    assert f"checkpoint: {out / 'checkpoint'}" in first
    assert "training on 2 CPU threads" in first_says
    assert (second, "validation at" in second_says, "training on" in second_says) == ("", False, False)
    assert len(list((out / "tensorboard").iterdir())) == 1
    assert_close(out, undisturbed)


def test_two_processes_learn_what_one_does_of_a_transformer_without_dropout(
    noise: Path, survivor: Path, start_two: Start, dp_ros_here: Any, tmp_path: Path
) -> None:
    """With dropout each process drops others of its neurons: the same in distribution, not in numbers."""
    settings = yaml.safe_load(survivor.read_text())
    del settings["policy"]["unet"]
    network = {"layers": 2, "heads": 2, "embedding_dim": 16, "dropout": 0.0, "embedding_dropout": 0.0}
    settings["policy"] |= {"network": "transformer", "transformer": network}
    config = tmp_path / "transformer.yaml"
    config.write_text(yaml.safe_dump({**settings, "steps": 12}))
    training = ("train", "--config", config, "--data", noise, "--out")
    processes = start_two(*training, tmp_path / "two")
    says = [process.communicate(timeout=DEADLINE_S)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], says
    assert dp_ros_here(*training, tmp_path / "one").returncode == 0
    assert_close(tmp_path / "two", tmp_path / "one")


def test_dead_process_ends_the_others_in_one_line_and_one_process_can_go_on(
    training: tuple[object, ...],
    undisturbed: Path,
    start_two: Start,
    wait_for: Any,
    go_on: Path,
    dp_ros_here: Any,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    processes = start_two(*training, out, is_held=True)
    wait_for(out / "checkpoint", *processes)
    processes[1].send_signal(signal.SIGKILL)
    go_on.touch()
    _, says = processes[0].communicate(timeout=DEADLINE_S)
    processes[1].communicate()
    assert processes[0].returncode == errors.FAILED
    (line,) = [line for line in says.splitlines() if line.startswith("dp_ros: ")]
    assert "another process of this run ended or does not answer" in line
    assert "Traceback" not in says
    load_checkpoint(out / "checkpoint")
    resumed = dp_ros_here(*training, out, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert_close(out, undisturbed)


def test_stop_of_one_process_stops_both_after_the_same_step(
    training: tuple[object, ...], start_two: Start, wait_for: Any, go_on: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    processes = start_two(*training, out, is_held=True)
    wait_for(out / "checkpoint", *processes)
    processes[1].send_signal(signal.SIGTERM)
    go_on.touch()
    says = [process.communicate(timeout=DEADLINE_S)[1] for process in processes]
    assert [process.returncode for process in processes] == [errors.INTERRUPTED] * 2, says
    assert all("run the same command with --resume" in text for text in says)
    load_checkpoint(out / "checkpoint")


def test_batch_that_cannot_be_shared_is_refused(
    training: tuple[object, ...], start_two: Start, tmp_path: Path
) -> None:
    processes = start_two(*training, tmp_path / "run", "--set", "batch_size=6")
    for process in processes:
        _, says = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == errors.FAILED
        assert "a batch of 3 runs (batch_size / run_length) cannot be shared by 2 processes" in says


@pytest.mark.slow
def test_accelerate_launches_both(
    training: tuple[object, ...], undisturbed: Path, dp_ros_environment: dict[str, str], tmp_path: Path
) -> None:
    """--multi_gpu, without which accelerate starts one process; where there is no GPU they meet over gloo."""
    out = tmp_path / "run"
    launch = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", 2, "--num_machines", 1,
              "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "dp_ros.cli", *training, out,
              "--set", "device=cpu")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", *map(str, launch)],
        env=dp_ros_environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    assert_close(out, undisturbed)


def test_one_process_does_without_accelerate(
    training: tuple[object, ...], dp_ros_environment: dict[str, str], tmp_path: Path
) -> None:
    command = ["train", *map(str, training[1:]), str(tmp_path / "run"), "--set", "steps=1"]
    code = (
        f"import sys; from dp_ros.cli import main; assert main({command!r}) == 0; "
        "assert 'accelerate' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=dp_ros_environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
