"""Demonstrations of the scripted experts to a dataset, on many processes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from joblib import delayed

from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import DatasetError
from dp_ros.schema import CollectConfig
from dp_ros.sim.experts import Demonstration, demonstrate
from dp_ros.sim.metaworld_arm import RATE_HZ, MetaworldArm
from dp_ros.train.workers import workers

_HOPELESS = 20  # seeds tried in a row without one success


@lru_cache(maxsize=1)
def _arm(task: str, cameras: tuple[str, ...], width_px: int, height_px: int, markers: bool) -> MetaworldArm:
    """One simulator a process, kept from episode to episode."""
    return MetaworldArm(task, cameras, width_px, height_px, markers)


def _demonstrate(config: CollectConfig, index: int) -> Demonstration | None:
    arm = _arm(config.task, config.cameras, config.width_px, config.height_px, config.markers)
    return demonstrate(
        arm,
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
    """Fill the dataset at `path` with `config.episodes` successful episodes; a killed run goes on where it was.

    `jobs` processes here, or a `cluster` (see `workers`). `on_episode(kept, tried)` is called after each seed.
    Returns (kept, tried).
    Episodes are written in the order of their seeds, so the result does not depend on who made them.
    """
    settings = config.model_dump(mode="json", exclude={"episodes"})
    failures = 0
    # A wrong task or camera fails before the dataset exists.
    _arm(config.task, config.cameras, config.width_px, config.height_px, config.markers)
    with DatasetWriter(path, {"rate_hz": RATE_HZ, "collect": settings}) as writer:
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
