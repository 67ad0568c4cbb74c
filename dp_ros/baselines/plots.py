"""Pictures of a comparison: paths around the disc, and curves over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from dp_ros.baselines.config import BimodalToyConfig
from dp_ros.baselines.toy.paths import GOAL, START, Array, demonstrations, judge, observations

NAMES = {
    "diffusion": "Diffusion",
    "regression": "Regression (MSE)",
    "mixture": "Mixture (MDN)",
    "implicit": "Implicit (IBC)",
}
LEFT, RIGHT, HIT, GREY = "#1f77b4", "#2ca02c", "#d62728", "#777777"
DPI = 110


def draw_paths(path: Path, config: BimodalToyConfig, paths: Mapping[str, Array]) -> None:
    """Draw demonstrations, then each method's paths (N, T_p, 2), sampled for one observation not trained on."""
    state = observations(config.observations, np.random.default_rng([config.data_seed, 1]))[:1]
    shown_state, shown = demonstrations(config)
    figure = Figure(figsize=(2.6 * (1 + len(paths)), 3.4), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, 1 + len(paths), sharex=True, sharey=True, squeeze=False)[0]
    _draw(axes[0], "Demonstrations", shown_state[:40], shown[:40], config)
    for axis, (method, sampled) in zip(axes[1:], paths.items(), strict=True):
        _draw(axis, NAMES[method], np.repeat(state, len(sampled), axis=0), sampled, config)
    figure.savefig(path)


def _draw(axis: Axes, title: str, state: Array, paths: Array, config: BimodalToyConfig) -> None:
    verdict = judge(state, paths, config)
    axis.add_patch(Circle((0, 0), config.obstacle_radius_m, color="#dddddd", zorder=0))
    for i, line in enumerate(np.concatenate([START.of(state)[:, None], paths], axis=1)):
        colour = LEFT if verdict.left[i] else RIGHT if verdict.right[i] else HIT
        axis.plot(*line.T, color=colour, linewidth=0.8, alpha=0.6)
        axis.plot(*GOAL.of(state[i]), "*", color="black", markersize=5)
    axis.set(title=title, xlim=(-1.05, 1.05), ylim=(-1.25, 1.25), aspect="equal", xticks=[], yticks=[])


def draw_curves(path: Path, runs: Sequence[Mapping[str, Any]]) -> None:
    """Draw loss and success over training: a column a method, a thin line a seed, a thick line for their mean."""
    methods = list(dict.fromkeys(run["method"] for run in runs))
    figure = Figure(figsize=(2.9 * len(methods), 4.2), dpi=DPI, layout="constrained")
    axes = figure.subplots(2, len(methods), sharex=True, squeeze=False)
    for column, method in enumerate(methods):
        own = [run for run in runs if run["method"] == method]
        _curves(axes[0, column], [_points(run.get("losses", run["evaluations"]), "loss") for run in own])
        _curves(axes[1, column], [_points(run["evaluations"], "success") for run in own])
        axes[0, column].set(title=NAMES[method])
        axes[1, column].set(xlabel="training step", ylim=(-0.03, 1.03))
    axes[0, 0].set(ylabel="the method's own loss")
    axes[1, 0].set(ylabel="success")
    figure.savefig(path)


def _points(points: Sequence[Mapping[str, float]], what: str) -> Array:
    return np.array([[point["step"], point[what]] for point in points])


def _curves(axis: Axes, curves: Sequence[Array]) -> None:
    for curve in curves:
        axis.plot(*curve.T, color=GREY, linewidth=0.8, alpha=0.7)
    if len({len(curve) for curve in curves}) == 1:
        axis.plot(*np.mean(curves, axis=0).T, color=LEFT, linewidth=2, marker=".")
    axis.grid(alpha=0.3)
