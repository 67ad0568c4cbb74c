"""Score of a replay: whether a policy's commands equal the recorded ones, and the first difference."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.poses import angle_rad, orientation_of, position_of

_TURN_RAD = 1e-6
_F32, _BF16 = (0.001, 0.02), (0.02, 0.1)


def tolerance(*precisions: str) -> tuple[float, float]:
    """Largest difference of a position [m] and of a gripper command where engine, precision or machine are others.

    Each plan begins at the last command, so differences add up over an episode, as no robot corrects them.
    """
    return _F32 if set(precisions) == {"f32"} else _BF16


@dataclass(frozen=True)
class Difference:
    """A command that is not the recorded one."""

    stamp_ns: int
    number: int  # of the command, from 0
    what: str


@dataclass
class ReplayScore:
    """Comparison of all commands of one bag."""

    bag: str
    mode: str
    engine: str
    is_exact: bool  # same engine, precision and machine: every bit must be the same
    tolerance_m: float = 0.0
    tolerance_gripper: float = 0.0
    compared: int = 0
    equal: int = 0  # to the bit
    differing: int = 0  # by more than is allowed
    plans: int = 0
    largest_m: float = 0.0
    largest_gripper: float = 0.0
    first: Difference | None = None
    skipped: Counter[str] = field(default_factory=Counter)  # why -> records

    @property
    def is_same(self) -> bool:
        """Whether every command that was compared is the same, within what is allowed."""
        return self.compared > 0 and not self.differing

    def skip(self, why: str) -> None:
        """Count a record that cannot be replayed."""
        self.skipped[why] += 1

    def differ(self, stamp_ns: int, what: str) -> None:
        """Count a command that only one of the two has."""
        self._difference(stamp_ns, what)
        self.compared += 1

    def compare(
        self,
        stamp_ns: int,
        recorded: NDArray[np.float64],
        replayed: NDArray[np.float64],
        recorded_gripper: float | None,
        replayed_gripper: float | None,
    ) -> None:
        """Compare two commands: poses (7,) and efforts of the gripper, None where it is not commanded."""
        far_m = float(np.linalg.norm(position_of(recorded) - position_of(replayed)))
        turn = 0.0
        if not np.array_equal(orientation_of(recorded), orientation_of(replayed)):
            turn = angle_rad(orientation_of(recorded), orientation_of(replayed))
        grip = _apart(recorded_gripper, replayed_gripper)
        is_equal = np.array_equal(recorded, replayed) and recorded_gripper == replayed_gripper
        is_near = far_m <= self.tolerance_m and grip <= self.tolerance_gripper and turn <= _TURN_RAD
        if not (is_equal or (is_near and not self.is_exact)):
            what = f"{far_m * 1e3:.3g} mm"
            what += (
                f", gripper {_text(recorded_gripper)} recorded, {_text(replayed_gripper)} now" if grip else ""
            )
            what += f", turned by {turn:.2g} rad" if turn else ""
            self._difference(stamp_ns, what)
        self.equal += is_equal
        self.compared += 1
        self.largest_m = max(self.largest_m, far_m)
        self.largest_gripper = max(self.largest_gripper, grip)

    def _difference(self, stamp_ns: int, what: str) -> None:
        self.differing += 1
        self.first = self.first or Difference(stamp_ns, self.compared, what)

    @property
    def line(self) -> str:
        """The verdict for people."""
        if self.first is not None:
            first = self.first
            return (
                f"NOT the same: {self.differing} of {self.compared} commands differ, the first is number "
                f"{first.number}, stamped {first.stamp_ns / 1e9:.4f} s, by {first.what}"
            )
        if self.is_exact:
            return f"the same, to the bit: {self.compared} commands"
        return (
            f"the same within {self.tolerance_m * 1e3:g} mm and {self.tolerance_gripper:g} of the gripper: "
            f"{self.compared} commands, {self.equal} to the bit, {self.largest_m * 1e3:.2g} mm at most"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        first = None if self.first is None else vars(self.first)
        return {
            "bag": self.bag,
            "mode": self.mode,
            "engine": self.engine,
            "exact": self.is_exact,
            "tolerance_m": self.tolerance_m,
            "tolerance_gripper": self.tolerance_gripper,
            "commands": self.compared,
            "equal": self.equal,
            "differing": self.differing,
            "plans": self.plans,
            "largest_m": self.largest_m,
            "largest_gripper": self.largest_gripper if math.isfinite(self.largest_gripper) else None,
            "first": first,
            "skipped": dict(self.skipped),
            "ok": self.is_same,
        }


def _apart(one: float | None, other: float | None) -> float:
    if one is None or other is None:
        return 0.0 if one is other else math.inf
    return abs(one - other)


def _text(gripper: float | None) -> str:
    return "not commanded" if gripper is None else f"{gripper:.4f}"
