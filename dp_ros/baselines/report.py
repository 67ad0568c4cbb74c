"""Report of a comparison: Markdown, with its pictures in the same folder. Every number comes from results.json."""

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
    "Losses: diffusion, squared error of the predicted noise; regression, squared error of the chunk; mixture, "
    "negative log-likelihood in nats per number of the chunk; implicit, InfoNCE. The losses of different methods "
    "cannot be compared."
)


def write_report(
    out: Path,
    config: ComparisonConfig,
    results: Mapping[str, Any],
    toy: Sequence[Mapping[str, Any]],
) -> Path:
    """Write report.md and its pictures to `out`. `toy` holds the toy's runs with the paths to draw."""
    lines = ["# Diffusion Policy and the methods it is compared with", ""]
    if toy:
        # Reversed, so that the first seed of each method stays.
        first = {run["method"]: np.array(run["paths_m"])[:, 1:] for run in reversed(toy)}
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
        "## The bimodal toy",
        "",
        f"A path of {toy.T_p} points leads from a start around a disc to a goal. Half of the {toy.demonstrations} "
        "demonstrations pass on the left and half on the right, and the observation does not tell the side. All "
        f"methods observe start and goal, train on the same batches for {toy.steps} steps, and have about the same "
        "number of weights. The diffusion network is the U-Net that is also used on the arm; the other networks are "
        "residual MLPs.",
        "",
        "![Sampled paths](toy_paths.png)",
        "",
        "*Blue: passes on the left. Green: passes on the right. Red: hits the disc. The samples are of the first seed, "
        "for one pair of start and goal that was not trained on.*",
        "",
        "| method | weights | left | right | rarer side | collisions | success | success, second half |",
        "|---|---|---|---|---|---|---|---|",
        *(_toy_row(method, row) for method, row in summary.items()),
        "",
        f"Shares are means over {config.seeds} seeds, with the lowest and the highest in brackets. Each seed is "
        f"evaluated on {toy.observations} pairs of start and goal, with {toy.final_samples} samples for each pair.",
        "",
        "- *Rarer side*: the share of the less frequent side among the samples of one pair, averaged over the pairs. A "
        f"fair coin gives {fair_minority(toy.final_samples):.0%}; one side for each pair gives 0.",
        f"- *Success*: the path does not touch the disc and ends within {toy.goal_radius_m:g} m of the goal.",
        "- *Success, second half of training*: the lowest and the highest success of any seed at any evaluation in the "
        "second half. A wide range means that the result depends on when training stops.",
        "",
        "![Loss and success over training](toy_curves.png)",
        "",
        f"*Grey: one line for each seed. Blue: their mean. {LOSSES}*",
        "",
    ]  # fmt: skip


def fair_minority(samples: int) -> float:
    """Expected share of the rarer side in `samples` tosses of a fair coin: below 0.5, because tosses are few."""
    total = sum(math.comb(samples, n) * min(n, samples - n) for n in range(samples + 1))
    return float(total / samples / 2**samples)


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
        f"All methods train on the same windows, with the same encoder, for {training['steps']} steps of "
        f"{training['batch_size']} windows. There are {len(steps)} evaluations during training, each of "
        f"{config.arm.episodes} in-process episodes on seeds that were not trained on. The brackets give Wilson's 95 % "
        "interval.",
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
