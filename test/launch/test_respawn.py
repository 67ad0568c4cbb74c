"""A policy's node that dies under the real launch system: started again, inactive, and not without end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("launch_ros", reason="launch_ros is not installed: source a ROS 2")

import launch.logging
import rclpy
import torch
import yaml
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription, Shutdown, TimerAction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from lifecycle_msgs.srv import GetState
from rclpy.executors import SingleThreadedExecutor

from dp_ros.policy.checkpoint import save_checkpoint
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.resources import share_dir
from dp_ros.schema import PolicyConfig

pytestmark = [pytest.mark.ros, pytest.mark.slow]
DEADLINE_S = 180.0
STATS = {
    "action": {"low": [-0.02, -0.02, -0.02, -1.0], "high": [0.02, 0.02, 0.02, 1.0]},
    "state": {"low": [-0.3, 0.4, 0.0, 0.0], "high": [0.3, 0.9, 0.4, 1.0]},
}


def processes(*words: str) -> list[int]:
    """Processes whose command line has all the words."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if all(word in command for word in words) and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


class Observer:
    """State of the policy's node, asked for by a node of its own."""

    def __init__(self, domain_id: int) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._node = rclpy.create_node("observer", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._client = self._node.create_client(GetState, "policy_node/get_state")

    def wait_for(self, label: str) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while self.state() != label:
            assert time.monotonic() < deadline_s, f"the node is not {label}"

    def state(self) -> str:
        if not self._client.wait_for_service(timeout_sec=0.2):
            return ""
        answer = self._client.call_async(GetState.Request())
        self._executor.spin_until_future_complete(answer, timeout_sec=2.0)
        return answer.result().current_state.label if answer.done() else ""

    def answer(self) -> str:
        """The state that the node gives; a busy machine may miss some questions."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not (label := self.state()):
            assert time.monotonic() < deadline_s, "the node does not answer"
        return label

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()


@pytest.fixture
def observer(ros_domain: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Observer]:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(ros_domain))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    made = Observer(ros_domain)
    yield made
    made.close()


def test_a_policy_that_dies_comes_back_inactive_and_its_watchdog_outlives_it(
    small_policy, tmp_path: Path, observer: Observer, capfd
) -> None:
    torch.manual_seed(0)
    policy = DiffusionPolicy(PolicyConfig.model_validate(dict(small_policy)), STATS)
    checkpoint = save_checkpoint(policy, tmp_path / "tiny")
    params = tmp_path / "params.yaml"
    gate = {"workspace_low_m": [-0.5, 0.3, 0.0], "workspace_high_m": [0.5, 1.0, 0.6]}
    values = {"engine": "torch", "threads": 1, "gate": gate}
    params.write_text(yaml.safe_dump({"/**/policy_node": {"ros__parameters": values}}))
    given = {"checkpoint": str(checkpoint), "params_file": str(params)}
    given |= {"autostart": "true", "respawn": "1", "watchdog": "true"}
    launch.logging.reset()
    service = LaunchService(noninteractive=True)
    service.include_launch_description(
        LaunchDescription(
            [
                TimerAction(period=DEADLINE_S, actions=[Shutdown(reason="deadline")]),
                IncludeLaunchDescription(
                    PythonLaunchDescriptionSource(str(share_dir() / "launch" / "policy.launch.py")),
                    launch_arguments=list(given.items()),
                ),
            ]
        )
    )
    seen: list[str] = []

    def follow() -> None:
        try:
            observer.wait_for("active")  # autostart
            (pid,) = processes("policy_node", str(params))
            os.kill(pid, signal.SIGKILL)
            observer.wait_for("inactive")
            seen.append("inactive")
            time.sleep(2.0)  # what it would do by itself, it would have done by now
            seen.append(observer.answer())
            (again,) = processes("policy_node", str(params))
            assert again != pid
            os.kill(again, signal.SIGKILL)
            deadline_s = time.monotonic() + DEADLINE_S
            while processes("policy_node", str(params)) and time.monotonic() < deadline_s:
                time.sleep(0.1)
            time.sleep(3.0)  # longer than the delay of a respawn
            seen.append(f"{len(processes('policy_node', str(params)))} policies")
        finally:
            service.shutdown()

    follower = threading.Thread(target=follow)
    follower.start()
    service.run()
    follower.join()
    assert seen == ["inactive", "inactive", "0 policies"]
    said = "".join(capfd.readouterr())
    assert "it is started again, inactive; activate it when all is well" in said
    assert "the watchdog stays; end this launch when the arm may be on its own" in said
