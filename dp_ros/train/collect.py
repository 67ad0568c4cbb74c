"""Demonstrations of the scripted experts to a dataset, on many processes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from joblib import delayed

from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import DatasetError
from dp_ros.schema import CollectConfig
from dp_ros.sim.arm import ArmSpec, SimulatedArm, make_arm
from dp_ros.sim.experts import Demonstration, demonstrate
from dp_ros.train.workers import workers

_HOPELESS = 20  # seeds tried in a row without one success


@lru_cache(maxsize=1)
def _arm(spec: ArmSpec) -> SimulatedArm:
    """The simulated arm of this process, kept from episode to episode."""
    return make_arm(spec)


def _demonstrate(config: CollectConfig, index: int) -> Demonstration | None:
    return demonstrate(
        _arm(ArmSpec.of(config)),
        seed=config.first_seed + index,
        noise=config.noise[index % len(config.noise)],
        max_steps=config.max_steps,
        keep_steps=config.keep_steps,
    )


def collect(
    config: CollectConfig,
    path: str | Path,
    jobs: int = -1,
    on_episode: Callable[[int, int], None] | None = None,
    cluster: str = "",
) -> tuple[int, int]:
    """Fill the dataset at `path` with `config.episodes` successful episodes; the same call resumes a killed run.

    `jobs` processes here, or a `cluster` (see `workers`). `on_episode(kept, tried)` is called after each seed.
    Returns (kept, tried). Raises TaskError, DatasetError, ClusterError, RenderingError. Episodes are written in the
    order of their seeds, so the result does not depend on the number of processes.
    """
    settings = config.model_dump(mode="json", exclude={"episodes"})
    failures = 0
    rate_hz = _arm(ArmSpec.of(config)).rate_hz  # a wrong task or camera fails here, before the dataset exists
    with DatasetWriter(path, {"rate_hz": rate_hz, "collect": settings}) as writer:
        kept, tried = writer.episodes, writer.tried
        if writer.complete and kept > config.episodes:
            raise DatasetError(
                f"{path}: already holds {kept} episodes, more than {config.episodes}: use another --out"
            )
        with workers(jobs, cluster) as pool:
            while kept < config.episodes:
                wave = range(tried, tried + config.episodes - kept)
                for demonstration in pool(delayed(_demonstrate)(config, index) for index in wave):
                    tried += 1
                    failures = 0 if demonstration else failures + 1
                    if demonstration:
                        kept += 1
                        writer.append(demonstration, tried)
                    if on_episode:
                        on_episode(kept, tried)
                if failures >= _HOPELESS:
                    raise DatasetError(
                        f"{path}: the expert of {config.task} failed {failures} times in a row: "
                        f"lower noise {list(config.noise)} or raise max_steps {config.max_steps}"
                    )
        writer.finish()
    return kept, tried
