"""Speeds, steps and extent of a dataset's demonstrations, and the limits of the gate that they suggest."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import GRIPPER, POSITION
from dp_ros.data.episodes import Dataset, DatasetError

Array = NDArray[np.float64]

_SHARE = 99.9  # percentile that a limit must let pass: a single leap must not set it
_SPEED_MARGIN = 1.2
_NOISY_MARGIN = 1.5  # of acceleration and jerk, which differences of recorded commands overstate less evenly
_DISTANCE_MARGIN = 2.0
_LEAST_DISTANCE_M = 0.01
_BOX_MARGIN = 0.05  # of the extent
_LEAST_BOX_MARGIN_M = 0.01
_JUMP = 0.5  # of the gripper's range in one tick: it is switched, not moved


@dataclass(frozen=True)
class Spread:
    """Percentiles of one quantity."""

    p50: float
    p99: float
    p999: float
    max: float

    @classmethod
    def of(cls, values: Array) -> Spread:
        if not len(values):
            return cls(0.0, 0.0, 0.0, 0.0)
        return cls(*(float(v) for v in np.percentile(values, (50, 99, _SHARE, 100))))


@dataclass(frozen=True)
class Motion:
    """Motion of the demonstrations. Rates are those of successive commands at the dataset's control rate."""

    rate_hz: float
    episodes: int
    ticks: int
    measured_rates: str  # the episodes that the rates are of
    step_m: Spread  # of the command in one tick
    speed_m_s: Spread
    acceleration_m_s2: Spread
    jerk_m_s3: Spread
    gripper_rate_per_s: Spread  # of the command, whose range is 2
    distance_m: Spread  # from the measured to the commanded position
    low_m: tuple[float, ...]  # of measured and commanded positions; percentiles, so that no leap sets them
    high_m: tuple[float, ...]
    lowest_m: tuple[float, ...]  # the extremes
    highest_m: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def motion_of(path: Path, dataset: Dataset, noise: NDArray[np.float64] | None = None) -> Motion:
    """Motion of a dataset. noise: (E,) injected into each episode; noisy ones count only where all are.

    DatasetError without a control rate, or without two commands in a row.
    """
    rate_hz = dataset.attributes.get("rate_hz")
    if not rate_hz:
        raise DatasetError(f"{path}: has no control rate, so speeds are not known: make the dataset again")
    begins = np.concatenate([[0], dataset.episode_ends[:-1]])
    episodes = [slice(int(a), int(b)) for a, b in zip(begins, dataset.episode_ends, strict=True)]
    clean = [part for i, part in enumerate(episodes) if noise is None or noise[i] == 0]
    used = clean or episodes
    positions = [POSITION.of(dataset.command[part]) for part in used]
    grippers = [GRIPPER.of(dataset.command[part])[:, 0] for part in used]
    steps = [np.diff(position, axis=0) for position in positions]
    if not sum(map(len, steps)):
        raise DatasetError(f"{path}: no episode has two commands in a row: record longer episodes")
    changes = [np.diff(step, axis=0) for step in steps]
    jolts = [np.diff(change, axis=0) for change in changes]
    step_m = _lengths(steps)
    both = np.concatenate([dataset.ee_pose, POSITION.of(dataset.command)])
    outer = (100.0 - _SHARE) / 2
    return Motion(
        rate_hz=float(rate_hz),
        episodes=len(episodes),
        ticks=len(dataset),
        measured_rates=_which(len(clean), len(episodes)),
        step_m=Spread.of(step_m),
        speed_m_s=Spread.of(step_m * rate_hz),
        acceleration_m_s2=Spread.of(_lengths(changes) * rate_hz**2),
        jerk_m_s3=Spread.of(_lengths(jolts) * rate_hz**3),
        gripper_rate_per_s=Spread.of(np.concatenate([np.abs(np.diff(g)) for g in grippers]) * rate_hz),
        distance_m=Spread.of(np.linalg.norm(dataset.ee_pose - POSITION.of(dataset.command), axis=1)),
        low_m=tuple(np.percentile(both, outer, axis=0).tolist()),
        high_m=tuple(np.percentile(both, 100.0 - outer, axis=0).tolist()),
        lowest_m=tuple(both.min(axis=0).tolist()),
        highest_m=tuple(both.max(axis=0).tolist()),
    )


def proposed_gate(motion: Motion) -> dict[str, Any]:
    """Limits of the gate (see GateConfig) that do not bite on motion like this: percentiles with a margin, rounded."""
    low, high = np.array(motion.low_m), np.array(motion.high_m)
    margin = np.maximum(_LEAST_BOX_MARGIN_M, _BOX_MARGIN * (high - low))
    jumps = motion.gripper_rate_per_s.max >= _JUMP * 2.0 * motion.rate_hz
    return {
        "workspace_low_m": [math.floor(v * 1e3) / 1e3 for v in low - margin],
        "workspace_high_m": [math.ceil(v * 1e3) / 1e3 for v in high + margin],
        "max_speed_m_s": _rounded(_SPEED_MARGIN * motion.speed_m_s.p999),
        "max_acceleration_m_s2": _rounded(_NOISY_MARGIN * motion.acceleration_m_s2.p999),
        "max_jerk_m_s3": _rounded(_NOISY_MARGIN * motion.jerk_m_s3.p999),
        "max_gripper_rate_per_s": 0.0 if jumps else _rounded(_SPEED_MARGIN * motion.gripper_rate_per_s.p999),
        "max_distance_m": _rounded(max(_LEAST_DISTANCE_M, _DISTANCE_MARGIN * motion.distance_m.p999)),
    }


def beyond_box(motion: Motion, gate: dict[str, Any]) -> str:
    """The places outside the proposed workspace that the demonstrations reached; empty where there are none."""
    found = []
    for axis, low, high, lowest, highest in zip(
        "xyz",
        gate["workspace_low_m"],
        gate["workspace_high_m"],
        motion.lowest_m,
        motion.highest_m,
        strict=True,
    ):
        if lowest < low:
            found.append(f"{axis} {lowest:.3f} m")
        if highest > high:
            found.append(f"{axis} {highest:.3f} m")
    return ", ".join(found)


def _which(clean: int, episodes: int) -> str:
    if clean == episodes:
        return f"all {episodes} episodes"
    if clean:
        return f"the {clean} of {episodes} episodes without injected noise"
    return f"all {episodes} episodes, whose injected noise they include"


def _lengths(rows: list[Array]) -> Array:
    return np.asarray(np.linalg.norm(np.concatenate(rows), axis=1))


def _rounded(value: float) -> float:
    """Up to two significant digits; 0 where nothing moved, which means no limit."""
    if not value > 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.6g}")
