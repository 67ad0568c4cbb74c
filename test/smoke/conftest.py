"""The command line as users run it, and one tiny dataset and run that the smoke tests share."""

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
COMMAND = (sys.executable, "-m", "dp_ros.cli")
DEADLINE_S = 600.0  # far beyond what a command needs on a busy machine; only a failure takes as long

# The command line with a training that waits near its end until the file of the first argument is there: a test that is
# slow to stop it never comes too late.
HELD = """
import sys, time
from pathlib import Path
from dp_ros.cli import main
from dp_ros.train.trainer import Trainer
go_on, report = Path(sys.argv[1]), Trainer._report
def report_and_wait(trainer, *args):
    report(trainer, *args)
    while 0 < trainer.steps - trainer.step <= 4 and not go_on.exists():
        time.sleep(0.01)
Trainer._report = report_and_wait
sys.exit(main(sys.argv[2:]))
"""

Cli = Callable[..., subprocess.CompletedProcess[str]]
MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def dp_ros_environment() -> dict[str, str]:
    return ENVIRONMENT


@pytest.fixture(scope="session")
def dp_ros() -> Cli:
    """`dp_ros("collect", "--task", ...)` in a process of its own; options are those of subprocess.run."""

    def run(*args: object, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *map(str, args)]
        return subprocess.run(
            command, env=ENVIRONMENT, capture_output=True, text=True, timeout=DEADLINE_S, **options
        )

    return run


@pytest.fixture(scope="session")
def dp_ros_here() -> Cli:
    """The same in this process, which has imported torch and the simulators already: seconds less on each call.

    Not for a training whose weights are compared: torch may have another number of threads here.
    """
    import torch

    from dp_ros.cli import main

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        command = [str(arg) for arg in args]
        out, err, threads = io.StringIO(), io.StringIO(), torch.get_num_threads()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(command)
        finally:
            torch.set_num_threads(threads)
        return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def go_on(tmp_path: Path) -> Path:
    """A file that a held training waits for."""
    return tmp_path / "go_on"


@pytest.fixture(scope="session")
def held_command() -> Callable[..., list[str]]:
    """held_command(go_on, "train", ...): a training that does not end before the file `go_on` is there."""

    def command(go_on: Path, *args: object) -> list[str]:
        return [sys.executable, "-c", HELD, str(go_on), *map(str, args)]

    return command


@pytest.fixture
def start_held(
    go_on: Path, held_command: Callable[..., list[str]]
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`start_held("train", ...)`: that training as a process which is not waited for; killed after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*args: object) -> subprocess.Popen[bytes]:
        command = held_command(go_on, *args)
        started.append(subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., None]:
    """wait_for(path, process, ...): until the file or folder is there; none of the processes may end before."""

    def wait(path: Path, *processes: subprocess.Popen[Any]) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while not path.exists():
            assert time.monotonic() < deadline_s, f"no {path.name}"
            assert all(process.poll() is None for process in processes)
            time.sleep(0.002)

    return wait


@pytest.fixture(scope="session")
def can_render() -> None:
    pytest.importorskip("metaworld")
    from dp_ros.sim.rendering import RenderingError, choose_backend

    try:
        choose_backend()
    except RenderingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def collect_args() -> tuple[str, ...]:
    """Two short episodes of a task that its expert solves in some 40 ticks."""
    return ("--task", "handle-press", "--size", "64x64", "--jobs", "1", "--noise", "0,0.3")


@pytest.fixture(scope="session")
def dataset(can_render: None, dp_ros_here: Cli, collect_args: tuple[str, ...], make_once: MakeOnce) -> Path:
    def collect(path: Path) -> None:
        done = dp_ros_here("collect", *collect_args, "--episodes", 2, "--out", path)
        assert done.returncode == 0, done.stderr
        assert "2 episodes" in done.stdout

    return make_once("data/handle-press", collect)


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that trains for 30 steps in two seconds."""
    encoder = {
        "cameras": ["gripperPOV"], "height_px": 64, "width_px": 64, "crop_height_px": 56, "crop_width_px": 56,
        "stages": 2, "keypoints": 8, "feature_dim": 16,
    }  # fmt: skip
    unet = {"channels": [16, 32], "groups": 4, "step_embedding_dim": 16}
    lengths = {"epochs": None, "steps": 30, "warmup_steps": 2, "checkpoint_every": 5, "log_every": 2}
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(
        yaml.safe_dump({"policy": {"encoder": encoder, "unet": unet}, "batch_size": 8, **lengths})
    )
    return path


@pytest.fixture(scope="session")
def trained(dataset: Path, tiny_config: Path, dp_ros: Cli, make_once: MakeOnce) -> Path:
    """The run folder of an uninterrupted training."""

    def train(out: Path) -> None:
        done = dp_ros("train", "--config", tiny_config, "--data", dataset, "--out", out)
        assert done.returncode == 0, done.stderr
        assert f"checkpoint: {out / 'checkpoint'}" in done.stdout

    return make_once("trained/whole", train)


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of four episodes that no simulator made."""
    from dp_ros.data.episode_writer import DatasetWriter
    from dp_ros.data.reader import StoredEpisode

    path, rng = tmp_path_factory.mktemp("data") / "noise", np.random.default_rng(0)
    with DatasetWriter(path, {"rate_hz": 80.0}) as writer:
        for i in range(4):
            length = 20 + i
            episode = StoredEpisode(
                seed=i,
                noise=0.0,
                tried=i + 1,
                images={"gripperPOV": rng.integers(0, 256, (length, 40, 40, 3), dtype=np.uint8)},
                ee_pose=rng.normal(size=(length, 3)),
                gripper=rng.random(length),
                action=rng.normal(size=(length, 4)),
                command=rng.normal(size=(length, 4)),
            )
            writer.append(episode, i + 1)
        writer.finish()
    return path


@pytest.fixture
def make_leaping() -> Callable[[Path], Path]:
    """A dataset as of two bags at 30 Hz: `a` repeats its pictures, and one command of `b` is far off."""
    from dp_ros.data.episode_writer import DatasetWriter
    from dp_ros.data.reader import StoredEpisode

    def make(path: Path) -> Path:
        bags = [
            {"name": name, "pieces": 1, "repeats": {"camera wrist": share}, "audit": {"notes": []}}
            for name, share in (("a", 0.69), ("b", 0.1))
        ]
        position_m = np.linspace([0.0, 0.5, 0.1], [0.1, 0.6, 0.2], 20)
        with DatasetWriter(path, {"rate_hz": 30.0}, growing={"bags": bags}) as writer:
            for i in range(2):
                action = np.concatenate([position_m, np.ones((20, 1))], axis=1)
                action[9, 0] += 5.0 * i
                episode = StoredEpisode(
                    seed=-1,
                    noise=0.0,
                    tried=i + 1,
                    images={"wrist": np.full((20, 40, 48, 3), i, dtype=np.uint8)},
                    ee_pose=position_m,
                    gripper=np.ones(20),
                    action=action,
                    command=action,
                )
                writer.append(episode, i + 1)
            writer.finish()
        return path

    return make


@pytest.fixture(scope="session")
def survivor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Config of a run of two seconds on `noise`, with every setting that affects the weights."""
    encoder = {
        "height_px": 40, "width_px": 40, "crop_height_px": 36, "crop_width_px": 36, "stages": 2, "keypoints": 8,
        "feature_dim": 16,
    }  # fmt: skip
    unet = {"channels": [16, 32], "groups": 4, "step_embedding_dim": 16}
    diffusion = {"iterations": 20, "sampler_iterations": 2}
    policy = {"encoder": encoder, "unet": unet, "diffusion": diffusion}
    lengths = {"steps": 24, "warmup_steps": 2, "checkpoint_every": 4, "log_every": 2, "batch_size": 8}
    everything = {
        "augmentation": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "cover": 0.2},
        "run_length": 2,
    }
    validation = {"validation": 0.25, "validate_every": 3, "validation_windows": 8}
    path = tmp_path_factory.mktemp("config") / "survivor.yaml"
    path.write_text(yaml.safe_dump({"policy": policy, **lengths, **validation, **everything}))
    return path


@pytest.fixture(scope="session")
def training(noise: Path, survivor: Path) -> tuple[object, ...]:
    return ("train", "--config", survivor, "--data", noise, "--out")


@pytest.fixture(scope="session")
def undisturbed(training: tuple[object, ...], dp_ros: Cli, make_once: MakeOnce) -> Path:
    """The run folder of an uninterrupted training on `noise`."""

    def train(out: Path) -> None:
        done = dp_ros(*training, out)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("validation at step") == 8

    return make_once("undisturbed/whole", train)
