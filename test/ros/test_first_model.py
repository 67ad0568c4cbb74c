"""docs/first-model.md: every command of the tutorial, in its order, with few steps and two demonstrations."""

from __future__ import annotations

import itertools
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dp_ros.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.sim]
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "first-model.md"
LONG_S = 240.0  # far beyond what a node needs to start on a busy machine
SMALL = {  # option -> in place of it, and further ones
    # The workspace of each of these two alone has room for the start that follows: a busy machine may leave one out.
    "--demonstrations 10": "--demonstrations 2 --seed 23",
    "steps=300 --set warmup_steps=20 --set batch_size=32": "steps=2 --set warmup_steps=1 --set batch_size=4",
}
NODES = {"recorder_node": "dp_ros.ros.nodes.recorder_node", "policy_node": "dp_ros.ros.nodes.policy_node"}


def commands() -> list[list[str]]:
    """The words of each command of the page, in its order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def test_a_node_gets_what_its_launch_file_gets() -> None:
    """The line without `ros2 launch` below each line with it: same node, same arguments."""
    lines = commands()
    pairs = [(a, b) for a, b in itertools.pairwise(lines) if a[0] == "ros2"]
    assert len(pairs) == 3
    for launched, node in pairs:
        assert (
            node[0] == {"record.launch.py": "recorder_node", "policy.launch.py": "policy_node"}[launched[3]]
        )
        given = dict(word.split(":=") for word in launched[4:])
        own = dict(word.split(":=") for word in node if ":=" in word)
        if "--params-file" in node:
            own["params_file"] = node[node.index("--params-file") + 1]
        assert own == {"autostart": "true"} | given


class Process:
    """A command of the tutorial in a terminal of its own."""

    def __init__(self, words: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.log_path = folder / f"{time.monotonic_ns()}.log"
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words], cwd=folder, env=environment, stdout=log, stderr=log
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def check(self) -> None:
        assert self.process.poll() is None, self.log

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + LONG_S
        while text not in self.log:
            self.check()
            assert time.monotonic() < deadline, f"no '{text}':\n{self.log}"
            time.sleep(0.1)

    def stop(self) -> int:
        """Ctrl-C."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(LONG_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


@pytest.fixture
def folder(tmp_path: Path, ros_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the config of the checkout, to work in; this process is in the test's domain."""
    (tmp_path / "config").symlink_to(ROOT / "config")
    monkeypatch.chdir(tmp_path)
    for name, value in ros_environment.items():
        if name.startswith(("ROS_", "FAST", "AMENT")):
            monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def terminals(folder: Path, ros_environment: dict[str, str]) -> Iterator:
    """terminal(words) -> Process, ended with the test."""
    opened: list[Process] = []

    def terminal(*words: str) -> Process:
        opened.append(Process(list(words), folder, ros_environment))
        return opened[-1]

    yield terminal
    for process in reversed(opened):
        process.stop()


def test_every_command_of_the_tutorial_works(folder: Path, terminals, client, capsys) -> None:
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import JointState

    run, robot = [], None
    for words in commands():
        line = shlex.join(words)
        for long, short in SMALL.items():
            line = line.replace(long, short)
        words = shlex.split(line)
        run.append(words[:2])
        if words[0] == "ros2":  # the next line starts the same node
            continue
        if words[:2] == ["dp_ros", "stand-in"] and robot is None:
            robot = terminals("dp_ros.cli", *words[1:])
            robot.wait_for("waiting for a recorder")
        elif words[0] == "recorder_node":
            recorder = terminals(NODES[words[0]], *words[1:])
            robot.wait_for("2 demonstrations are recorded")
            assert recorder.stop() == 0, recorder.log
        elif words[0] == "policy_node":
            shadow = "shadow:=true" in line
            targets = client.listen(PoseStamped, "/servo/target_pose")
            grippers = client.listen(JointState, "/gripper/command")
            plans = client.listen(PoseStamped, "policy/shadow/ee_pose")
            policy = terminals(
                NODES[words[0]], *words[1:], "-p", "engine:=torch", "-p", "gate.max_obs_age_s:=1.0"
            )
            client.watched.append(policy)
            heard = plans if shadow else targets
            client.wait_for(  # on a busy machine, more of them before the first plan, which has no gripper command
                lambda heard=heard, shadow=shadow: len(heard) > 20 and (shadow or grippers),  # noqa: B023
                "commands",
                LONG_S,
            )
            client.watched.clear()
            assert policy.stop() == 0, policy.log
            assert bool(targets) is bool(grippers) is not shadow
            assert bool(plans) is shadow
            assert "which this arm cannot" not in robot.log
        else:
            code = main(words[1:])
            said = capsys.readouterr()
            # An untrained policy, and a busy machine: a verdict may be bad, but it must be one.
            judges = words[1:2] == ["doctor"] or words[1:3] == ["bag", "check"]
            assert code == 0 or (judges and code == 1), f"{line}\n{said.out}\n{said.err}"
            if words[1] == "doctor":
                check_doctor(said.out)
    assert (folder / "runs/first/episode.html").is_file()
    assert yaml.safe_load((folder / "runs/first/errors.json").read_text())["episodes"]
    assert ["dp_ros", "train"] in run


def check_doctor(said: str) -> None:
    """Nothing that follows from names, units, frames or the gripper's range may be wrong."""
    wrong = [line for line in said.splitlines() if line.startswith("ERROR")]
    late = ("gap", "late", "old", "Hz", "stamped", "age")
    assert [line for line in wrong if not any(word in line for word in late)] == []
