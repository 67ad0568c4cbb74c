"""Our nodes as child processes, and a client node in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rclpy
import yaml
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from dp_ros.errors import UserError
from dp_ros.resources import share_file
from dp_ros.ros.processes.environment import SESSION_VARIABLE, node_environment
from dp_ros.schema import Config

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0


class SessionError(UserError):
    """A node that did not start, ended, or does not answer; one line with the last line of its log."""


def parameters_yaml(node: str, config: Config, **others: Any) -> str:
    """ROS parameter file of `node` with the fields that `config` sets; others keep the values of the file before it."""
    values = {**_plain(config.model_dump(exclude_unset=True)), **others}
    return yaml.safe_dump({node: {"ros__parameters": values}}, sort_keys=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    return list(value) if isinstance(value, tuple) else value


class NodeProcess:
    """One of our nodes as a child process, in a process group of its own: this process passes Ctrl-C on."""

    def __init__(
        self, module: str, node: str, parameters: str, folder: Path, environment: dict[str, str]
    ) -> None:
        self.name = node
        overrides = folder / f"{node}.yaml"
        overrides.write_text(parameters)
        self._log_path = folder / f"{node}.log"
        with self._log_path.open("w") as log:
            self._process = subprocess.Popen(
                # The file of sim.launch.py, then the caller's changes.
                [
                    *(sys.executable, "-m", module, "--ros-args"),
                    *("--params-file", str(share_file("config/sim.yaml")), "--params-file", str(overrides)),
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """SessionError when the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise SessionError(f"{self.name} ended with code {code}: {self.last_line}")

    @property
    def log(self) -> str:
        """All that it has printed."""
        return self._log_path.read_text(errors="replace")

    @property
    def last_line(self) -> str:
        """The end of its log."""
        lines = self.log.strip().splitlines()
        return lines[-1] if lines else "its log is empty"

    def kill(self) -> None:
        """End it with SIGKILL, as the kernel does when memory is short."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """End it with SIGINT, after a grace time with SIGKILL; returns the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return self._process.returncode


class NodeGroup:
    """Our nodes as processes, active after construction, and a client node in this process.

    Leaving the context stops the processes.
    """

    def __init__(
        self, nodes: Mapping[str, str], domain_id: int | None = None, client: str = "dp_ros_session"
    ) -> None:
        """`nodes`: name -> parameters as YAML (`parameters_yaml`); a node has the name of its module."""
        self._folder = tempfile.TemporaryDirectory(prefix="dp_ros-")
        folder = Path(self._folder.name)
        environment = {**node_environment(domain_id), SESSION_VARIABLE: str(os.getpid())}
        self.processes: list[NodeProcess] = []
        self._context = rclpy.Context()
        try:
            for name, parameters in nodes.items():
                self.processes.append(
                    NodeProcess(f"dp_ros.ros.nodes.{name}", name, parameters, folder, environment)
                )
            rclpy.init(context=self._context, domain_id=domain_id)
            self.node = Node(client, context=self._context)
            self._executor = SingleThreadedExecutor(context=self._context)
            self._executor.add_node(self.node)
            self._states = {
                process.name: self.node.create_client(GetState, f"{process.name}/get_state")
                for process in self.processes
            }
            self.create_interface()
            self.wait_until_active()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def create_interface(self) -> None:
        """Make subscriptions and clients of `node`, before the wait for the nodes."""

    def wait_until_active(self) -> None:
        for name, client in self._states.items():
            self.spin_until(client.service_is_ready, START_TIMEOUT_S, f"{name} did not start")
            deadline = time.monotonic() + START_TIMEOUT_S
            while not self._is_active(client):
                if time.monotonic() > deadline:
                    raise SessionError(f"{name} did not become active within {START_TIMEOUT_S:g} s")

    def _is_active(self, client: Any) -> bool:
        """One question with a timeout: DDS drops a response whose reader the node has not discovered yet."""
        answer = client.call_async(GetState.Request())
        self.spin_until(answer.done, 1.0, "")
        if not answer.done() or answer.result().current_state.id != State.PRIMARY_STATE_ACTIVE:
            self.spin_until(lambda: False, 0.05, "")
            return False
        return True

    def refuse_others(self, topics: Sequence[str]) -> None:
        """SessionError where a topic has several publishers: each robot would follow the commands for the other."""
        for topic in topics:
            publishers = self.node.count_publishers(topic)
            if publishers > 1:
                raise SessionError(
                    f"{publishers} publishers of {topic}: another robot, policy or session is in this ROS domain; "
                    "set ROS_DOMAIN_ID to a number of its own"
                )

    def spin_until(self, done: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
        """Spin until `done()`. SessionError when a node ends, or at the deadline where `otherwise` is not empty."""
        deadline = time.monotonic() + timeout_s
        while not done():
            for process in self.processes:
                process.check()
            if time.monotonic() > deadline:
                if otherwise:
                    raise SessionError(f"{otherwise} within {timeout_s:g} s")
                return
            self._executor.spin_once(timeout_sec=0.02)

    def close(self) -> None:
        """Stop the processes and leave the graph; may be called twice."""
        for process in reversed(self.processes):
            process.stop()
        if self._context.ok():
            self._executor.shutdown()
            self.node.destroy_node()
            self._context.try_shutdown()
        self._folder.cleanup()
