"""A plan in time: T_p actions, each with the moment it is for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dp_ros.schema import Horizons


@dataclass(frozen=True)
class Chunk:
    """Absolute actions (T_p, 4) for t0, t0 + dt, ...; t0 is the time of the oldest observed frame, or later, where the
    arm held while the plan was made."""

    t0_ns: int
    dt_ns: int
    actions: NDArray[np.float64]
    horizons: Horizons
    in_flight: int = 0  # actions from T_o - 1 on that stand for commands given before the newest frame

    @classmethod
    def after(
        cls, newest_frame_ns: int, dt_ns: int, actions: NDArray[np.float64], horizons: Horizons
    ) -> Chunk:
        """The chunk whose action T_o - 1 answers the frame stamped `newest_frame_ns`."""
        return cls(newest_frame_ns - (horizons.T_o - 1) * dt_ns, dt_ns, actions, horizons)

    def realigned(self, now_ns: int, done: int, in_flight: int = 0) -> Chunk:
        """The same plan, where `done` commands have moved the arm since what its newest frame shows: the action for now
        is the one behind as many.

        By the clock more of it is past. But where the arm held meanwhile, because there was no plan yet, to leave out
        more would be a leap. Of those commands, `in_flight` were given before that frame, and show late. A plan that
        comes when it is over by the clock is over; else it ends later by as long as the arm held.
        """
        if self.index(now_ns) >= len(self.actions):
            return self
        late = self.index(now_ns) - (self.horizons.executed.start + done)
        return replace(self, t0_ns=self.t0_ns + late * self.dt_ns, in_flight=in_flight)

    @property
    def executed(self) -> slice:
        """The T_a actions meant for execution, or as many as there are behind what is under way."""
        executed = self.horizons.executed
        return slice(executed.start + self.in_flight, min(executed.stop + self.in_flight, len(self.actions)))

    def index(self, now_ns: int) -> int:
        """Which action is for now; may lie outside the chunk."""
        return round((now_ns - self.t0_ns) / self.dt_ns)

    def at(self, now_ns: int) -> NDArray[np.float64] | None:
        """The action (4,) for now; None before the newest frame's own and after the last: an exhausted chunk gives
        nothing."""
        i = self.index(now_ns)
        return self.actions[i] if self.horizons.executed.start <= i < len(self.actions) else None

    def is_due(self, now_ns: int) -> bool:
        """Whether the T_a actions meant for execution are used up, so that a new plan is wanted."""
        return not self.index(now_ns) < self.executed.stop

    def times_ns(self) -> list[int]:
        return [self.t0_ns + i * self.dt_ns for i in range(len(self.actions))]
