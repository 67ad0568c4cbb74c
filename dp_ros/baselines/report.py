"""What a comparison found, as Markdown with pictures beside it. Every number comes from results.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dp_ros.baselines.config import ComparisonConfig
from dp_ros.baselines.plots import NAMES, draw_curves, draw_paths

REPORT = "report.md"

LOSSES = (
    "Diffusion: squared error of the predicted noise. Regression: squared error of the chunk. Mixture: negative "
    "log-likelihood, nats for each number of the chunk. Implicit: InfoNCE. They are not comparable with one another."
)


def write_report(
    out: Path,
    config: ComparisonConfig,
    results: Mapping[str, Any],
    toy: Sequence[Mapping[str, Any]],
) -> Path:
    """report.md and its pictures in `out`; `toy` are the runs with the paths to draw."""
    lines = ["# Diffusion Policy and the methods it argues with", ""]
    if toy:
        first = {run["method"]: np.array(run["paths_m"])[:, 1:] for run in reversed(toy)}  # of the first seed
        draw_paths(
            out / "toy_paths.png",
            config.toy,
            {method: first[method] for method in config.methods if method in first},
        )
        draw_curves(out / "toy_curves.png", results["toy"]["runs"])
        lines += _toy(config, results["toy"]["summary"])
    if results["arm"]["runs"]:
        draw_curves(out / "arm_curves.png", results["arm"]["runs"])
        lines += _arm(config, results["arm"]["runs"])
    lines += [f"Made by dp_ros {results['dp_ros']}, commit {results['commit'] or 'unknown'}.", ""]
    (out / REPORT).write_text("\n".join(lines))
    return out / REPORT


def _toy(config: ComparisonConfig, summary: Mapping[str, Any]) -> list[str]:
    toy = config.toy
    return [
        "## Two right answers",
        "",
        f"A path of {toy.T_p} points leads from a start round a disc to a goal. Of {toy.demonstrations} "
        "demonstrations half pass on the left and half on the right, and nothing that is observed says which. Every "
        f"method sees the same start and goal, is trained on the same batches for {toy.steps} steps and has as many "
        "weights; the diffusion network is the U-Net that drives the arm, the others' is a residual MLP.",
        "",
        "![Sampled paths](toy_paths.png)",
        "",
        "*Blue passes on the left, green on the right, red hits the disc. Samples of the first seed for one start and "
        "goal that were not trained on.*",
        "",
        "| method | weights | left | right | rarer side | collisions | success | success, second half of training |",
        "|---|---|---|---|---|---|---|---|",
        *(_toy_row(method, row) for method, row in summary.items()),
        "",
        f"Mean over {config.seeds} seeds, in brackets the lowest and the highest; {toy.observations} starts and "
        f"goals, {toy.final_samples} samples of each. *Rarer side*: the share of the rarer side for one and the "
        f"same start and goal, averaged over them: a fair coin gives {fair_minority(toy.final_samples):.0%}, one "
        "answer each 0. *Success*: the "
        f"disc is not touched and the path ends within {toy.goal_radius_m:g} m of the goal. *Second half*: the "
        "lowest and the highest success of any seed at any evaluation from there on: what stopping at an unlucky "
        "moment costs.",
        "",
        "![Loss and success over training](toy_curves.png)",
        "",
        f"*Each grey line is a seed. {LOSSES}*",
        "",
    ]  # fmt: skip


def fair_minority(samples: int) -> float:
    """Expected share of the rarer side in so many tosses of a fair coin: below a half, as tosses are few."""
    return sum(math.comb(samples, n) * min(n, samples - n) for n in range(samples + 1)) / samples / 2**samples


def _toy_row(method: str, row: Mapping[str, Any]) -> str:
    late = row["late_success"]
    cells = (
        NAMES[method],
        f"{row['parameters']:,}",
        *(_range(row[share]) for share in ("left", "right", "minority", "collided", "success")),
        f"{late['low']:.0%} to {late['high']:.0%}",
    )
    return f"| {' | '.join(cells)} |"


def _range(share: Mapping[str, float]) -> str:
    return f"{share['mean']:.1%} [{share['low']:.1%}, {share['high']:.1%}]"


def _arm(config: ComparisonConfig, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    training = runs[0]["settings"]["training"]
    steps = [point["step"] for point in runs[0]["evaluations"]]
    return [
        f"## {runs[0]['task']}",
        "",
        f"The same windows, encoder and {training['steps']} steps of {training['batch_size']} windows for every "
        f"method; {config.arm.episodes} episodes on seeds that were not trained on, in-process, at each of "
        f"{len(steps)} points of training. In brackets Wilson's 95 % interval.",
        "",
        "| method | seed | weights | " + " | ".join(f"step {step}" for step in steps) + " |",
        "|---|---|---|" + "---|" * len(steps),
        *(_arm_row(run) for run in runs),
        "",
        "![Loss and success over training](arm_curves.png)",
        "",
        f"*{LOSSES}*",
        "",
    ]  # fmt: skip


def _arm_row(run: Mapping[str, Any]) -> str:
    cells = [NAMES[run["method"]], str(run["seed"]), f"{run['parameters']:,}"]
    for point in run["evaluations"]:
        low, high = point["wilson"]
        cells.append(f"{point['successes']}/{point['episodes']} [{low:.0%}, {high:.0%}]")
    return f"| {' | '.join(cells)} |"
