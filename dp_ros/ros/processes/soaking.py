"""Soak test: episodes in real time over topics, one after another, in bridge and policy processes that are measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from dp_ros.control.timing import CommandTimes
from dp_ros.evaluation.soak import Plan, Sample, Soak
from dp_ros.evaluation.told import instruction_for
from dp_ros.policy.checkpoint_config import bridge_for, instructions_of, serving_beside
from dp_ros.ros.node import qos
from dp_ros.ros.processes.session import Session
from dp_ros.schema import BridgeConfig, RuntimeConfig

_EPISODE_TIMEOUT_S = 120.0  # beyond its simulated time, on a busy machine
OnSample = Callable[[Soak], None]


class SoakSession(Session):
    """A session that measures while it spins."""

    def __init__(
        self,
        checkpoint: Path,
        bridge: BridgeConfig,
        runtime: RuntimeConfig,
        sample_s: float,
        on_sample: OnSample,
        soak: Soak,
        domain_id: int | None = None,
    ) -> None:
        self._sample_s, self._on_sample, self._soak = sample_s, on_sample, soak
        self._began_s: float | None = None
        super().__init__(checkpoint, bridge, runtime, domain_id)

    def create_interface(self) -> None:
        super().create_interface()
        node = self.node
        node.create_subscription(JointState, "policy/times", self._on_times, qos.RELIABLE_DEEP)
        node.create_subscription(String, "policy/verdict", self._on_verdict, qos.RELIABLE_DEEP)
        node.create_timer(self._sample_s, self._sample)

    def begin(self) -> None:
        """Begin to measure."""
        self._began_s = time.monotonic()
        self._processes = {process.name: psutil.Process(process.pid) for process in self.processes}
        self._sample()

    @property
    def passed_s(self) -> float:
        return 0.0 if self._began_s is None else time.monotonic() - self._began_s

    def _sample(self) -> None:
        if self._began_s is None:
            return
        self._soak.duration_s = now_s = self.passed_s
        for name, process in self._processes.items():
            try:
                sample = sample_of(process, now_s)
            except (psutil.Error, OSError):  # it has ended, which the session finds out, too
                continue
            self._soak.samples.setdefault(name, []).append(sample)
        self.plans_s.clear()  # the session's own list is of no use here, and grows
        self._on_sample(self._soak)

    def _on_times(self, msg: JointState) -> None:
        times = CommandTimes(**dict(zip(msg.name, msg.position, strict=True)))
        if self._began_s is not None and times.plan is not None:
            self._soak.plans.append(Plan(self.passed_s, times.plan, times.overhead))

    def _on_verdict(self, msg: String) -> None:
        if self._began_s is not None:
            self._soak.ticks.append((self.passed_s, msg.data.startswith("hold")))


def sample_of(process: psutil.Process, time_s: float) -> Sample:
    """The process now; psutil.Error or OSError where it has ended."""
    maps = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    segments = {line[line.index("/dev/shm/") :] for line in maps if "/dev/shm/" in line}
    return Sample(
        time_s,
        process.memory_info().rss / 1e6,
        process.num_fds(),
        process.num_threads(),
        len(segments),
        _logs_mb(process.pid),
    )


def _logs_mb(pid: int) -> float:
    """Size of the log files that a process has open: its output, and the file of rclpy's logger."""
    logs: dict[Path, int] = {}
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if (target := handle.readlink()).suffix == ".log":
                logs[target] = handle.stat().st_size
        except OSError:  # it was closed meanwhile
            continue
    return sum(logs.values()) / 1e6


def soak_test(
    checkpoint: Path,
    task: str,
    minutes: float,
    *,
    runtime: RuntimeConfig,
    sample_s: float,
    max_steps: int,
    first_seed: int,
    on_sample: OnSample,
    soak: Soak,
    domain_id: int | None = None,
) -> None:
    """Run episodes for `minutes`, the last one to its end; fill `soak`. SessionError.

    `on_sample` is called after each sample. What was measured stays in `soak` where an exception ends the test.
    """
    bridge = bridge_for(checkpoint, task=task, mode="realtime", first_seed=first_seed, max_steps=max_steps)
    runtime = runtime.model_copy(update=serving_beside(bridge))
    known = instructions_of(checkpoint)
    timeout_s = _EPISODE_TIMEOUT_S + max_steps
    with SoakSession(checkpoint, bridge, runtime, sample_s, on_sample, soak, domain_id) as session:
        seed, told = first_seed, ""
        session.begin()
        while session.passed_s < 60.0 * minutes:
            sentence = instruction_for(known, bridge.task, seed)
            if sentence and sentence != told:
                session.instruct(sentence, known)
                told = sentence
            result = session.run_episode(seed, timeout_s)
            soak.episodes += 1
            soak.successes += result.success
            seed += 1
