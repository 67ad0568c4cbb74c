"""`dp_ros doctor` on machines that lack a part: the diagnosis, the commands it concerns, the remedy, the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dp_ros.cli import main
from dp_ros.doctor import installed
from dp_ros.doctor.checkpoint import served_checkpoint, served_settings
from dp_ros.doctor.findings import Level
from dp_ros.inference import hardware

ROOT = Path(__file__).parents[3]
WITHOUT_GL = """
import ctypes
load = ctypes.CDLL
def loader(name, *args, **options):
    if name and ("EGL" in str(name) or "OSMesa" in str(name)):
        raise OSError(name)
    return load(name, *args, **options)
ctypes.CDLL = loader
"""
PROGRAM = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
from dp_ros.cli import main
sys.exit(main(["doctor", "--json", sys.argv[1]]))
"""


def doctor(tmp_path: Path, *blocked: str, **environment: str) -> tuple[int, dict[str, dict[str, str]], str]:
    """(exit code, finding by its part, stdout) in a process without these modules."""
    written = tmp_path / "doctor.json"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(blocked=blocked), str(written)],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}, timeout=600,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return (
        done.returncode,
        {each["where"]: each for each in json.loads(written.read_text())["findings"]},
        done.stdout,
    )


def test_without_ros_and_gl_the_basic_commands_are_there_and_the_others_named(tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_GL)
    code, found, out = doctor(
        tmp_path, "rclpy", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}", ROS_DISTRO="", MUJOCO_GL="", PYOPENGL_PLATFORM=""
    )  # fmt: skip
    assert code == 0
    assert "no errors" in out
    assert found["ROS"]["level"] == "warning"
    assert "not found; demo" in found["ROS"]["what"]
    assert "pip install 'dp_ros[ros]'" in found["ROS"]["remedy"]
    assert found["drawing"]["level"] == "warning"
    assert found["drawing"]["what"].startswith("neither EGL nor OSMesa works here; collect, eval, demo")
    assert "apt-get install libegl1" in found["drawing"]["remedy"]


def test_without_a_basic_package_the_exit_code_is_one(monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setattr(installed, "_is_there", lambda module: module not in ("zarr", "mujoco"))
    monkeypatch.setattr(hardware, "_DRIVER_FILES", ())
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "ERROR   packages: zarr not installed: pip install zarr" in out
    assert "WARNING simulator: mujoco not installed; collect, eval and demo need it" in out


def test_without_a_gpu_the_cpu_is_named_and_a_gpu_that_torch_cannot_use_is_a_warning(
    monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hardware, "_DRIVER_FILES", (str(tmp_path / "missing"),))
    assert installed._gpu().level is Level.NOTE
    assert "on the CPU" in installed._gpu().what
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(hardware, "_DRIVER_FILES", (str(tmp_path / "nvidiactl"),))
    if not Path("/dev/nvidiactl").exists():
        found = installed._gpu()
        assert (found.level, found.where) == (Level.WARNING, "GPU")
        assert "cannot use it" in found.what
        assert "pytorch.org" in found.remedy


def test_a_driver_that_crashes_is_a_finding(monkeypatch) -> None:
    from dp_ros.doctor import drawing

    monkeypatch.setattr(drawing, "__name__", "test.crash")
    monkeypatch.setattr(
        drawing.subprocess, "run", lambda *args, **options: subprocess.CompletedProcess(args, -11, "", "")
    )
    assert "crashed (signal 11)" in drawing.rendering().what


def test_a_broken_checkpoint_is_one_line_with_the_remedy(tmp_path: Path, capsys) -> None:
    (tmp_path / "config.json").write_text("{}")
    folder, (finding,) = served_checkpoint(str(tmp_path))
    assert folder is None
    assert finding.level is Level.ERROR
    assert "is not a checkpoint's config.json: copy the checkpoint again" in finding.line
    _, (missing,) = served_checkpoint(str(tmp_path / "nowhere"))
    assert "does not exist" in missing.line
    assert main(["doctor", "--checkpoint", str(tmp_path)]) == 1
    assert "ERROR   checkpoint: " in capsys.readouterr().out


def test_parameters_are_read_as_ros_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text(
        "/**/policy_node:\n  ros__parameters:\n    use_sim_time: true\n    gripper_range: [0.8, 0.0]\n"
        "    gate.max_obs_age_s: 0.3\n"
        "/arm/policy_node:\n  ros__parameters:\n    gate: {max_obs_age_s: 0.2}\n"
    )
    runtime, sim_time, (finding,) = served_settings(file, "/policy_node")
    assert runtime is not None
    assert (sim_time, finding.level) == (True, Level.OK)
    assert (runtime.gripper_range, runtime.gate.max_obs_age_s) == ((0.8, 0.0), 0.3)
    of_arm, _, _ = served_settings(file, "/arm/policy_node")
    assert of_arm is not None
    assert of_arm.gate.max_obs_age_s == 0.2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "/**/teleop_node: {ros__parameters: {a: 1}}",
            "no parameters for /policy_node, only for /**/teleop_node",
        ),
        (
            "/**/policy_node: {ros__parameters: {gate: {max_obs_agee_s: 1.0}}}",
            "did you mean 'max_obs_age_s'?",
        ),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_parameter_file_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text(text)
    runtime, _, (finding,) = served_settings(file, "/policy_node")
    assert runtime is None
    assert finding.level is Level.ERROR
    assert said in finding.line
    _, _, (missing,) = served_settings(tmp_path / "none.yaml", "/policy_node")
    assert "cannot be read" in missing.line
