"""Attack on the control loop: random frames, clocks and plans, most of them broken. No command may leave the limits.

Each input is one tick: a frame or none, a time, and where a plan is due a chunk of numbers. Numbers are ordinary, NaN,
infinite, denormal or huge. Stamps are fresh, old, repeated or in the future. Limits are tightened while the arm moves.
Half of the episodes have commands between the ticks: half of these at even times, half at uneven ones, where only the
speed, the box and the gripper can be judged. Each ends in a stop, during which limits are tightened, too.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np

from dp_ros.control.controller import Controller
from dp_ros.control.planner import InlinePlanner, PlanRequest
from dp_ros.control.safety import Array, Command
from dp_ros.poses import UNIT_TOLERANCE, angle_rad, make_pose
from dp_ros.schema import GateConfig, PolicyConfig, RuntimeConfig
from dp_ros.streams import Frame
from dp_ros.train.workers import workers

_LOW_M, _HIGH_M = np.array([-0.3, 0.3, 0.0]), np.array([0.3, 0.9, 0.5])
_ROUNDING = 1.0 + 1e-6
_EPISODE = 500  # inputs of one controller
_PER_TICK, _LONGEST_STOP = 4, 2000  # commands
_BAD = np.array([math.nan, math.inf, -math.inf, 5e-324, -1e-310, 1e308, -1e300, 1e9, 0.0, -0.0])
_PICTURES = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3), np.uint8)
_BASE = {
    "workspace_low_m": tuple(_LOW_M),
    "workspace_high_m": tuple(_HIGH_M),
    "max_outside_m": 0.0,
    "max_distance_m": 0.0,
    "max_frozen_s": 0.0,
}
_GATES: tuple[dict[str, float | str], ...] = (
    {"max_speed_m_s": 1.6},
    {"max_speed_m_s": 0.4, "slowing": "axes", "max_gripper_rate_per_s": 4.0, "gripper_high": 0.5},
    {"max_speed_m_s": 0.4, "max_acceleration_m_s2": 4.0, "ramp_s": 0.2, "path_tolerance_m": 0.03},
    {"max_speed_m_s": 0.4, "max_acceleration_m_s2": 4.0, "max_jerk_m_s3": 200.0, "max_distance_m": 0.05},
    {"max_speed_m_s": 0.25, "max_acceleration_m_s2": 1.0, "max_jerk_m_s3": 10.0, "slowing": "axes"},
)

_LIMITS = ("workspace", "speed", "acceleration", "jerk", "turn", "gripper range", "gripper rate")


@dataclass
class Worst:
    """The largest share of each limit that was used; above 1 it was exceeded."""

    inputs: int = 0
    commands: int = 0
    broken: int = 0  # commands that are not finite, or have no valid orientation or gripper
    shares: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_LIMITS, 0.0))
    verdicts: Counter[str] = field(default_factory=Counter)

    def add(self, other: Worst) -> None:
        self.inputs, self.commands = self.inputs + other.inputs, self.commands + other.commands
        self.broken += other.broken
        for name, share in other.shares.items():
            self.note(name, share)
        self.verdicts += other.verdicts

    def note(self, name: str, share: float) -> None:
        self.shares[name] = max(self.shares[name], share if math.isfinite(share) else math.inf)

    @property
    def is_safe(self) -> bool:
        return self.broken == 0 and all(share <= _ROUNDING for share in self.shares.values())


def attack_gate(inputs: int, seed: int = 0, jobs: int = 1) -> dict[str, Any]:
    """Numbers of an attack with so many inputs, in episodes of 500; `seed` and `inputs` determine them."""
    began_s = time.perf_counter()
    counts = [min(_EPISODE, inputs - start) for start in range(0, inputs, _EPISODE)]
    with workers(jobs, batch_size=8) as pool:
        worst = Worst()
        for part in pool(joblib.delayed(attack)(count, (seed, i)) for i, count in enumerate(counts)):
            worst.add(part)
    took_s = time.perf_counter() - began_s
    return {
        "inputs": worst.inputs,
        "commands": worst.commands,
        "broken": worst.broken,
        "shares": worst.shares,
        "verdicts": dict(worst.verdicts),
        "is_safe": worst.is_safe,
        "took_s": took_s,
    }


def attack(inputs: int, seed: tuple[int, ...]) -> Worst:
    """One controller under so many inputs."""
    rng, worst = np.random.default_rng(seed), Worst()
    gate = GateConfig.model_validate({**_BASE, **_GATES[seed[-1] % len(_GATES)]})
    policy = PolicyConfig.model_validate({"action": {"position": ("relative", "absolute")[seed[-1] % 2]}})
    is_fine = (
        seed[-1] // len(_GATES) % 2 == 1
    )  # commands between ticks, which count the time since the last one
    is_even = not (is_fine and seed[-1] // (2 * len(_GATES)) % 2)
    rate_hz = _PER_TICK * policy.rate_hz if is_fine else 0.0
    runtime = RuntimeConfig(mode="realtime", gate=gate, command_rate_hz=rate_hz)
    controller = Controller(policy, runtime, InlinePlanner(lambda request: _plan(rng, request)))
    watch = _Observer(gate, controller.period_ns / 1e9 if is_even else None, worst)
    now_ns = 10**12

    def next_ns() -> int:
        return now_ns + round(controller.period_ns * (1.0 if is_even else 10 ** rng.uniform(-2.0, 0.3)))

    for _ in range(inputs):
        now_ns = next_ns() if is_fine else now_ns + _elapsed_ns(rng, controller.dt_ns)
        if rng.random() < 0.01:
            controller.commander.limit(_tighter(rng, gate, is_even))
        if rng.random() < 0.9:
            controller.observe(_frame(rng, now_ns, controller.commander.last))
        if rng.random() < 0.2:  # a pose without a frame: a camera is late
            controller.commander.measure(now_ns, _frame(rng, now_ns, controller.commander.last).ee_pose)
        worst.inputs += 1
        start = controller.commander.last
        decision = controller.tick(now_ns)
        if decision is not None:
            worst.verdicts[decision.verdict.value] += 1
        published = decision.command if decision is not None and not decision.is_silent else None
        watch.see(published, start, controller.commander.measured)
        while is_fine and controller.is_between(due_ns := next_ns()):
            now_ns, start = due_ns, controller.commander.last
            watch.see(controller.between(now_ns), start, controller.commander.measured)
    for _ in range(_LONGEST_STOP):
        now_ns, start = now_ns + controller.period_ns, controller.commander.last
        if rng.random() < 0.05:
            controller.commander.limit(_tighter(rng, gate, is_even))
        watch.see(command := controller.hold(now_ns), start, controller.commander.measured)
        if command is None or not controller.commander.is_moving:
            break
    return worst


class _Observer:
    """Compares each command with those before it, by itself."""

    def __init__(self, gate: GateConfig, dt_s: float | None, worst: Worst) -> None:
        """dt_s: time between two commands; None: by their stamps, between which no acceleration is defined."""
        self._gate, self._dt_s, self._worst = gate, dt_s, worst
        self._positions: list[Array] = []
        self._gripper: float | None = None

    def see(self, command: Command | None, start: Command | None, measured: Array) -> None:
        """A published command, or None. start: the one that it must follow; after a silence, at rest there."""
        if command is None:
            self._positions, self._gripper = [], None
            return
        if not self._positions and start is not None:
            self._positions = [start.position_m] * 3
        worst, gate, dt_s = self._worst, self._gate, self._dt_s
        if dt_s is None:
            dt_s = math.inf if start is None else max((command.stamp_ns - start.stamp_ns) / 1e9, 1e-12)
        worst.commands += 1
        numbers = [*command.position_m, *command.orientation, command.gripper or 0.0]
        is_unit = abs(float(np.linalg.norm(command.orientation)) - 1.0) <= UNIT_TOLERANCE
        if not (np.isfinite(numbers).all() and is_unit and -1.0 <= (command.gripper or 0.0) <= 1.0):
            worst.broken += 1
            return
        outside_m = np.abs(command.position_m - np.clip(command.position_m, _LOW_M, _HIGH_M)).max()
        worst.note("workspace", 0.0 if outside_m <= 1e-12 else math.inf)
        low, high = gate.gripper_low, gate.gripper_high
        is_in_range = command.gripper is None or low <= command.gripper <= high
        worst.note("gripper range", 0.0 if is_in_range else math.inf)
        worst.note("turn", angle_rad(command.orientation, measured) / gate.max_turn_rad)
        if gate.max_gripper_rate_per_s and self._gripper is not None and command.gripper is not None:
            change = abs(command.gripper - self._gripper)
            worst.note("gripper rate", change / (gate.max_gripper_rate_per_s * dt_s))
        self._gripper = command.gripper
        self._positions = [*self._positions, command.position_m][-4:]
        v, a, j = (
            float(np.linalg.norm(np.diff(self._positions, n=n, axis=0)[-1])) / dt_s**n for n in (1, 2, 3)
        )
        worst.note("speed", v / gate.max_speed_m_s)
        if self._dt_s is None:
            return
        if gate.max_acceleration_m_s2:
            worst.note("acceleration", a / gate.max_acceleration_m_s2)
        if gate.max_jerk_m_s3:
            worst.note("jerk", j / gate.max_jerk_m_s3)


def _tighter(rng: np.random.Generator, gate: GateConfig, is_even: bool) -> GateConfig:
    """The limits, some tightened. Where acceleration is judged, only the speed: the stop in progress may need longer
    with less acceleration, or end outside a smaller box, and the box comes before the acceleration."""
    tighter: dict[str, Any] = {"max_speed_m_s": gate.max_speed_m_s * rng.uniform(0.5, 1.0)}
    if not is_even:
        low, high = np.array(gate.workspace_low_m), np.array(gate.workspace_high_m)
        inner = rng.uniform(0.0, 0.2, (2, 3)) * (high - low) * (rng.random() < 0.3)
        share = rng.choice([1.0, rng.uniform(0.3, 1.0)])
        tighter["workspace_low_m"] = tuple(low + inner[0])
        tighter["workspace_high_m"] = tuple(high - inner[1])
        tighter["max_acceleration_m_s2"] = gate.max_acceleration_m_s2 * share
    return gate.model_copy(update=tighter)


def _elapsed_ns(rng: np.random.Generator, dt_ns: int) -> int:
    luck = rng.random()
    if luck < 0.9:
        return dt_ns
    if luck < 0.99:
        return round(dt_ns * rng.uniform(0.0, 5.0))
    return round(rng.choice([-1, 1]) * 10 ** rng.uniform(6, 12))


def _spoil(rng: np.random.Generator, values: Array, share: float) -> Array:
    return np.where(rng.random(values.shape) < share, rng.choice(_BAD, values.shape), values)


def _plan(rng: np.random.Generator, request: PlanRequest) -> Array:
    if rng.random() < 0.03:
        raise RuntimeError("no plan")
    scale = 10 ** rng.uniform(-5, 0.5)
    chunk = np.cumsum(rng.normal(0.0, scale, (8, 4)), axis=0)
    if rng.random() < 0.5:
        chunk[:, :3] += request.reference_m
    chunk[:, 3] = rng.uniform(-2, 2, 8)
    return _spoil(rng, chunk, rng.choice([0.0, 0.0, 0.05, 0.5]))


def _frame(rng: np.random.Generator, now_ns: int, last: Command | None) -> Frame:
    kind = rng.random()
    stamp_ns = now_ns if kind < 0.985 else now_ns + round(rng.choice([-1, 1]) * 10 ** rng.uniform(0, 11))
    position = rng.uniform(_LOW_M, _HIGH_M) if last is None else last.position_m + rng.normal(0, 0.01, 3)
    turn = 0.06 if rng.random() < 0.98 else 0.4
    quat = rng.normal(0.0, turn, 4) + np.array([0.0, 1.0, 0.0, 0.0])
    quat /= np.linalg.norm(quat)
    pose = _spoil(rng, make_pose(position, quat), rng.choice([0.0, 0.0, 0.0, 0.1]))
    sampled_ns = stamp_ns - round(10 ** rng.uniform(0, 8.5))
    picture = _PICTURES[rng.integers(len(_PICTURES))] * (rng.random() > 0.02)
    return Frame(
        stamp_ns, (picture,), pose, float(rng.random()), sampled_ns, round(10 ** rng.uniform(0, 8.3))
    )
