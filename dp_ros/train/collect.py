"""Demonstrations of the scripted experts to a dataset, on many processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from joblib import Parallel, delayed

from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import DatasetError
from dp_ros.schema import CollectConfig
from dp_ros.sim import experts
from dp_ros.sim.arm import ArmSpec, SimulatedArm, make_arm, simulator_of
from dp_ros.sim.experts import Demonstration
from dp_ros.train.workers import workers

_HOPELESS = 20  # seeds tried in a row without one success
_arms: dict[ArmSpec, SimulatedArm] = {}  # of this process: one, kept from episode to episode

OnEpisode = Callable[[str, int, int], None]  # task, episodes kept, seeds tried
# The episode with this index, of the config's task; None where the expert fails.
Demonstrate = Callable[[CollectConfig, int], Demonstration | None]


def arm_of_process(spec: ArmSpec) -> SimulatedArm:
    """The simulated arm of this process; the one of the task before is closed, because its renderer takes memory."""
    if spec not in _arms:
        while _arms:
            _arms.popitem()[1].close()
        _arms[spec] = make_arm(spec)
    return _arms[spec]


def by_expert(config: CollectConfig, index: int) -> Demonstration | None:
    return experts.demonstrate(
        arm_of_process(ArmSpec.of(config)),
        seed=config.first_seed + index,
        noise=config.noise[index % len(config.noise)],
        max_steps=config.max_steps,
        keep_steps=config.keep_steps,
    )


def collect(
    config: CollectConfig,
    path: str | Path,
    jobs: int = -1,
    on_episode: OnEpisode | None = None,
    cluster: str = "",
    tasks: Sequence[str] = (),
    demonstrate: Demonstrate = by_expert,
    weights_sha256: str = "",
) -> dict[str, tuple[int, int]]:
    """Fill the dataset at `path` with `config.episodes` successful episodes of each task.

    tasks: default the config's. The same call resumes a killed run; other tasks may be added to a dataset later.
    demonstrate: called in any process; `weights_sha256` is of the config's policy, where it has one.
    `jobs` processes here, or a `cluster` (see `workers`). `on_episode(task, kept, tried)` is called after each seed.
    Returns (kept, tried) of each task. Raises TaskError, DatasetError, ClusterError, RenderingError. A task whose
    expert fails does not stop the others. Episodes are written task by task in the order of their seeds, so the result
    does not depend on the number of processes.
    """
    settings = config.model_dump(mode="json", exclude={"episodes", "task"})
    if bool(config.policy) != bool(weights_sha256):
        raise ValueError("a policy in the config and the hash of its weights go together")
    if config.policy:
        settings["policy_sha256"] = weights_sha256
    configs = [config.model_copy(update={"task": task}) for task in tasks or (config.task,)]
    arm_of_process(ArmSpec.of(configs[0]))  # a wrong camera fails here, before the dataset exists
    rates = {simulator_of(each.task).rate_hz for each in configs}
    if len(rates) > 1:
        raise DatasetError(
            f"{path}: the tasks run at {', '.join(f'{rate:g}' for rate in sorted(rates))} Hz: give each rate an --out"
        )
    done: dict[str, tuple[int, int]] = {}
    hopeless: list[str] = []
    with DatasetWriter(path, {"rate_hz": rates.pop(), "collect": settings}) as writer:
        for each in configs:
            kept, _ = writer.progress(each.task)
            if writer.complete and kept > config.episodes:
                raise DatasetError(
                    f"{path}: already holds {kept} episodes, more than {config.episodes}: use another --out"
                )
        wanted = [each.task for each in configs]
        begun = [task for task, kept in writer.kept.items() if task not in wanted and kept < config.episodes]
        if begun and not writer.complete:
            raise DatasetError(
                f"{path}: {', '.join(begun)} was begun and has fewer than {config.episodes} episodes: add it to --task"
            )
        with workers(jobs, cluster) as pool:
            for each in configs:
                done[each.task] = _collect_task(each, writer, pool, on_episode, demonstrate)
                if done[each.task][0] < config.episodes:
                    hopeless.append(each.task)
        if hopeless:
            sooner = f" or lower policy_ticks {config.policy_ticks}" if config.policy else ""
            others = f"; the other {len(configs) - len(hopeless)} tasks are kept"
            raise DatasetError(
                f"{path}: the expert of {', '.join(hopeless)} failed {_HOPELESS} times in a row: "
                f"lower noise {list(config.noise)} or raise max_steps {config.max_steps}{sooner}"
                f"{others if len(configs) > len(hopeless) else ''}"
            )
        writer.finish()
    return done


def _collect_task(
    config: CollectConfig,
    writer: DatasetWriter,
    pool: Parallel,
    on_episode: OnEpisode | None,
    demonstrate: Demonstrate,
) -> tuple[int, int]:
    """(kept, tried) of one task, with fewer episodes than wanted where its expert fails again and again."""
    kept, tried = writer.progress(config.task)
    failures = 0
    while kept < config.episodes and failures < _HOPELESS:
        wave = range(tried, tried + config.episodes - kept)
        for demonstration in pool(delayed(demonstrate)(config, index) for index in wave):
            tried += 1
            failures = 0 if demonstration else failures + 1
            if demonstration:
                kept += 1
                writer.append(demonstration, tried, config.task)
            if on_episode:
                on_episode(config.task, kept, tried)
    return kept, tried
