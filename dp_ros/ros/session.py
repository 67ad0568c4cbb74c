"""Episodes over real topics: starts the bridge and the policy node as processes, runs episodes, ends both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
import yaml
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from dp_ros.evaluation.film import Picture, beside
from dp_ros.evaluation.statistics import EpisodeResult, Report
from dp_ros.policy.checkpoint_config import bridge_for
from dp_ros.resources import share_file
from dp_ros.ros import conversions, qos
from dp_ros.ros.environment import SESSION_VARIABLE, node_environment
from dp_ros.schema import BridgeConfig, Config, RuntimeConfig

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
SPECTATOR = "spectator"


class SessionError(RuntimeError):
    """A node that did not start, died, or stopped answering; one line with its last words."""


def parameters_yaml(node: str, config: Config, **others: Any) -> str:
    """A ROS parameter file for `node` with what `config` sets; the rest is left to the file before it."""
    values = {**_plain(config.model_dump(exclude_unset=True)), **others}
    return yaml.safe_dump({node: {"ros__parameters": values}}, sort_keys=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    return list(value) if isinstance(value, tuple) else value


class NodeProcess:
    """One of our nodes as a child process in a session of its own, so that Ctrl-C reaches it through us."""

    def __init__(
        self, module: str, node: str, parameters: str, folder: Path, environment: dict[str, str]
    ) -> None:
        self.name = node
        overrides = folder / f"{node}.yaml"
        overrides.write_text(parameters)
        self._log_path = folder / f"{node}.log"
        with self._log_path.open("w") as log:
            self._process = subprocess.Popen(
                # The file that sim.launch.py loads, then what the caller wants otherwise.
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

    def check(self) -> None:
        """SessionError when the process has ended."""
        code = self._process.poll()
        if code is not None:
            lines = self._log_path.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise SessionError(f"{self.name} ended with code {code}: {lines[-1]}")

    def stop(self) -> int:
        """SIGINT, then SIGKILL after a grace time; the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return self._process.returncode


class Session:
    """Bridge and policy node as processes, and a client node here that runs episodes.

    Leaving the context stops the processes, whatever ended it.
    """

    def __init__(
        self, checkpoint: Path, bridge: BridgeConfig, runtime: RuntimeConfig, domain_id: int | None = None
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dp_ros-")
        folder = Path(self._folder.name)
        environment = {**node_environment(domain_id), SESSION_VARIABLE: str(os.getpid())}
        self.plans_s: list[float] = []
        self._pictures: dict[int, dict[str, Picture]] = {}  # stamp -> camera -> picture
        self._results: list[EpisodeResult] = []
        self._nodes: list[NodeProcess] = []
        self._context = rclpy.Context()
        try:
            bridge_parameters = parameters_yaml("/**/metaworld_bridge", bridge, autostart=True)
            policy_parameters = parameters_yaml(
                "/**/policy_node", runtime, autostart=True, checkpoint=str(checkpoint.resolve())
            )
            for module, node, parameters in (
                ("dp_ros.ros.metaworld_bridge", "metaworld_bridge", bridge_parameters),
                ("dp_ros.ros.policy_node", "policy_node", policy_parameters),
            ):
                self._nodes.append(NodeProcess(module, node, parameters, folder, environment))
            rclpy.init(context=self._context, domain_id=domain_id)
            self._node = Node("dp_ros_session", context=self._context)
            self._executor = SingleThreadedExecutor(context=self._context)
            self._executor.add_node(self._node)
            self._create_interface(bool(bridge.spectator), bridge.cameras)
            self._wait_until_active()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _create_interface(self, filmed: bool, cameras: Sequence[str]) -> None:
        node = self._node
        node.create_subscription(String, "episode/result", self._on_result, qos.RELIABLE_DEEP)
        node.create_subscription(
            Float64, "policy/plan_duration", lambda msg: self.plans_s.append(msg.data), qos.RELIABLE_DEEP
        )
        self._filmed = 1 + len(cameras)
        for camera in (SPECTATOR, *cameras) if filmed else ():
            node.create_subscription(
                Image, f"camera/{camera}/image_raw", self._picture_callback(camera), qos.RELIABLE_DEEP
            )
        self._reset = node.create_client(Trigger, "episode/reset")
        self._states = {
            process.name: node.create_client(GetState, f"{process.name}/get_state") for process in self._nodes
        }

    def _picture_callback(self, camera: str) -> Callable[[Image], None]:
        def store(msg: Image) -> None:
            stamp_ns = conversions.stamp_to_ns(msg.header.stamp)
            self._pictures.setdefault(stamp_ns, {})[camera] = conversions.image_to_rgb(msg)

        return store

    def film(self) -> list[Picture]:
        """The last episode: the spectator's pictures beside what the policy saw, in order."""
        return [
            beside(
                seen[SPECTATOR], [picture for camera, picture in sorted(seen.items()) if camera != SPECTATOR]
            )
            for _, seen in sorted(self._pictures.items())
            if len(seen) == self._filmed
        ]

    def _on_result(self, msg: String) -> None:
        self._results.append(EpisodeResult(**json.loads(msg.data)))

    def _wait_until_active(self) -> None:
        for name, client in self._states.items():
            self._spin_until(client.service_is_ready, START_TIMEOUT_S, f"{name} did not start")
            deadline = time.monotonic() + START_TIMEOUT_S
            while not self._is_active(client):
                if time.monotonic() > deadline:
                    raise SessionError(f"{name} did not become active within {START_TIMEOUT_S:g} s")
        self._spin_until(self._reset.service_is_ready, START_TIMEOUT_S, "episode/reset is not offered")

    def run_episode(self, seed: int, timeout_s: float) -> EpisodeResult:
        """Begin the bridge's next episode, which must be `seed`, and wait for its result."""
        self._refuse_others()
        self._pictures.clear()
        count = len(self._results)
        answer = self._reset.call_async(Trigger.Request())
        # A response may be lost on a busy machine; the result is what counts.
        self._spin_until(
            lambda: len(self._results) > count or (answer.done() and not answer.result().success),
            timeout_s,
            f"episode {seed} gave no result",
        )
        if len(self._results) == count:
            raise SessionError(f"episode/reset was refused: {answer.result().message}")
        result = self._results[-1]
        if result.seed != seed:
            raise SessionError(
                f"the bridge ran seed {result.seed} where {seed} was meant: is another session running?"
            )
        return result

    def _is_active(self, client: Any) -> bool:
        """Asked again and again: DDS drops a response whose reader the node has not discovered yet."""
        answer = client.call_async(GetState.Request())
        self._spin_until(answer.done, 1.0, "")
        if not answer.done() or answer.result().current_state.id != State.PRIMARY_STATE_ACTIVE:
            self._spin_until(lambda: False, 0.05, "")
            return False
        return True

    def _refuse_others(self) -> None:
        """SessionError where another robot or policy shares our topics: each would follow the other's commands."""
        for topic in ("command/ee_pose", "ee_pose"):
            publishers = self._node.count_publishers(topic)
            if publishers > 1:
                raise SessionError(
                    f"{publishers} publishers of {topic}: another robot, policy or session is in this ROS domain; "
                    "set ROS_DOMAIN_ID to a number of its own"
                )

    def _spin_until(self, done: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
        """Spin until `done()`; SessionError when a node ends, or with `otherwise` (if any) at the deadline."""
        deadline = time.monotonic() + timeout_s
        while not done():
            for process in self._nodes:
                process.check()
            if time.monotonic() > deadline:
                if otherwise:
                    raise SessionError(f"{otherwise} within {timeout_s:g} s")
                return
            self._executor.spin_once(timeout_sec=0.02)

    def close(self) -> None:
        """Stop both processes and leave the graph; safe to call twice."""
        for process in reversed(self._nodes):
            process.stop()
        if self._context.ok():
            self._executor.shutdown()
            self._node.destroy_node()
            self._context.try_shutdown()
        self._folder.cleanup()


def evaluate(
    checkpoint: Path,
    task: str,
    seeds: Sequence[int],
    *,
    max_steps: int,
    runtime: RuntimeConfig,
    on_episode: Callable[[EpisodeResult], None],
    on_video: Callable[[EpisodeResult, list[Picture]], None] | None = None,
    spectator: str = "corner2",
    domain_id: int | None = None,
) -> Report:
    """Lockstep episodes over DDS, one per seed (consecutive numbers); the same outcomes as in-process.

    `on_video` gets each episode's pictures, one every second tick: uint8 (480, 720, 3), the camera `spectator`
    beside what the policy sees.
    """
    bridge = bridge_for(
        checkpoint,
        task=task,
        mode="lockstep",
        first_seed=seeds[0],
        max_steps=max_steps,
        spectator=spectator if on_video else "",
        command_timeout_s=20.0,
    )
    if list(seeds) != list(range(seeds[0], seeds[0] + len(seeds))):
        raise SessionError("seeds must be consecutive: the bridge counts them up")
    report = Report(task, str(checkpoint), "ros", runtime.policy_seed)
    lockstep = runtime.model_copy(update={"mode": "lockstep"})
    with Session(checkpoint, bridge, lockstep, domain_id) as session:
        for seed in seeds:
            result = session.run_episode(seed, timeout_s=max_steps * bridge.command_timeout_s)
            report.results.append(result)
            on_episode(result)
            if on_video:
                on_video(result, session.film())
        report.plan_s = list(session.plans_s)
    return report
