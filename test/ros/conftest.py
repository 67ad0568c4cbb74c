"""Parts that the ROS tests share: a domain of their own, processes that end with the test, tiny checkpoints.

Nothing here imports ROS until a test asks for a client. Where rclpy is missing, each module of this folder is
reported as skipped.
"""

import importlib.util
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import dp_ros
from dp_ros.cli.security_policy import enclaves
from dp_ros.ros.processes.environment import TRANSPORT_CHOICES, node_environment
from dp_ros.ros.processes.shared_memory import clear_shared_memory
from test.forked import SERVER, Forked

# Far beyond what anything here needs: on a busy machine a node starts in 40 s. Only a failure waits this long.
DEADLINE_S = 120.0


class RosModule(pytest.Module):
    def collect(self):
        if importlib.util.find_spec("rclpy") is None:
            pytest.skip("rclpy is not installed: source a ROS 2 or pip install 'dp_ros[ros]'")
        return super().collect()


def pytest_pycollect_makemodule(module_path, parent):
    module = RosModule.from_parent(parent, path=module_path)
    module.add_marker("ros")
    return module


def pytest_sessionfinish():
    """Tests kill processes, which leave their shared memory behind."""
    clear_shared_memory()


def environment_in(domain_id: int) -> dict[str, str]:
    """The environment of our nodes in that domain, with our transports in place of this shell's."""
    base = {name: value for name, value in os.environ.items() if name not in TRANSPORT_CHOICES}
    checkout = str(Path(dp_ros.__file__).parents[1])
    base["PYTHONPATH"] = os.pathsep.join(filter(None, [checkout, base.get("PYTHONPATH")]))
    base["ROS_PYTHON_CHECK_FIELDS"] = "1"  # what a strict installation runs with
    return node_environment(domain_id, base)


@pytest.fixture
def ros_environment(ros_domain: int) -> dict[str, str]:
    return environment_in(ros_domain)


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
        """The rest of the next line that starts with `prefix`."""
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


class OurNode:
    """One of our nodes as a process; its output is kept in `log`."""

    def __init__(
        self,
        module: str,
        name: str,
        domain_id: int,
        folder: Path,
        parameters: dict,
        *arguments: str,
        program: Sequence[str] = (),
    ):
        """`program`: a script and its arguments that run the node, instead of its module."""
        self.name = name
        file = folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump({f"/**/{name}": {"ros__parameters": parameters}}))
        self._log_path = folder / f"{name}.log"
        environment = environment_in(domain_id)
        arguments = ("--ros-args", "--params-file", str(file), *arguments)
        self.process: subprocess.Popen[bytes] | Forked
        if not program:
            self.process = SERVER.start(module, *arguments, environment=environment, log=self._log_path)
            return
        with self._log_path.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    def check(self) -> None:
        """Fail the test when the process has ended."""
        if self.process.poll() is not None:
            pytest.fail(f"{self.name} ended with code {self.process.returncode}:\n{self.log}")

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """Wait for its end; the exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name} did not end within {timeout_s} s:\n{self.log}")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def _starting(folder: Path, domain_id: int):
    """Yields start(module, name, parameters, *arguments, wait=True) -> OurNode, and ends all it started."""
    nodes: list[OurNode] = []

    def start(module: str, parameters: dict, *arguments: str, program: Sequence[str] = ()) -> OurNode:
        place = folder / str(len(nodes))
        place.mkdir()
        name = module.rpartition(".")[2]
        if name == "policy_node":  # the choice of an engine takes seconds
            parameters = {"engine": "torch", **parameters}
        nodes.append(OurNode(module, name, domain_id, place, parameters, *arguments, program=program))
        return nodes[-1]

    yield start
    for node in reversed(nodes):
        node.close()


@pytest.fixture
def start_node(tmp_path: Path, ros_domain: int):
    """start_node(module, parameters, *arguments) -> OurNode, a process in the test's domain."""
    yield from _starting(tmp_path, ros_domain)


@pytest.fixture(scope="module")
def start_shared_node(tmp_path_factory: pytest.TempPathFactory, module_domain: int):
    """`start_node` for the whole module."""
    yield from _starting(tmp_path_factory.mktemp("nodes"), module_domain)


class Client:
    """A node of the test in this process; it is spun by waiting."""

    def __init__(self, domain_id: int) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node

        os.environ.update(
            {k: v for k, v in environment_in(domain_id).items() if k.startswith(("ROS_A", "FAST"))}
        )
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = Node("test_client", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._clients: dict[str, object] = {}
        self._probes: dict[tuple[str, str], object] = {}
        self._heard: list[tuple[Any, list]] = []
        self.watched: list[OurNode] = []

    def spin_once(self, timeout_s: float = 0.02) -> None:
        self._executor.spin_once(timeout_sec=timeout_s)

    def take_all(self) -> None:
        """Take what has arrived for `listen`. A spin takes one message: the list lags behind on a busy machine."""
        for subscription, received in self._heard:
            with subscription.handle:
                while taken := subscription.handle.take_message(subscription.msg_type, subscription.raw):
                    received.append(taken[0])

    def wait_for(self, done, what: str, timeout_s: float = DEADLINE_S, meanwhile=None):
        """Spin until `done()` is true, and return its value; `meanwhile()` is called between spins."""
        deadline = time.monotonic() + timeout_s
        while not (result := done()):
            for node in self.watched:
                node.check()
            if time.monotonic() > deadline:
                logs = "\n".join(node.log for node in self.watched)
                pytest.fail(f"{what}: not within {timeout_s} s\n{logs}")
            if meanwhile is not None:
                meanwhile()
            self.spin_once()
        return result

    def forbidden(self, name: str, cameras: Sequence[str] = ()) -> list[str]:
        """What the node `name` publishes, hears or offers, and the policy of `dp_ros security` does not allow it."""
        (enclave,) = (each for each in enclaves(cameras, {}) if each.name == name)
        seen = {
            "publish": self.node.get_publisher_names_and_types_by_node(name, "/"),
            "subscribe": self.node.get_subscriber_names_and_types_by_node(name, "/"),
            "reply": self.node.get_service_names_and_types_by_node(name, "/"),
            "request": self.node.get_client_names_and_types_by_node(name, "/"),
        }
        assert seen["publish"]
        full = {
            role: {
                each.replace("~", f"/{name}", 1) if each[0] in "~/" else f"/{each}"
                for each in getattr(enclave, role)
            }
            for role in seen
        }
        return [
            f"{role} {topic}"
            for role, found in seen.items()
            for topic, _ in found
            if not any(fnmatch(topic, pattern) for pattern in full[role])
        ]

    def listen(
        self, kind, topic: str, depth: int = 1000, best_effort: bool = False, latched: bool = False
    ) -> list:
        """Subscribe; the list fills while the client spins. `latched`: with the last message from before, too."""
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        profile = QoSProfile(depth=depth, durability=durability)
        profile.reliability = ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE
        received: list = []
        self._heard.append((self.node.create_subscription(kind, topic, received.append, profile), received))
        return received

    def call(self, kind, name: str, request, meanwhile=None):
        """The response of a service, once it is there."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        client = self._clients[name]
        self.wait_for(client.service_is_ready, f"service {name}", meanwhile=meanwhile)
        self._wait_until_known_to_server(name, meanwhile)
        future = client.call_async(request)
        self.wait_for(future.done, f"answer of {name}", meanwhile=meanwhile)
        return future.result()

    def _wait_until_known_to_server(self, name: str, meanwhile) -> None:
        """DDS drops a response whose reader the server has not discovered yet, as happens on a busy machine.

        A server discovers a client's readers in the order they were made. A response to a second client, made after
        the first, therefore proves that the server knows the first, too. The second one may ask repeatedly.
        """
        from rcl_interfaces.srv import ListParameters

        server = self.wait_for(lambda: self._server_of(name), f"the node of {name}", meanwhile=meanwhile)
        if (name, server) not in self._probes:
            self._probes[name, server] = self.node.create_client(ListParameters, f"{server}/list_parameters")
        probe = self._probes[name, server]
        self.wait_for(probe.service_is_ready, f"parameters of {server}", meanwhile=meanwhile)
        futures, due_s = [], 0.0

        def answered() -> bool:
            nonlocal due_s
            if time.monotonic() > due_s:
                futures.append(probe.call_async(ListParameters.Request()))
                due_s = time.monotonic() + 1.0
            return any(future.done() for future in futures)

        self.wait_for(answered, f"{server} knows its client", meanwhile=meanwhile)

    def _server_of(self, service: str) -> str | None:
        """The full name of the node that offers a service."""
        service = self.node.resolve_service_name(service)
        for node, namespace in self.node.get_node_names_and_namespaces():
            try:
                offered = dict(self.node.get_service_names_and_types_by_node(node, namespace))
            except RuntimeError:  # the node has just ended
                continue
            if service in offered:
                return f"{namespace.rstrip('/')}/{node}"
        return None

    def state(self, node: str) -> str:
        """The lifecycle state: "unconfigured", "inactive", "active", ..."""
        from lifecycle_msgs.srv import GetState

        return self.call(GetState, f"{node}/get_state", GetState.Request()).current_state.label

    def change(self, node: str, transition: str, meanwhile=None) -> bool:
        """A lifecycle transition: "configure", "activate", "deactivate", "cleanup"."""
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request()
        request.transition.label = transition
        request.transition.id = {"configure": 1, "cleanup": 2, "activate": 3, "deactivate": 4}[transition]
        return self.call(ChangeState, f"{node}/change_state", request, meanwhile).success

    def wait_until_active(self, node: str) -> None:
        self.wait_for(lambda: self.state(node) == "active", f"{node} active")

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def client(ros_domain: int):
    client = Client(ros_domain)
    yield client
    client.close()


@pytest.fixture(scope="module")
def shared_client(module_domain: int):
    client = Client(module_domain)
    yield client
    client.close()


# Actions move the arm of reach-v3 forward.
FORWARD = {
    "action": {"low": [-0.02, 0.0, -0.03, -1.0], "high": [0.02, 0.12, 0.02, 1.0]},
    "state": {"low": [-0.3, 0.4, 0.0, 0.0], "high": [0.3, 0.9, 0.4, 1.0]},
}


@pytest.fixture(scope="session")
def make_checkpoint(small_policy: Mapping, tmp_path_factory: pytest.TempPathFactory):
    """make_checkpoint(name, spoil=None, stats=FORWARD, encoder=..., **policy) -> folder of untrained weights.

    `spoil(policy)` may change the weights before they are written.
    """
    import torch

    from dp_ros.policy.checkpoint import save_checkpoint
    from dp_ros.policy.diffusion_policy import DiffusionPolicy
    from dp_ros.schema import PolicyConfig

    folder = tmp_path_factory.mktemp("checkpoints")

    def make(name: str, spoil=None, stats=FORWARD, encoder=None, **policy) -> Path:
        values = {**small_policy, **policy, "encoder": {**small_policy["encoder"], **(encoder or {})}}
        torch.manual_seed(0)
        network = DiffusionPolicy(PolicyConfig.model_validate(values), stats)
        if spoil is not None:
            spoil(network)
        return save_checkpoint(network, folder / name)

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(make_checkpoint) -> Path:
    return make_checkpoint("tiny")


@pytest.fixture(scope="session")
def push_checkpoint(make_checkpoint) -> Path:
    """The same weights for the tiny arm, which is made and drawn much faster than Metaworld's."""
    return make_checkpoint("push", task="tiny-push", rate_hz=20.0)


SHIFTED = """
import sys
from pathlib import Path
from rclpy.duration import Duration
from dp_ros.ros.node.node_main import run_process
from dp_ros.ros.nodes.{module} import {node}

class ShiftedClock:
    def __init__(self, clock):
        self._clock = clock

    def now(self):
        return self._clock.now() - Duration(seconds=float(Path(sys.argv[1]).read_text()))

    def __getattr__(self, name):
        return getattr(self._clock, name)

class Shifted({node}):
    def get_clock(self):
        return ShiftedClock(super().get_clock())

run_process(Shifted)
"""


@pytest.fixture
def shifted_node(tmp_path: Path):
    """shifted_node(module, class) -> script of that node; its wall clock is late by the seconds in file argv[1]."""

    def make(module: str, node: str) -> str:
        script = tmp_path / f"shifted_{module}.py"
        script.write_text(SHIFTED.format(module=module, node=node))
        return str(script)

    return make


TINY_TASKS, TOLD_DIM = ("tiny-push", "tiny-push-tilt30"), 12


@pytest.fixture(scope="session")
def told(small_policy, tmp_path_factory) -> Path:
    """Untrained weights for the tiny arm, with two tasks; the sentence has an effect."""
    import torch

    from dp_ros.policy.checkpoint import save_checkpoint
    from dp_ros.policy.diffusion_policy import DiffusionPolicy
    from dp_ros.policy.instructions import Instructions, Sentence
    from dp_ros.schema import PolicyConfig

    torch.manual_seed(0)
    values = {
        **small_policy,
        "task": "",
        "rate_hz": 20.0,
        "instruction": {"embedding_dim": TOLD_DIM, "features": 8},
    }
    stats = {
        "action": {"low": [-0.02, 0.0, -0.03, -1.0], "high": [0.02, 0.12, 0.02, 1.0]},
        "state": {"low": [-0.3, 0.4, 0.0, 0.0], "high": [0.3, 0.9, 0.4, 1.0]},
    }
    policy = DiffusionPolicy(PolicyConfig.model_validate(values), stats)
    for camera in policy.encoder.cameras:
        torch.nn.init.normal_(camera.film.weight, std=0.5)
    sentences = (
        Sentence("push it", TINY_TASKS[0]),
        Sentence("lean and push it", TINY_TASKS[1]),
        Sentence("sing", TINY_TASKS[0], kind="held_out"),
    )
    known = Instructions(sentences, np.eye(TOLD_DIM, dtype=np.float32)[:3])
    return save_checkpoint(policy, tmp_path_factory.mktemp("models") / "told", instructions=known)
