"""Action chunk aligned to control ticks: T_p actions, each with the time it is for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import POSITION, PositionKind, encode_positions
from dp_ros.schema import Horizons


@dataclass(frozen=True)
class Chunk:
    """Absolute actions (T_p, D) for t0, t0 + dt, ...

    t0 is the time of the oldest observed frame, or later where the arm held while the plan was computed.
    """

    t0_ns: int
    dt_ns: int
    actions: NDArray[np.float64]
    horizons: Horizons
    in_flight: int = 0  # actions from T_o - 1 on that repeat commands sent before the newest frame
    frame_ns: int | None = None  # stamp of the newest frame that it was planned from
    slowed: float = 0.0  # ticks by which it is behind the clock, because limits slowed it
    held: float = 0.0  # further ticks by which it is behind, because the arm held

    @classmethod
    def after(
        cls, newest_frame_ns: int, dt_ns: int, actions: NDArray[np.float64], horizons: Horizons
    ) -> Chunk:
        """The chunk whose action T_o - 1 belongs to the frame stamped `newest_frame_ns`."""
        t0_ns = newest_frame_ns - (horizons.T_o - 1) * dt_ns
        return cls(t0_ns, dt_ns, actions, horizons, frame_ns=newest_frame_ns)

    def realigned(self, now_ns: int, executed: int, in_flight: int = 0) -> Chunk:
        """The same chunk, shifted in time so that the action for now follows the last executed one.

        executed: commands that have moved the arm since the state shown in the newest frame. in_flight: those of them
        that were sent before that frame.

        By the clock, more actions may be past. But where the arm held because there was no plan yet, skipping them
        would be a leap. A chunk that is over by the clock stays over.
        """
        if self.index(now_ns) >= len(self.actions):
            return self
        late = self.index(now_ns) - (self.horizons.executed.start + executed)
        return replace(self, t0_ns=self.t0_ns + late * self.dt_ns, in_flight=in_flight)

    def shifted(self, now_ns: int, last_m: NDArray[np.float64], reference_m: NDArray[np.float64]) -> Chunk:
        """This chunk, moved so that its path continues from the last command `last_m` (3,): its steps count.

        reference_m (3,): where the path begins, before action T_o - 1, whatever the network predicts there.

        While a plan is computed, the chunk before it moves the arm, and the plan's reference is a command of the chunk
        before that. Without the shift, every other chunk continues one path and the rest another. The two drift apart,
        and the arm leaps between them.
        """
        i, first = self.index(now_ns), self.horizons.executed.start
        if not first <= i < len(self.actions):
            return self
        actions = self.actions.copy()
        actions[:, POSITION.slice] += last_m - (
            reference_m if i == first else POSITION.of(self.actions[i - 1])
        )
        return replace(self, actions=actions)

    def blended(self, before: Chunk, now_ns: int) -> Chunk:
        """This chunk, entered gradually from the chunk `before`, where both have actions from now on.

        Temporal ensembling (Zhao et al. 2023, ACT) for chunks that overlap in n actions: the weight of this chunk rises
        in equal steps, from 1 / (n + 1) to n / (n + 1). With their weights, which hardly depend on age, the arm would
        leap where `before` ends, because a chunk overlaps few others here. Actions of `before` that are not finite do
        not count.
        """
        i, j = self.index(now_ns), before.index(now_ns)
        n = min(len(self.actions) - i, len(before.actions) - j)
        if n <= 0 or min(i, j) < 0:
            return self
        actions = self.actions.copy()
        old, new = before.actions[j : j + n], self.actions[i : i + n]
        weight = (np.arange(1, n + 1) / (n + 1))[:, None]
        with np.errstate(invalid="ignore"):  # what is not finite in the new chunk stays so, and holds
            actions[i : i + n] = np.where(np.isfinite(old), old + weight * (new - old), new)
        return replace(self, actions=actions)

    def continued(self, now_ns: int, kind: PositionKind) -> NDArray[np.float64]:
        """This chunk as a network would predict it now (T_p, D): index T_o - 1 is the action for `now_ns`.

        Positions become the kind `kind`. After the last action its step is repeated, and the gripper is kept.
        """
        T_p, first = len(self.actions), self.index(now_ns) - self.horizons.executed.start
        at = np.arange(first - 1, first + T_p)  # one more than actions: each step begins at the one before
        path = self.actions[at.clip(0, T_p - 1)]
        last_step_m = np.diff(POSITION.of(self.actions[-2:]), axis=0).sum(axis=0)
        positions = POSITION.of(path) + np.maximum(at - (T_p - 1), 0)[:, None] * last_step_m
        actions: NDArray[np.float64] = path[1:].copy()
        actions[:, POSITION.slice] = encode_positions(
            positions[1:], positions[:-1], np.zeros(T_p, dtype=bool), self.horizons, kind
        )
        return actions

    @property
    def executed(self) -> slice:
        """The T_a actions to execute, or as many as follow those in flight."""
        executed = self.horizons.executed
        return slice(executed.start + self.in_flight, min(executed.stop + self.in_flight, len(self.actions)))

    def progress(self, now_ns: int) -> float:
        """Index of the action for now; between two actions where the chunk was slowed by a part of a tick."""
        return round((now_ns - self.t0_ns) / self.dt_ns) - self.slowed - self.held

    def index(self, now_ns: int) -> int:
        """Index of the action for now, or of the next one; it may lie outside the chunk."""
        return math.ceil(self.progress(now_ns) - 1e-9)

    def behind(self, ticks: float) -> Chunk:
        """The same chunk, that much later."""
        return replace(self, slowed=self.slowed + ticks)

    def is_same(self, other: Chunk) -> bool:
        """Whether both are of one plan: the chunk now, and as it was before limits slowed it."""
        return self.actions is other.actions

    def at(self, now_ns: int) -> NDArray[np.float64] | None:
        """The action (D,) for now; None before the newest frame's own action and after the last one.

        Between two actions, the position is between theirs, and the rest is the next one's.
        """
        i, first = self.index(now_ns), self.horizons.executed.start
        if not first <= i < len(self.actions):
            return None
        missing = i - self.progress(now_ns)
        if missing <= 1e-9 or i == first:
            return np.asarray(self.actions[i])
        action: NDArray[np.float64] = self.actions[i].copy()
        with np.errstate(invalid="ignore"):  # what is not finite stays so, and holds
            action[POSITION.slice] -= missing * (POSITION.of(action) - POSITION.of(self.actions[i - 1]))
        return action

    def is_due(self, now_ns: int) -> bool:
        """Whether the actions to execute are used up, so that a new plan is due. Held ticks count as used."""
        return not replace(self, held=0.0).index(now_ns) < self.executed.stop

    def times_ns(self) -> list[int]:
        return [self.t0_ns + i * self.dt_ns for i in range(len(self.actions))]
