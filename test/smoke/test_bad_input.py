"""Wrong input, and an environment that fails: one line that says what to do, and no half-written files."""

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dp_ros.cli import errors, main

Cli = Callable[..., subprocess.CompletedProcess[str]]
Refused = Callable[..., str]


def the_line(stderr: str) -> str:
    """The message: the last line. Progress may come before it."""
    lines = stderr.strip().splitlines()
    assert "Traceback" not in stderr, stderr
    assert [line for line in lines if line.startswith("dp_ros: ")] == lines[-1:], stderr
    return lines[-1]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must be refused with this exit code, saying nothing but one line."""

    def run(*args: object, code: int) -> str:
        capsys.readouterr()
        assert main([str(arg) for arg in args]) == code
        written = capsys.readouterr()
        assert written.out == ""
        assert written.err.count("\n") == 1, written.err
        return the_line(written.err)

    return run


def test_a_bug_keeps_its_traceback() -> None:
    def bug() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        errors.one_line(bug)


def test_ctrl_c_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dp_ros.cli.inspect.dataset_facts", interrupt)
    assert main(["inspect", "anything"]) == 130
    assert the_line(capsys.readouterr().err) == "dp_ros: interrupted"


FRONT = "policy.encoder.pictures.gripperPOV"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["evla"], "eval"),
        (["eval", "x", "--episods", "3"], "--episodes"),
        (["collect", "--task", "drawer-open"], "--out"),
        (["collect", "--task", "drawer-open", "--out", "x", "--size", "big"], "96x96"),
        (["collect", "--task", "drawer-open", "--out", "x", "--noise", "much"], "0,0.3,0.6"),
        (["collect", "--task", "drawer-open", "--out", "x", "--episodes", "0"], "episodes"),
        (["collect", "--task", "drawer-open", "--out", "x", "--camera", "9"], "cameras"),
        (
            ["collect", "--task", "a", "--out", "x", "--policy-ticks", "9"],
            "--policy-ticks goes with --policy",
        ),
        (
            [
                "collect",
                "--task",
                "a",
                "--out",
                "x",
                "--policy",
                "drawer-open-v3-unet",
                "--policy-ticks",
                "300",
            ],
            "policy_ticks 300 leaves the expert no time within max_steps 300",
        ),
        (
            ["collect", "--task", "a", "--out", "x", "--policy", "drawer-open-v3-unet", "--via", "ros"],
            "--policy goes with --via direct",
        ),
        (["train", "--data", "x", "--out", "y", "--config", "paprr"], "paper"),
        (["train", "--data", "x", "--out", "y", "--config", "missing.yaml"], "missing.yaml"),
        (["train", "--data", "x", "--out", "y", "--set", "batch_size"], "KEY=VALUE"),
        (["train", "--data", "x", "--out", "y", "--set", "batch_sise=3"], "did you mean 'batch_size'?"),
        (
            ["train", "--data", "x", "--out", "y", "--set", "policy.encoder.fit=zoom"],
            "'same', 'crop' or 'pad'",
        ),
        (["inspect", "missing"], "does not exist"),
        (["export", "x", "--out", "y", "--crf", "60"], "crf: Input should be less than or equal to 51"),
        (["export", "x", "--out", "y", "--format", "rlds"], "lerobot"),
        (["import", "x", "--out", "y", "--action", "action:0,1,2"], "names 3 numbers, not 4"),
        (["import", "x", "--out", "y", "--gripper", "state"], "gripper: "),
        (["import", "x", "--out", "y", "--gripper-range", "wide"], "e.g. 0,100"),
        (["import", "x", "--out", "y", "--gripper-range", "1,1"], "gripper_range 1,1 is no range"),
        (["import", "x", "--out", "y", "--size", "big"], "96x96"),
        (["import", "x", "--out", "y", "--fit", "left=zoom"], "pictures.left.fit: "),
        (
            ["campaign", "run", "--task", "drawer-open-v3", "--out", "x", "--set", f"{FRONT}.fit=crop"],
            "demonstrations are drawn in one size for all cameras",
        ),
    ],
)
def test_usage(
    args: list[str], said: str, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(*args, code=errors.USAGE)
    assert list(tmp_path.iterdir()) == []


def test_unknown_yaml_key_names_file_and_nearest(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("policy:\n  unet:\n    chanels: [32]\n")
    line = refused("train", "--data", "x", "--out", "y", "--config", path, code=errors.USAGE)
    assert str(path) in line
    assert "'policy.unet.chanels'; did you mean 'channels'?" in line


def test_folder_that_is_nothing_of_ours(refused: Refused, tmp_path: Path) -> None:
    assert "neither a checkpoint nor a dataset" in refused("inspect", tmp_path, code=errors.USAGE)
    assert "not a checkpoint" in refused("eval", tmp_path, code=errors.FAILED)
    assert "not a checkpoint" in refused("eval", tmp_path / "missing", code=errors.FAILED)
    line = refused("train", "--data", tmp_path, "--out", tmp_path / "run", code=errors.FAILED)
    assert "not a dp_ros dataset" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("eval", "{word}"),
        ("compare", "{word}", "{word}"),
        ("robustness", "{word}", "--report", "report"),
        ("bench", "eval", "{word}"),
        ("pack", "{word}", "--out", "packed"),
        ("card", "{word}"),
        ("models", "{word}"),
        ("inspect", "{word}"),
        pytest.param(("demo", "--checkpoint", "{word}"), marks=pytest.mark.ros),
    ],
    ids=lambda command: command[0],
)
def test_every_command_says_the_same_of_a_wrong_checkpoint(
    command: tuple[str, ...], refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if command[0] == "demo":
        pytest.importorskip("rclpy")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "zarr.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    code = errors.USAGE if command[0] in ("models", "inspect") else errors.FAILED
    for word, says in (
        ("", "checkpoint is empty: give the folder of a checkpoint"),
        ("handle-press", f"looked for {tmp_path / 'handle-press'} with config.json"),
        ("handle-press", "did you mean handle-press-v3-unet?"),
        ("data", "data: is a zarr dataset, not a checkpoint"),
    ):
        if (command[0], word) != ("inspect", "data"):  # which it describes
            assert says in refused(*(part.format(word=word) for part in command), code=code)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "zarr.json"]


def test_every_command_takes_a_run_a_checkpoint_and_a_shipped_model(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that read the weights and run no episode; a launch file and the node are tested beside them."""
    shutil.copytree(undisturbed, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for word in ("run", "~/run", "run/checkpoint", str(tmp_path / "run"), "handle-press-v3-unet"):
        out = tmp_path / "packed"
        commands = (("inspect", word), ("models", word), ("pack", word, "--out", str(out)))
        for command in commands:
            assert main(command) == 0, (command, capsys.readouterr().err)
        assert (out / "policy.safetensors").is_file()
        shutil.rmtree(out)
    assert main(["card", "~/run"]) == 0
    assert "run/checkpoint/card.md" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        "collect --task tiny-push --out data --episodes 1",
        "collect --task tiny-push --out data --episodes 2 --jobs 2",
        "eval handle-press-v3-unet --episodes 1 --engine torch",
        "bench render --seconds 1",
    ],
)
def test_commands_that_draw_name_the_variable_that_keeps_them_from_it(
    command: str,
    can_render: None,
    dp_ros: Cli,
    dp_ros_environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(dp_ros_environment, "MUJOCO_GL", "elg")
    done = dp_ros(*command.split(), cwd=tmp_path)
    assert done.returncode == errors.FAILED
    assert the_line(done.stderr) == ("dp_ros: MUJOCO_GL=elg is not a backend: unset it, or set egl or osmesa")


def test_wrong_task_or_camera_makes_no_dataset(can_render: None, refused: Refused, tmp_path: Path) -> None:
    out = tmp_path / "data"
    line = refused("collect", "--task", "handel-press", "--out", out, code=errors.USAGE)
    assert "did you mean 'handle-press-v3'?" in line
    collect = ("collect", "--task", "handle-press", "--out", out, "--jobs", 1)
    assert "gripperPOV" in refused(*collect, "--camera", "gripper", code=errors.USAGE)
    assert not out.exists()


@pytest.mark.sim
def test_dataset_of_other_settings_is_not_mixed(
    dataset: Path, collect_args: tuple[str, ...], refused: Refused, tmp_path: Path
) -> None:
    out = tmp_path / "data"
    shutil.copytree(dataset, out)
    line = refused("collect", *collect_args, "--out", out, "--seed", 7, "--episodes", 5, code=errors.FAILED)
    assert "collect.first_seed = 100000, not 7" in line


@pytest.mark.sim
def test_unfinished_dataset_is_refused(
    dataset: Path, tiny_config: Path, refused: Refused, tmp_path: Path
) -> None:
    unfinished = tmp_path / "data"
    shutil.copytree(dataset, unfinished)
    metadata = json.loads((unfinished / "zarr.json").read_text())
    metadata["attributes"]["complete"] = False
    (unfinished / "zarr.json").write_text(json.dumps(metadata))
    train = ("train", "--config", tiny_config, "--data", unfinished, "--out", tmp_path / "run")
    assert "is unfinished" in refused(*train, code=errors.FAILED)
    assert not (tmp_path / "run").exists()


@pytest.mark.sim
def test_config_that_does_not_fit_the_dataset(
    dataset: Path, tiny_config: Path, refused: Refused, tmp_path: Path
) -> None:
    train = ("train", "--config", tiny_config, "--data", dataset, "--out", tmp_path / "run")
    assert "holds handle-press-v3" in refused(*train, "--set", "policy.task=sweep-v3", code=errors.USAGE)
    assert "80 Hz" in refused(*train, "--set", "policy.rate_hz=20", code=errors.USAGE)
    assert "64x64" in refused(*train, "--set", "policy.encoder.width_px=96", code=errors.USAGE)
    assert "batch_size 500" in refused(*train, "--set", "batch_size=500", code=errors.USAGE)
    together = ("policy.task=sweep-v3", "policy.rate_hz=20", "policy.encoder.width_px=96", "batch_size=500")
    options = [part for each in together for part in ("--set", each)]
    line = refused(*train, *options, code=errors.USAGE)
    assert all(said in line for said in (*(f"--set {each}" for each in together), "4 settings do not fit"))
    assert not (tmp_path / "run").exists()


@pytest.mark.sim
@pytest.mark.parametrize("name", ["policy.safetensors", "stats.json", "config.json"])
def test_damaged_checkpoint_is_refused(trained: Path, name: str, refused: Refused, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(trained / "checkpoint", damaged)
    content = (damaged / name).read_bytes()
    (damaged / name).write_bytes(content[: len(content) // 2])
    for command in ("eval", "inspect"):
        assert name in refused(command, damaged, code=errors.FAILED)


@pytest.mark.sim
def test_eval_refuses_what_would_prove_nothing(trained: Path, refused: Refused) -> None:
    line = refused("eval", trained, "--seed", 99_999, "--episodes", 2, code=errors.USAGE)
    assert "overlap the training seeds 100000 to 100001" in line
    assert "did you mean" in refused("eval", trained, "--task", "drawr-open", code=errors.USAGE)
    iterations = refused("eval", trained, "--iterations", 101, "--threads", 1, code=errors.USAGE)
    assert "exceeds the 100 iterations trained" in iterations


def small_files() -> None:
    """In the child: writing more than 100 kB to a file fails, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB; skipped where it may not be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.sim
def test_disk_full_while_collecting(
    can_render: None, dp_ros: Cli, collect_args: tuple[str, ...], tiny_disk: Path, refused: Refused
) -> None:
    out = tiny_disk / "data"
    done = dp_ros("collect", *collect_args, "--episodes", 40, "--out", out)
    assert done.returncode == errors.FAILED
    assert "the disk is full" in the_line(done.stderr)
    assert done.stdout == ""
    assert "is unfinished" in refused("train", "--data", out, "--out", tiny_disk / "run", code=errors.FAILED)


@pytest.mark.sim
def test_write_that_fails_while_collecting(
    can_render: None, dp_ros: Cli, collect_args: tuple[str, ...], tmp_path: Path, refused: Refused
) -> None:
    out = tmp_path / "data"
    done = dp_ros("collect", *collect_args, "--episodes", 3, "--out", out, preexec_fn=small_files)
    assert done.returncode == errors.FAILED
    assert "the 0 finished episodes are kept" in the_line(done.stderr)
    assert "is unfinished" in refused("train", "--data", out, "--out", tmp_path / "run", code=errors.FAILED)


@pytest.mark.sim
def test_write_that_fails_while_training(
    dataset: Path, tiny_config: Path, dp_ros: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train = ("train", "--config", tiny_config, "--data", dataset, "--out", out)
    done = dp_ros(*train, preexec_fn=small_files)
    assert done.returncode == errors.FAILED
    line = the_line(done.stderr)
    assert "the state of step 5 cannot be written" in line
    assert "free some space and begin again" in line, "there is nothing to resume"
    assert not (out / "checkpoint").exists()
    assert not (out / "state.safetensors").exists()
