"""Latency of a plan: of the engines against LeRobot's `DiffusionModel` with the same weights, and of a checkpoint.

The sides take turns, a block of plans at a time, so that other load on the machine slows them equally. LeRobot gets a
batch that is ready, in eager mode; the engines convert and normalise their pictures themselves.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.cli.bench import floor, plans
from dp_ros.cli.bench.lerobot_model import find_overlay
from dp_ros.cli.bench.sides import Side, Work, sides
from dp_ros.cli.errors import USAGE, CliError
from dp_ros.cli.options import numbers
from dp_ros.inference.cache import cpu
from dp_ros.inference.engine import BF16_ENGINES, ENGINES
from dp_ros.inference.hardware import has_bf16
from dp_ros.schema import PolicyConfig, RuntimeConfig, parse

LEROBOT = "lerobot f32"
LEROBOT_BF16 = "lerobot bf16"  # under torch's autocast, which is not its default
MACHINE = "machine"
GPU_ENGINE = "cuda"  # where it is among the engines, torch and LeRobot compute on the GPU, too
ITERATIONS = 10  # of DDIM
BLOCK = 5  # measured plans of a turn
TOLERANCE = 1e-3  # of f32: more than rounding, less than any weight in the wrong place


@dataclass(frozen=True)
class Size:
    """A size that LeRobot's model can have, too."""

    channels: tuple[int, ...]
    T_p: int
    pixels: int

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.channels))}), T_p {self.T_p}, {self.pixels} px"


CHANNELS = ((128, 256, 512), (256, 512, 1024), (512, 1024, 2048))
ALL_SIZES = [Size(*parts) for parts in itertools.product(CHANNELS, (8, 16), (96, 224))]


def sizes_of(
    channels: Sequence[str] | None, horizons: Sequence[int] | None, pixels: Sequence[int] | None
) -> list[Size]:
    """Every combination; what is None takes its default. channels: "128,256,512". CliError."""
    parsed = []
    for text in channels or ():
        given = numbers("--channels", text, "128,256,512") or ()
        if not all(number.is_integer() for number in given):
            raise CliError(f"--channels '{text}': give whole numbers, e.g. 128,256,512", USAGE)
        parsed.append(tuple(map(int, given)))
    return [
        Size(*parts) for parts in itertools.product(parsed or CHANNELS[:2], horizons or (8,), pixels or (96,))
    ]


def policy_of(size: Size) -> PolicyConfig:
    """A policy of one camera as LeRobot's model can have it, too. ConfigError, and CliError for T_p."""
    multiple = 2 ** len(size.channels)
    if size.T_p % multiple:
        raise CliError(
            f"T_p {size.T_p}: LeRobot's U-Net of {len(size.channels)} levels takes multiples of {multiple}",
            USAGE,
        )
    T_o, keypoints = 2, 32
    crop = size.pixels - 2 * (size.pixels // 16)  # an even margin, which all libraries halve in the same way
    settings = {
        "horizons": {"T_o": T_o, "T_p": size.T_p, "T_a": size.T_p - T_o + 1},
        "encoder": {
            "cameras": ["camera"], "height_px": size.pixels, "width_px": size.pixels,
            "crop_height_px": crop, "crop_width_px": crop, "stages": 4,
            "keypoints": keypoints, "feature_dim": 2 * keypoints, "share_weights": True, "proprioception": True,
        },
        "unet": {"channels": size.channels, "kernel_size": 5, "groups": 8, "step_embedding_dim": 128},
        "diffusion": {"sampler": "ddim", "sampler_iterations": ITERATIONS, "spacing": "leading"},
    }  # fmt: skip
    return parse(PolicyConfig, settings, where=str(size))


def compare_inference(sizes: Sequence[Size], engines: Sequence[str], count: int) -> Iterator[dict[str, Any]]:
    """The result of each size, one after the other, with `count` plans of each row."""
    overlay = find_overlay()
    configs = [policy_of(size) for size in sizes]
    precisions = ["f32", "bf16"] if GPU_ENGINE in engines or has_bf16() else ["f32"]
    for size, config in zip(sizes, configs, strict=True):
        with tempfile.TemporaryDirectory(prefix="dp_ros-bench-") as folder:
            yield _compare(size, config, engines, precisions, count, overlay, Path(folder))


def summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All sizes, and the least ratios over them, each of the engine that is fastest at that size.

    `ratio`: LeRobot and the engine in f32. `ratio_bf16`: the engine in bf16, LeRobot in f32, its default.
    `ratio_bf16_autocast`: both in bf16. None where nothing was measured in bf16.
    """

    def least(precision: str, baseline: str) -> float | None:
        ratios = [
            max(
                (
                    result["rows"][baseline]["wall"]["median_ms"] / row["wall"]["median_ms"]
                    for name, row in result["rows"].items()
                    if name.endswith(precision) and row["ours"] and baseline in result["rows"]
                ),
                default=None,
            )
            for result in results
        ]
        return None if None in ratios else min(ratio for ratio in ratios if ratio is not None)

    return {
        "ratio": least("f32", LEROBOT),
        "ratio_bf16": least("bf16", LEROBOT),
        "ratio_bf16_autocast": least("bf16", LEROBOT_BF16),
        "processor": cpu(),
        "device": results[0]["device"],
        "sizes": list(results),
    }


def measure_checkpoint(checkpoint: Path, engines: Sequence[str], count: int) -> dict[str, Any]:
    """Times of a plan by row: each engine alone, in f32, with the checkpoint's own sampler."""
    rows: dict[str, Any] = {}
    for name in engines:
        runtime = RuntimeConfig(engine=name)
        work: Work = partial(plans.engine, checkpoint, runtime, None, name, True)
        with sides("the inference", {name: work}) as running:
            running[name].turn()
            rows |= _rows([running[name].turn(count)])
    return {"checkpoint": str(checkpoint), "plans": count, "rows": rows}


def check_engines(names: Sequence[str] | None) -> list[str]:
    """The engines to measure, by default all of a CPU. CliError for an unknown one."""
    for name in names or ():
        if name not in ENGINES:
            raise CliError(f"engine '{name}' is unknown: choose from {', '.join(ENGINES)}", USAGE)
    return list(names or (name for name in ENGINES if name != GPU_ENGINE))


def _compare(
    size: Size,
    config: PolicyConfig,
    engines: Sequence[str],
    precisions: list[str],
    count: int,
    overlay: Path,
    folder: Path,
) -> dict[str, Any]:
    weights, work, parameters = _prepare(config, folder / "checkpoint")
    device = "cuda" if GPU_ENGINE in engines else "cpu"
    theirs = {LEROBOT: False} | ({LEROBOT_BF16: True} if "bf16" in precisions else {})
    works: dict[str, Work] = {"lerobot": partial(plans.lerobot, overlay, weights, config, device, theirs)}
    for engine, precision in itertools.product(engines, precisions):
        if precision == "f32" or engine in BF16_ENGINES:
            runtime = RuntimeConfig(
                mode="lockstep", engine=engine, precision=precision, device=device
            )  # all cores, as LeRobot has
            row = f"{engine} {precision}"
            works[row] = partial(plans.engine, weights.parent, runtime, folder / "cache", row, False)
    works[MACHINE] = partial(floor.measure_rates, precisions)
    with sides(f"the inference at {size}", works) as running:
        machine = running.pop(MACHINE)
        loaded = {name: side.turn() for name, side in running.items()}  # one after the other
        chunks = {row: chunk for answer in loaded.values() for row, chunk in answer.chunks.items()}
        differences = _differences(chunks)
        blocks, rates = _take_turns(running, machine, count)
    rates_best, cache = floor.best(rates), floor.last_level_cache_bytes()
    floors = {p: floor.floor_ms(work, rates_best, p, cache) for p in precisions} if device == "cpu" else {}
    rows = {row: facts for side in blocks.values() for row, facts in _rows(side).items()}
    for row, facts in rows.items():
        facts["ours"] = row not in theirs
        facts["difference"] = differences[row]
        facts["ratio"], facts["ratio_processor"] = (
            rows[LEROBOT][clock]["median_ms"] / facts[clock]["median_ms"] for clock in ("wall", "processor")
        )
        precision = "bf16" if row.endswith("bf16") else "f32"
        facts["floor_share"] = floors[precision] / facts["wall"]["median_ms"] if floors else None  # of a CPU
    return {
        "size": asdict(size),
        "title": str(size),
        "parameters": parameters,
        "iterations": ITERATIONS,
        "device": machine_of(device),
        "plans": count,
        "floor_ms": floors,
        "work": {name: asdict(phase) for name, phase in work.items()},
        "rates": {"flops": dict(rates_best.flops), "memory": rates_best.memory, "cache_bytes": cache},
        "rows": rows,
    }


def machine_of(device: str) -> str:
    """Name of the GPU, or of the processor."""
    if device == "cpu":
        return cpu()
    import torch

    return torch.cuda.get_device_name()


def _prepare(config: PolicyConfig, checkpoint: Path) -> tuple[Path, dict[str, floor.Phase], int]:
    """Write a checkpoint of random weights; its weights, the work of a plan, and the number of parameters."""
    import torch

    from dp_ros.policy.checkpoint import WEIGHTS, save_checkpoint
    from dp_ros.policy.diffusion_policy import DiffusionPolicy

    torch.manual_seed(0)
    limits = {"low": [-1.0] * config.action.dim, "high": [1.0] * config.action.dim}  # normalised already
    policy = DiffusionPolicy(config, {"action": limits, "state": limits})
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.ndim == 1:  # equal channels of a GroupNorm would hide one in the wrong place
                parameter.add_(torch.randn_like(parameter) * 0.1)
    save_checkpoint(policy, checkpoint)
    parameters = sum(parameter.numel() for parameter in policy.parameters())
    return checkpoint / WEIGHTS, floor.phases(policy, config), parameters


def _take_turns(
    running: dict[str, Side], machine: Side, count: int
) -> tuple[dict[str, list[plans.Block]], list[floor.Rates]]:
    """Blocks of each side until each row has `count` plans, and the machine's rates meanwhile."""
    blocks: dict[str, list[plans.Block]] = {name: [] for name in running}
    rates = []
    order = list(running)
    for done in range(0, count, BLOCK):
        for name in order:
            blocks[name].append(running[name].turn(min(BLOCK, count - done)))
        order.reverse()  # so that no side always runs after the same other
        rates.append(machine.turn())
    return blocks, rates


def _differences(chunks: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Largest difference of a normalised action from LeRobot's. CliError where one in f32 is more than rounding."""
    found = {row: float(np.abs(chunk - chunks[LEROBOT]).max()) for row, chunk in chunks.items()}
    for row, difference in found.items():
        if row.endswith("f32") and not difference <= TOLERANCE:
            raise CliError(f"{row} computes other actions than LeRobot: they differ by {difference:.2g}")
    return found


def _rows(blocks: Sequence[plans.Block]) -> dict[str, Any]:
    """Statistics of each row of a side."""
    rows: dict[str, Any] = {}
    for row in blocks[0].times:
        times = [plan for block in blocks for plan in block.times[row]]
        wall, processor = zip(*times, strict=True)
        rows[row] = {
            "wall": _statistics(wall),
            "processor": _statistics(processor),
            "rss_mb": blocks[-1].rss_mb,
            "peak_mb": max(block.peak_mb for block in blocks),
        }
    return rows


def _statistics(samples_ms: Sequence[float]) -> dict[str, Any]:
    low, median, high, p99 = (float(q) for q in np.percentile(samples_ms, (25, 50, 75, 99)))
    return {
        "median_ms": median,
        "p99_ms": p99,
        "quartiles_ms": [low, high],
        "min_ms": min(samples_ms),
        "max_ms": max(samples_ms),
        "samples_ms": list(samples_ms),
    }
