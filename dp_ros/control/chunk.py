"""A plan in time: T_p actions, each with the moment it is for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dp_ros.schema import Horizons

_NEAR_M = 1e-4  # positions this near are the same


@dataclass(frozen=True)
class Chunk:
    """Absolute actions (T_p, 4) for t0, t0 + dt, ...; t0 is the time of the oldest observed frame."""

    t0_ns: int
    dt_ns: int
    actions: NDArray[np.float64]
    horizons: Horizons
    under_way: int = 0  # actions from T_o - 1 on that stand for commands given before the plan was asked for

    @classmethod
    def after(
        cls, newest_frame_ns: int, dt_ns: int, actions: NDArray[np.float64], horizons: Horizons
    ) -> Chunk:
        """The chunk whose action T_o - 1 answers the frame stamped `newest_frame_ns`."""
        return cls(newest_frame_ns - (horizons.T_o - 1) * dt_ns, dt_ns, actions, horizons)

    def joined(
        self, now_ns: int, reference_m: NDArray[np.float64], last_m: NDArray[np.float64], delay_ns: int = 0
    ) -> Chunk:
        """The same plan, for an arm last told to be at `last_m` (3,): the action for now is the one that follows.

        By the clock the arm has gone along the plan while it was made, and while the `delay_ns` went by that commands
        take to show in a frame; what it did instead is go along the plan before, or stand still. Actions of the past
        are left out as far as the last command has come, from `reference_m` (3,) where the plan begins: to leave out
        more would be a leap. A plan that is over by the clock is over.
        """
        start, size = self.horizons.executed.start, len(self.actions)
        by_clock = self.index(now_ns + delay_ns)
        past = min(by_clock, size)
        if past <= start or self.index(now_ns) >= size or not np.isfinite(self.actions).all():
            return self
        away_m = np.linalg.norm(np.vstack([reference_m, self.actions[start:past, :3]]) - last_m, axis=1)
        done = int(np.flatnonzero(away_m <= away_m.min() + _NEAR_M)[-1])
        t0_ns = self.t0_ns + (self.index(now_ns) - (start + done)) * self.dt_ns
        return replace(self, t0_ns=t0_ns, under_way=min(done, round(delay_ns / self.dt_ns)))

    @property
    def executed(self) -> slice:
        """The T_a actions meant for execution, or as many as there are behind what is under way."""
        executed = self.horizons.executed
        return slice(executed.start + self.under_way, min(executed.stop + self.under_way, len(self.actions)))

    def index(self, now_ns: int) -> int:
        """Which action is for now; may lie outside the chunk."""
        return round((now_ns - self.t0_ns) / self.dt_ns)

    def at(self, now_ns: int) -> NDArray[np.float64] | None:
        """The action (4,) for now; None before the newest frame's own and after the last: late actions are
        dropped, an exhausted chunk gives nothing."""
        i = self.index(now_ns)
        return self.actions[i] if self.horizons.executed.start <= i < len(self.actions) else None

    def is_due(self, now_ns: int) -> bool:
        """Whether the T_a actions meant for execution are used up, so that a new plan is wanted."""
        return not self.index(now_ns) < self.executed.stop

    def times_ns(self) -> list[int]:
        return [self.t0_ns + i * self.dt_ns for i in range(len(self.actions))]
