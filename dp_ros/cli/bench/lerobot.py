"""Training step of dp_ros against that of LeRobot: same network sizes, batch size and precision.

Each side trains in a process of its own; the sides take turns step by step, so that other load on the machine slows
them equally. The dp_ros step includes reading its pictures from a dataset, averaging the weights (EMA) and logging.
LeRobot's step is `DiffusionModel.compute_loss` on a batch that is ready, then the optimiser. Needs LeRobot beside the
venv (`make lerobot`).
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Literal

from dp_ros.actions import STATE_DIM
from dp_ros.cli.bench.lerobot_model import find_overlay, make_lerobot_model
from dp_ros.cli.bench.sides import Work, sides
from dp_ros.cli.errors import USAGE, CliError
from dp_ros.schema import Settings, TrainConfig, override

LIKE_FOR_LIKE = {  # settings that both sides can have
    "policy": {
        "encoder": {"height_px": 96, "width_px": 96, "crop_height_px": 84, "crop_width_px": 84, "stages": 4},
        "unet": {"channels": [128, 256, 512], "step_embedding_dim": 128},
    },
    "batch_size": 64,
    "run_length": 4,
}
WARM_UP = 2  # steps of each side that are not measured
ENDLESS = 1_000_000  # steps: the parent ends the training
LEROBOT_GRADIENT_CLIP = 10.0  # its training's default
Precision = Literal["f32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("f32", "bf16")
# Milliseconds of a step: wall time, and processor time of all threads, which other load disturbs less.
Step = tuple[float, float]


def precisions_of(settings: Settings[TrainConfig]) -> tuple[Precision, ...]:
    """The precisions to compare in: the one that was set, otherwise both; f32 where the processor multiplies no bf16.
    CliError for one that LeRobot lacks here."""
    from dp_ros.train.device import computes_bf16, find_device

    wanted, given = PRECISIONS, settings.config.precision
    if settings.is_given("precision"):
        if given == "tf32":
            choices = " or ".join(PRECISIONS)
            raise CliError(f"precision {given} ({settings.source('precision')}): choose {choices}", USAGE)
        wanted = (given,)
    device = find_device(settings.config.device)
    return tuple(dict.fromkeys("bf16" if computes_bf16(device, each) else "f32" for each in wanted))


def compare_training(config: TrainConfig, precision: Precision, rounds: int) -> dict[str, Any]:
    """Milliseconds of every step of LeRobot, of dp_ros, and of dp_ros with shared frames; ratios of the medians."""
    overlay = find_overlay()
    config = override(config, {"precision": precision})
    ours = {f"run_length {n}": override(config, {"run_length": n}) for n in sorted({1, config.run_length})}
    works: dict[str, Work] = {"lerobot": partial(_lerobot, overlay, config)}
    works |= {name: partial(_ours, settings) for name, settings in ours.items()}
    with sides("the training", works) as running:
        for side in running.values():
            for _ in range(WARM_UP):
                side.turn()
        samples: dict[str, list[Step]] = {name: [] for name in running}
        order = list(running)
        for _ in range(rounds):
            for name in order:
                samples[name].append(running[name].turn())
            order.reverse()  # so that no side always runs after the same other
    data: dict[str, Any] = {"precision": precision, "batch_size": config.batch_size}
    for i, clock in enumerate(("wall", "processor")):
        medians = {side: median(step[i] for step in steps) for side, steps in samples.items()}
        data[clock] = {
            "samples_ms": {side: [step[i] for step in steps] for side, steps in samples.items()},
            "median_ms": medians,
            "ratio": {side: medians["lerobot"] / medians[side] for side in ours},
        }
    return data


def _ours(config: TrainConfig, pipe: Connection) -> None:
    """Steps of dp_ros's training, each after a message."""
    from dp_ros.cli.bench.train import noise_windows
    from dp_ros.train.progress import Progress
    from dp_ros.train.trainer import Trainer

    config = override(config, {"steps": ENDLESS, "log_every": 1, "checkpoint_every": ENDLESS})

    began_s = 0.0

    def on_step(progress: Progress) -> None:
        nonlocal began_s
        pipe.send((progress.step_s * 1e3, (time.process_time() - began_s) * 1e3))
        pipe.recv()
        began_s = time.process_time()

    with tempfile.TemporaryDirectory(prefix="dp_ros-bench-") as folder:
        trainer = Trainer(config, noise_windows(config), Path(folder) / "run")
        pipe.recv()
        began_s = time.process_time()
        trainer.run(on_step)


def _lerobot(overlay: Path, config: TrainConfig, pipe: Connection) -> None:
    """Steps of LeRobot's training: forward (with its crop), backward, clip, Adam."""
    import torch

    policy, encoder = config.policy, config.policy.encoder
    horizons, action_dim, views = policy.horizons, policy.action.dim, len(encoder.cameras)
    picture = (3, encoder.height_px, encoder.width_px)
    device = torch.device("cuda" if torch.cuda.is_available() and config.device != "cpu" else "cpu")
    model = make_lerobot_model(overlay, policy).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, betas=config.betas)
    size = config.batch_size
    batch = {
        "observation.state": torch.rand(size, horizons.T_o, STATE_DIM, device=device),
        "observation.images": torch.rand(size, horizons.T_o, views, *picture, device=device),
        "action": torch.rand(size, horizons.T_p, action_dim, device=device) * 2 - 1,
        "action_is_pad": torch.zeros(size, horizons.T_p, dtype=torch.bool, device=device),
    }
    while True:
        pipe.recv()
        began = time.perf_counter(), time.process_time()
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            loss = model.compute_loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LEROBOT_GRADIENT_CLIP)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        ended = time.perf_counter(), time.process_time()
        pipe.send(tuple((b - a) * 1e3 for a, b in zip(began, ended, strict=True)))
