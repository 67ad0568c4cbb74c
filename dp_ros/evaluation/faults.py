"""Scores of injected faults: reaction times, steps and speeds of the commands that a robot received, and the verdict.

All times of one trial are nanoseconds on one clock, that of the robot's middleware.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np

Expected = Literal["stops", "is held", "goes on"]
Recovery = Literal["automatic", "explicit", "none"]
_MOVES_M = 1e-5  # a command that differs by less from the one before is a hold
_ROUNDING = 1.0 + 1e-6
_GAP_S = 0.2  # an arm that followed one command for longer has reached it: the next is compared with where the arm is
SAFE_WITHIN_S = 0.1


@dataclass(frozen=True)
class Heard:
    """A command, as the robot received it."""

    received_ns: int
    followed_ns: int  # when the arm began to follow it; on a busy machine, well after it was received
    stamp_ns: int  # of the command
    position_m: tuple[float, float, float]
    arm_m: tuple[float, float, float]  # where the arm was when it began to follow


@dataclass(frozen=True)
class Bounds:
    """Limits that every command must keep."""

    period_s: float  # between two commands
    speed_m_s: float
    leap_m: float  # from the arm to a command

    @property
    def step_m(self) -> float:
        return self.speed_m_s * self.period_s

    @property
    def margin_s(self) -> float:
        """Time to react beyond what it takes to detect a fault."""
        return max(SAFE_WITHIN_S, 2.0 * self.period_s)


@dataclass(frozen=True)
class Fault:
    """A fault and what must follow from it."""

    name: str
    about: str  # one line for people
    expected: Expected
    threshold_s: float  # after which it counts as a fault
    detected_by: str  # what sets the threshold
    recovery: Recovery  # after its cause is gone; "none" where there is nothing to recover from

    def limit_s(self, bounds: Bounds) -> float:
        """Longest reaction."""
        return self.threshold_s + bounds.margin_s


@dataclass(frozen=True)
class Trial:
    """Result of one injection."""

    reaction_s: float
    step_m: float  # the largest
    speed_m_s: float  # the largest
    leap_m: float  # the largest
    recovery: Recovery
    verdict: str = ""  # what the policy said
    problem: str = ""  # a process that ended, or an episode that could not go on


def is_moving(commands: Sequence[Heard], since_ns: int, moves: int = 1) -> bool:
    """Whether so many commands since then moved the arm, each from the one before."""
    return sum(_moves(before, after) for before, after in _pairs(commands, since_ns)) >= moves


def largest(commands: Sequence[Heard], since_ns: int, bounds: Bounds) -> tuple[float, float, float]:
    """Largest step [m], speed [m/s] and distance from the arm [m] of the commands since then."""
    step_m = speed_m_s = leap_m = 0.0
    for before, after in _pairs(commands, since_ns):
        gap_s = (after.received_ns - before.received_ns) / 1e9
        is_first = (after.followed_ns - before.followed_ns) / 1e9 > _GAP_S  # else the arm is still on its way
        here_m = math.dist(after.position_m, after.arm_m if is_first else before.position_m)
        step_m = max(step_m, here_m)
        speed_m_s = max(speed_m_s, here_m / (bounds.period_s if is_first else max(gap_s, bounds.period_s)))
    for command in commands:
        if command.received_ns >= since_ns:
            leap_m = max(leap_m, math.dist(command.position_m, command.arm_m))
    return step_m, speed_m_s, leap_m


def reaction_s(expected: Expected, commands: Sequence[Heard], fault_ns: int, until_ns: int) -> float:
    """Time from the fault until the arm was safe; infinite where it never was.

    stops: until the last command that moved the arm; 0 where none did.
    is held: until the first command that is stamped after the fault, when the policy can give none.
    goes on: the longest time without a command.
    """
    after = [command for command in commands if fault_ns <= command.received_ns <= until_ns]
    if expected == "is held":
        held = [command for command in after if command.stamp_ns > fault_ns]
        return (held[0].received_ns - fault_ns) / 1e9 if held else math.inf
    if expected == "goes on":
        times_ns = [fault_ns, *(command.received_ns for command in after), until_ns]
        return float(np.diff(times_ns).max()) / 1e9 if is_moving(commands, fault_ns) else math.inf
    moved = [
        b.received_ns for a, b in _pairs(commands, fault_ns) if b.received_ns <= until_ns and _moves(a, b)
    ]
    return (moved[-1] - fault_ns) / 1e9 if moved else 0.0


def _pairs(commands: Sequence[Heard], since_ns: int) -> Iterable[tuple[Heard, Heard]]:
    return ((before, after) for before, after in pairwise(commands) if after.received_ns >= since_ns)


def _moves(before: Heard, after: Heard) -> bool:
    return not math.dist(before.position_m, after.position_m) <= _MOVES_M


@dataclass
class Score:
    """All trials of one fault."""

    fault: Fault
    bounds: Bounds
    trials: list[Trial] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Why the fault fails; empty where every trial kept what is promised."""
        fault, bounds = self.fault, self.bounds
        limits = (
            ("reaction", "reaction_s", fault.limit_s(bounds), "s"),
            ("step", "step_m", bounds.step_m, "m"),
            ("speed", "speed_m_s", bounds.speed_m_s, "m/s"),
            ("distance from the arm", "leap_m", bounds.leap_m, "m"),
        )
        lines = []
        for what, name, most, unit in limits:
            values = [getattr(trial, name) for trial in self.trials]
            if beyond := [value for value in values if not value <= most * _ROUNDING]:
                worst = max(beyond)
                lines.append(
                    f"{what} {worst:.3g} {unit} in {len(beyond)} of {len(values)}, allowed {most:.3g}"
                )
        others = Counter(trial.recovery for trial in self.trials if trial.recovery != fault.recovery)
        lines += [f"recovery {kind} in {count}, not {fault.recovery}" for kind, count in others.items()]
        lines += sorted({trial.problem for trial in self.trials if trial.problem})
        return lines or ([] if self.trials else ["no trial"])

    def as_dict(self) -> dict[str, Any]:
        """For JSON: a reaction that never came is null."""
        fault, trials = self.fault, self.trials
        return {
            "name": fault.name,
            "about": fault.about,
            "trials": len(trials),
            "expected": fault.expected,
            "threshold_ms": _ms(fault.threshold_s),
            "detected_by": fault.detected_by,
            "reaction_ms": percentiles_ms([trial.reaction_s for trial in trials]),
            "limit_ms": _ms(fault.limit_s(self.bounds)),
            "largest_step_m": _largest([trial.step_m for trial in trials]),
            "step_limit_m": self.bounds.step_m,
            "largest_speed_m_s": _largest([trial.speed_m_s for trial in trials]),
            "speed_limit_m_s": self.bounds.speed_m_s,
            "largest_leap_m": _largest([trial.leap_m for trial in trials]),
            "leap_limit_m": self.bounds.leap_m,
            "recovery": ", ".join(sorted({trial.recovery for trial in trials})),
            "verdicts": dict(Counter(trial.verdict for trial in trials if trial.verdict)),
            "problems": self.problems,
            "ok": not self.problems,
        }


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float | None]:
    """p50, p99 and max; of p99 the observation that is not below it, as twenty trials have none in between."""
    if not seconds:
        return dict.fromkeys(("p50", "p99", "max"))
    ordered = sorted(seconds)
    at = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: _ms(ordered[max(0, math.ceil(share * len(ordered)) - 1)]) for name, share in at.items()}


def _ms(seconds: float) -> float | None:
    return round(seconds * 1e3, 1) if math.isfinite(seconds) else None


def _largest(values: Sequence[float]) -> float:
    return round(max(values, default=0.0), 5)


def table(scores: Iterable[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of `Score.as_dict`s, for people."""
    head = ["fault", "the arm", "detected by", "limit ms", "reaction ms p50, p99, max", "largest step mm"]
    head += ["largest speed m/s", "recovery", "kept"]
    rows = []
    for score in scores:
        times = score["reaction_ms"].values()
        rows.append(
            [
                score["name"],
                score["expected"],
                score["detected_by"],
                f"{score['limit_ms']:.0f}",
                ", ".join("never" if ms is None else f"{ms:.0f}" for ms in times),
                f"{score['largest_step_m'] * 1e3:.1f} of {score['step_limit_m'] * 1e3:.1f}",
                f"{score['largest_speed_m_s']:.3f} of {score['speed_limit_m_s']:.3f}",
                score["recovery"],
                "yes" if score["ok"] else "no: " + "; ".join(score["problems"]),
            ]
        )
    return head, rows


def markdown(scores: Iterable[dict[str, Any]]) -> str:
    """The table for a page of documentation."""
    head, rows = table(scores)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"
