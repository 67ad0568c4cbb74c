"""All runs on the toy, each kept in a file of its own, and results.json, from which the report is made.

No simulator is imported here: the toy runs without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib import delayed

from dp_ros import __version__
from dp_ros.baselines.config import BimodalToyConfig, ComparisonConfig, Method
from dp_ros.baselines.toy.evaluation import run_toy
from dp_ros.documents import read_json
from dp_ros.files import write_json
from dp_ros.schema import ConfigError
from dp_ros.train.run import git_commit
from dp_ros.train.workers import workers

RESULTS = "results.json"
SHARES = ("left", "right", "neither", "minority", "collided", "success")


def compare_on_toy(
    config: ComparisonConfig, out: Path, jobs: int, on_part: Callable[[int, int], None] | None = None
) -> list[dict[str, Any]]:
    """All runs on the toy, in the order of methods and seeds. A run whose file is in `out` is not repeated.

    `on_part(done, total)` is called at the beginning and after each run. Results do not depend on `jobs`. ConfigError
    where `out` holds runs with other settings.
    """
    wanted = [(method, seed) for method in config.methods for seed in range(config.seeds)]
    parts = {key: out / "toy" / f"{key[0]}-{key[1]}.json" for key in wanted}
    settings = config.toy.model_dump(mode="json")
    for path in parts.values():
        if path.exists() and read_json(path)["settings"] != settings:
            raise ConfigError(f"{path}: was made with other settings: give the same ones, or another --out")
    missing = [key for key in wanted if not parts[key].exists()]
    done = len(wanted) - len(missing)
    if on_part:
        on_part(done, len(wanted))
    # The slowest methods first, so that no core waits for a long run at the end.
    missing.sort(key=lambda key: key[0] not in ("implicit", "diffusion"))
    with workers(jobs, return_as="generator_unordered") as pool:
        for run in pool(delayed(_toy_part)(config.toy, *key) for key in missing):
            write_json(parts[run["method"], run["seed"]], {**run, "settings": settings})
            done += 1
            if on_part:
                on_part(done, len(wanted))
    return [read_json(path) for path in parts.values()]


def _toy_part(config: BimodalToyConfig, method: Method, seed: int) -> dict[str, Any]:
    return run_toy(config, method, seed)


def write_results(
    out: Path, config: ComparisonConfig, toy: Sequence[dict[str, Any]], arm: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Write results.json: settings, every run, and the summaries that the report shows. Returns its content."""
    results = {
        "dp_ros": __version__,
        "commit": git_commit(),
        "settings": config.model_dump(mode="json"),
        "toy": {
            "summary": summarise_toy(toy),
            "runs": [
                {key: value for key, value in run.items() if key not in ("paths_m", "settings")}
                for run in toy
            ],
        },
        "arm": {"runs": list(arm)},
    }
    write_json(out / RESULTS, results)
    return results


def summarise_toy(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For each method: the shares of the last evaluation, as mean and range over seeds, and the range of its success
    in the second half of training."""
    summary: dict[str, Any] = {}
    for method in dict.fromkeys(run["method"] for run in runs):
        own = [run for run in runs if run["method"] == method]
        last = [run["evaluations"][-1] for run in own]
        success = np.array([[point["success"] for point in run["evaluations"]] for run in own])
        late = success[:, success.shape[1] // 2 :]
        summary[method] = {
            "parameters": own[0]["parameters"],
            "seeds": len(own),
            **{
                share: {
                    "mean": float(np.mean([end[share] for end in last])),
                    "low": min(end[share] for end in last),
                    "high": max(end[share] for end in last),
                }
                for share in SHARES
            },
            "late_success": {"low": float(late.min()), "high": float(late.max())},
        }
    return summary
