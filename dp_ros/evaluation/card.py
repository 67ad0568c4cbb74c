"""The card of a checkpoint: what it is, how it was made, what was measured. Written from files, never by hand."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dp_ros.evaluation.plots import learning_curve
from dp_ros.policy.checkpoint import CARD
from dp_ros.policy.checkpoint_config import policy_config, read_config

CURVE = "curve.png"


def card_text(folder: str | Path, name: str, reports: Sequence[Mapping[str, Any]] = ()) -> str:
    """The card of the checkpoint in `folder`, Markdown; `reports` are what `dp_ros eval --json` wrote."""
    config, policy = read_config(folder), policy_config(folder)
    training, data = config["training"], config["training"].get("data", {})
    settings = training.get("config", {})
    encoder, horizons, diffusion = policy.encoder, policy.horizons, policy.diffusion
    size_mb = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
    eyes = ", ".join(encoder.cameras) + (
        " and proprioception" if encoder.proprioception else ", nothing else"
    )
    lines = [
        f"# {name}",
        "",
        f"Diffusion Policy ({policy.network}) for Metaworld's {policy.task}. {size_mb:.0f} MB, "
        f"weights in {config['weights_dtype']}.",
        "",
        f"- **Sees** {eyes}: {encoder.width_px}x{encoder.height_px} px, T_o = {horizons.T_o} frames "
        f"at {policy.rate_hz:g} Hz; goal markers {'drawn' if config['scene'].get('markers') else 'hidden'}.",
        f"- **Does** {policy.action.position} end-effector positions and gripper: "
        f"T_p = {horizons.T_p} predicted, T_a = {horizons.T_a} executed.",
        f"- **Samples** by {diffusion.sampler.upper()}, "
        f"{diffusion.sampler_iterations} of {diffusion.iterations} iterations.",
        "",
        "## Data",
        "",
        f"{data.get('episodes')} successful episodes of the scripted expert, {data.get('ticks')} ticks, "
        f"seeds from {data.get('first_seed')}; noise injected into the executed action by turns "
        f"{data.get('noise')}, labels clean.",
        "",
        f"    {collect_command(data)}",
        "",
        "## Training",
        "",
        f"{training.get('step')} steps of {settings.get('batch_size')} windows, "
        f"{settings.get('noise_samples')} diffusion targets each; learning rate {settings.get('lr')}, "
        f"{settings.get('precision')}, seed {settings.get('seed')}; "
        f"dp_ros {training.get('dp_ros')}, commit {training.get('commit', 'unknown')}.{_effort(training)}",
        "",
        f"    {train_command(training)}",
        "",
        *([f"![Loss over the steps]({CURVE})", ""] if training.get("history") else []),
        "## Measured",
        "",
    ]
    if reports:
        lines += [
            "| transport | seeds | success | 95 % interval | plan p50 / p99 | command |",
            "|---|---|---|---|---|---|",
            *(_row(name, report) for report in reports),
        ]
    else:
        lines += [f"Nothing yet: `dp_ros eval models/{name} --episodes 100 --json FILE`, then `dp_ros card`."]
    lines += [
        "",
        "## Limits",
        "",
        "One task, one simulated robot, one camera set-up; never run on hardware. Success is Metaworld's own "
        "measure within the time limit of 200 ticks. Latencies are of the machine the command ran on.",
    ]
    return "\n".join(lines) + "\n"


def write_card(folder: str | Path, name: str, reports: Sequence[Mapping[str, Any]] = ()) -> None:
    """Replace card.md, and the picture of the loss that it shows; a reader sees the old ones or the new ones."""
    folder = Path(folder)
    history = read_config(folder)["training"].get("history")
    if history:
        _replace(folder / CURVE, learning_curve(history))
    _replace(folder / CARD, card_text(folder, name, reports).encode())


def _replace(path: Path, content: bytes) -> None:
    staging = path.with_name(f".{path.name}")
    staging.write_bytes(content)
    os.replace(staging, path)


def _effort(training: Mapping[str, Any]) -> str:
    """How long it took, on what; "" where the run did not keep it."""
    history = training.get("history")
    if not history:
        return ""
    return f" {history['seconds'] / 60:.0f} minutes on {training['hardware']}; last loss {history['loss'][-1][1]:.3f}."


def collect_command(data: Mapping[str, Any]) -> str:
    """The `dp_ros collect` call that makes this data."""
    cameras = " ".join(f"--camera {camera}" for camera in data.get("cameras", ()))
    noise = ",".join(f"{value:g}" for value in data.get("noise", ()))
    size = f"{data.get('width_px')}x{data.get('height_px')}"
    markers = " --markers" if data.get("markers") else ""
    return (
        f"dp_ros collect --task {data.get('task')} --out DATA --episodes {data.get('episodes')} {cameras} "
        f"--size {size} --noise {noise} --seed {data.get('first_seed')}{markers}"
    )


def train_command(training: Mapping[str, Any]) -> str:
    """The `dp_ros train` call that makes these weights from that data."""
    command = training.get("command", {})
    config = Path(command.get("config", "cpu.yaml")).stem
    settings = "".join(f" --set {text}" for text in command.get("set", ()))
    return f"dp_ros train --config {config} --data DATA --out RUN{settings}"


def _row(name: str, report: Mapping[str, Any]) -> str:
    seeds = [episode["seed"] for episode in report["per_episode"]]
    transport = "" if report["transport"] == "in-process" else f" --transport {report['transport']}"
    command = f"dp_ros eval models/{name} --episodes {len(seeds)} --seed {seeds[0]}{transport}"
    successes = sum(episode["success"] for episode in report["per_episode"])
    plan = report["plan_ms"]
    cells = (
        report["transport"],
        f"{seeds[0]} to {seeds[-1]}",
        f"{successes}/{len(seeds)} = {report['success_rate']:.0%}",
        f"[{report['wilson_low']:.0%}, {report['wilson_high']:.0%}]",
        f"{plan['p50']:.0f} / {plan['p99']:.0f} ms",
        f"`{command}`",
    )
    return f"| {' | '.join(cells)} |"
