"""A plan in time: T_p actions, each with the moment it is for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp_ros.schema import Horizons


@dataclass(frozen=True)
class Chunk:
    """Absolute actions (T_p, 4) for t0, t0 + dt, ...; t0 is the time of the oldest observed frame."""

    t0_ns: int
    dt_ns: int
    actions: NDArray[np.float64]
    horizons: Horizons
    given: int = 0  # of the executed part, how many actions were commanded before the plan was made

    @classmethod
    def after(
        cls,
        newest_frame_ns: int,
        dt_ns: int,
        actions: NDArray[np.float64],
        horizons: Horizons,
        delay_ns: int = 0,
    ) -> Chunk:
        """The chunk whose action T_o - 1 answers the frame stamped `newest_frame_ns`.

        Where commands take `delay_ns` to show, that frame shows what was commanded so long before: the answer was for
        then, and so many actions of the chunk stand for commands that are under way.
        """
        t0_ns = newest_frame_ns - delay_ns - (horizons.T_o - 1) * dt_ns
        return cls(t0_ns, dt_ns, actions, horizons, round(delay_ns / dt_ns))

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
        stop = min(self.horizons.executed.stop + self.given, len(self.actions))
        return not self.index(now_ns) < stop

    def times_ns(self) -> list[int]:
        return [self.t0_ns + i * self.dt_ns for i in range(len(self.actions))]
