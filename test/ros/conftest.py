"""What the ROS tests share: a domain of their own, and processes that end with the test.

Nothing here imports ROS. Where rclpy is missing, each module of this folder is reported as skipped.
"""

import importlib.util
import itertools
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import dp_ros
from dp_ros.ros.environment import TRANSPORT_CHOICES, node_environment

DEADLINE_S = 20.0  # far beyond what anything here needs; only a failure waits this long


class RosModule(pytest.Module):
    def collect(self):
        if importlib.util.find_spec("rclpy") is None:
            pytest.skip("rclpy is not installed: source a ROS 2 or pip install 'dp_ros[ros]'")
        return super().collect()


def pytest_pycollect_makemodule(module_path, parent):
    module = RosModule.from_parent(parent, path=module_path)
    module.add_marker("ros")
    return module


# Ports of domains 1 to 101 lie below the range that Linux hands out to clients.
_domains = itertools.cycle(range(1, 102))
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
for _ in range((7 * os.getpid() + 29 * _worker) % 101):
    next(_domains)


def is_free(domain_id: int) -> bool:
    """Nobody on this machine listens as the first participant of the domain (RTPS 9.6.1.1)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", 7400 + 250 * domain_id + 10))
        except OSError:
            return False
    return True


@pytest.fixture
def ros_domain() -> int:
    """A ROS_DOMAIN_ID that no other test uses at the same time."""
    return next(domain for domain in itertools.islice(_domains, 101) if is_free(domain))


@pytest.fixture
def ros_environment(ros_domain: int) -> dict[str, str]:
    """The environment of our nodes in that domain, whatever transports this shell has chosen."""
    base = {name: value for name, value in os.environ.items() if name not in TRANSPORT_CHOICES}
    checkout = str(Path(dp_ros.__file__).parents[1])
    base["PYTHONPATH"] = os.pathsep.join(filter(None, [checkout, base.get("PYTHONPATH")]))
    base["ROS_PYTHON_CHECK_FIELDS"] = "1"  # what a strict installation runs with
    return node_environment(ros_domain, base)


class Peer:
    """A Python process that answers in lines: `expect` waits for one, `tell` sends one.

    The end of its input tells it to end; one that is killed leaves its shared memory behind.
    """

    def __init__(self, environment: dict[str, str], *arguments: object) -> None:
        self.command = [sys.executable, *map(str, arguments)]
        self.process = subprocess.Popen(
            self.command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def expect(self, prefix: str, timeout_s: float = DEADLINE_S) -> str:
        """What follows `prefix` in the next line that starts with it."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"{self.command[1:]} did not say '{prefix}' within {timeout_s} s")
            if line is None:
                pytest.fail(f"{self.command[1:]} ended with {self.process.wait()} before saying '{prefix}'")
            if line.startswith(prefix):
                return line.removeprefix(prefix).strip()

    def tell(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        self.process.stdout.close()


@pytest.fixture
def start_peer(ros_environment):
    """start_peer(script, *arguments) -> Peer, a child process in the test's domain, ended with the test."""
    peers: list[Peer] = []

    def start(*arguments: object) -> Peer:
        peers.append(Peer(ros_environment, *arguments))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()
