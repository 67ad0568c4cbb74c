"""Episodes of one checkpoint on many seeds, in this process or on several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import joblib

from dp_ros.evaluation.disturbances import NONE, Disturbance
from dp_ros.evaluation.episode import record, replay, run_episode
from dp_ros.evaluation.results import EpisodeResult, Report
from dp_ros.evaluation.told import InstructionKind, embedding_of, instruction_for, with_sentence
from dp_ros.evaluation.trace import Trace
from dp_ros.evaluation.video_frames import Picture
from dp_ros.inference.engine import choose_engine, load_engine
from dp_ros.policy.checkpoint_config import bridge_for, check_weights, instructions_of, weights_sha256
from dp_ros.schema import ConfigError, PolicyConfig, RuntimeConfig
from dp_ros.sim.arm import ArmSpec, SimulatedArm, check_task, make_arm, simulator_of, spectator_of
from dp_ros.train.workers import workers


@dataclass(frozen=True)
class EvalConfig:
    """Settings that all episodes of an evaluation share."""

    checkpoint: str
    task: str
    runtime: RuntimeConfig
    max_steps: int
    spectator: str = ""  # camera that films every episode; empty: none
    weights_sha256: str = ""  # of the only weights that may be loaded; empty: those found when the run begins
    # For a policy that is told what to do: one sentence; empty: for each seed one of `instructions`.
    instruction: str = ""
    instructions: InstructionKind = "known"


@dataclass(frozen=True)
class Episode:
    """One episode that has been run."""

    result: EpisodeResult
    trace: Trace
    pictures: list[Picture]  # `video_fps` of them a second; empty without a spectator
    disturbance: Disturbance = NONE


class EpisodeRunner:
    """A policy and its simulated arm, loaded once for many episodes."""

    def __init__(self, setting: EvalConfig) -> None:
        """ConfigError (a policy of another rate), TaskError, CheckpointError, RenderingError."""
        self.setting = setting
        self.engine = load_engine(setting.checkpoint, setting.runtime)
        if setting.weights_sha256:  # the hash is read before the weights, so they are not older
            check_weights(setting.checkpoint, setting.weights_sha256)
        check_rate(self.engine.config, setting.task, setting.checkpoint)
        self.instructions = instructions_of(setting.checkpoint)
        self.arm = simulator(setting.checkpoint, setting.task)

    def run(self, seed: int, disturbance: Disturbance = NONE) -> Episode:
        setting = self.setting
        pictures: list[Picture] = []
        draw = record(pictures, self.arm, setting.spectator) if setting.spectator else None
        sentence = instruction_for(
            self.instructions, setting.task, seed, setting.instruction, setting.instructions
        )
        embedding = embedding_of(self.instructions, sentence) if self.instructions else None
        result, trace = run_episode(
            self.arm,
            self.engine,
            self.engine.config,
            setting.runtime,
            seed,
            setting.max_steps,
            draw,
            disturbance,
            embedding,
        )
        if sentence:
            result = with_sentence(result, sentence, is_understood=embedding is not None)
        return Episode(result, trace, pictures, disturbance)

    def close(self) -> None:
        self.arm.close()


def check_rate(policy: PolicyConfig, task: str, where: str) -> None:
    """ConfigError where the policy runs at another rate than the arm of `task`; `where` names the policy."""
    arm_hz = simulator_of(task).rate_hz
    if policy.rate_hz != arm_hz:
        raise ConfigError(f"{where}: runs at {policy.rate_hz:g} Hz, the simulated arm at {arm_hz:g} Hz")


def simulator(checkpoint: str | Path, task: str) -> SimulatedArm:
    """The arm with the cameras that the weights know."""
    return make_arm(ArmSpec.of(bridge_for(checkpoint, task=task)))


def run_episodes(
    setting: EvalConfig, episodes: Sequence[tuple[int, Disturbance]], jobs: int = 1
) -> Iterator[Episode]:
    """Each (seed, disturbance) in order, on `jobs` processes (-1: one per core).

    The outcome does not depend on `jobs`, to the bit where `runtime.threads` is the same. Several processes share the
    cores, unless `runtime.threads` says how many threads each has. CheckpointError where the weights are replaced
    before every process has loaded them.
    """
    jobs = worker_count(jobs, len(episodes))
    setting = replace(setting, runtime=choose_engine(setting.checkpoint, setting.runtime)[0])
    if not setting.weights_sha256:
        setting = replace(setting, weights_sha256=weights_sha256(setting.checkpoint))
    if jobs == 1:
        runner = EpisodeRunner(setting)
        try:
            for seed, disturbance in episodes:
                yield runner.run(seed, disturbance)
        finally:
            runner.close()
        return
    threads = worker_threads(setting.runtime, jobs)
    setting = replace(setting, runtime=setting.runtime.model_copy(update={"threads": threads}))
    with workers(jobs, batch_size=1) as pool:
        yield from pool(joblib.delayed(_run)(setting, *episode) for episode in episodes)


def worker_count(jobs: int, episodes: int) -> int:
    """Number of processes for so many episodes; ConfigError for 0 jobs."""
    if jobs == 0:
        raise ConfigError("jobs 0: give a number of processes, or -1 for one per core")
    return max(1, min(int(joblib.effective_n_jobs(jobs)), episodes))


def worker_threads(runtime: RuntimeConfig, jobs: int) -> int:
    """Torch's threads in each of `jobs` workers; 0 is torch's choice, for the only one."""
    return runtime.threads or (max(1, joblib.cpu_count() // jobs) if jobs > 1 else 0)


def _run(setting: EvalConfig, seed: int, disturbance: Disturbance) -> Episode:
    """One episode in a worker process."""
    # Mesa's rasteriser starts a thread for every core, in every worker; read when the first picture is drawn.
    os.environ.setdefault("LP_NUM_THREADS", str(setting.runtime.threads))
    return _runner(setting).run(seed, disturbance)


@lru_cache(maxsize=1)
def _runner(setting: EvalConfig) -> EpisodeRunner:
    """The runner of this worker process, kept from episode to episode while the weights are the same."""
    return EpisodeRunner(setting)


def evaluate_in_process(
    checkpoint: str | Path,
    task: str,
    seeds: Sequence[int],
    *,
    max_steps: int,
    runtime: RuntimeConfig,
    on_episode: Callable[[EpisodeResult], None] | None = None,
    on_video: Callable[[EpisodeResult, list[Picture]], None] | None = None,
    spectator: str = "auto",
    jobs: int = 1,
    weights_sha256: str = "",
    instruction: str = "",
    instructions: InstructionKind = "known",
) -> Report:
    """One lockstep episode per seed; `on_episode` is called as each ends, in the order of the seeds.

    `on_video` gets each episode's pictures, `video_fps` of them a second: uint8 (480, 720, 3), the camera
    `spectator` (auto: the simulator's own) beside what the policy sees. The others: see EvalConfig. Raises the errors
    of EpisodeRunner and run_episodes.
    """
    camera = spectator_of(task, spectator) if on_video else ""
    setting = EvalConfig(
        str(checkpoint),
        check_task(task),
        runtime,
        max_steps,
        camera,
        weights_sha256,
        instruction,
        instructions,
    )
    report = Report(setting.task, setting.checkpoint, "in-process", runtime.policy_seed)
    for episode in run_episodes(setting, [(seed, NONE) for seed in seeds], jobs):
        report.results.append(episode.result)
        report.traces.append(episode.trace)
        report.plan_s.extend(episode.trace.plan_s)
        if on_episode:
            on_episode(episode.result)
        if on_video:
            on_video(episode.result, episode.pictures)
    return report


def render_videos(
    setting: EvalConfig, chosen: Sequence[tuple[int, Trace, Disturbance]], spectator: str = "auto"
) -> Iterator[list[Picture]]:
    """Pictures of episodes that have been run, drawn by replaying their traces; `spectator`: evaluate_in_process."""
    arm = simulator(setting.checkpoint, setting.task)
    camera = spectator_of(setting.task, spectator)
    try:
        for seed, trace, disturbance in chosen:
            pictures: list[Picture] = []
            again = replay(arm, seed, trace, disturbance, record(pictures, arm, camera))
            assert (again.ee_position_m == trace.ee_position_m).all(), f"seed {seed} does not repeat itself"
            yield pictures
    finally:
        arm.close()
