"""Commands of an episode, and the actions of chunks that they executed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dp_ros.actions import POSITION, Array, PositionKind, encode_positions
from dp_ros.control.chunk import Chunk
from dp_ros.control.safety import Command
from dp_ros.schema import Horizons


@dataclass(frozen=True)
class Move:
    """Execution of one action of a chunk."""

    time_ns: int
    action: Array  # (D,) absolute, as commanded


class MotionLog:
    """Commands of this episode, and the actions that moved the arm. A hold repeats a command and executes no action."""

    def __init__(self, horizons: Horizons, dt_ns: int) -> None:
        self._horizons, self._dt_ns = horizons, dt_ns
        self._sent: deque[Command] = deque(maxlen=64 + horizons.T_p)
        self._moves: deque[Move] = deque(maxlen=self._sent.maxlen)
        self._index: int | None = None  # of the last executed action of the chunk in use

    def add(self, command: Command, chunk: Chunk | None = None) -> None:
        """Note a command; `chunk` where it executes that chunk's action for its time.

        More than one action is executed where ticks were missed, as a chunk follows the clock.
        """
        self._sent.append(command)
        if chunk is None:
            return
        index = chunk.index(command.stamp_ns)
        passed = 1 if self._index is None else index - self._index
        for back in reversed(range(passed)):
            action = chunk.actions[index - back] if back else command.as_array()
            self._moves.append(Move(command.stamp_ns - back * self._dt_ns, action))
        self._index = index

    def begin_chunk(self) -> None:
        """The next command executes an action of another chunk."""
        self._index = None

    def moves_since(self, time_ns: int) -> list[Move]:
        return [move for move in self._moves if move.time_ns >= time_ns]

    def _before(self, time_ns: int) -> list[Command]:
        """The commands before a time; the first one of the episode where there are none."""
        return [command for command in self._sent if command.stamp_ns < time_ns] or [self._sent[0]]

    def reference_m(self, shown_ns: int) -> Array:
        """(3,): the last commanded position before `shown_ns`; the measured one at the start of an episode."""
        return self._before(shown_ns)[-1].position_m

    def committed(self, shown_ns: int, coming: Sequence[Array], kind: PositionKind) -> Array:
        """Actions of a chunk that are executed before it arrives (T_p, D): of the declared kinds, NaN elsewhere.

        shown_ns: the newest frame of the chunk shows the commands before this time. coming: absolute actions (D,) that
        will be executed until the chunk arrives. Index T_o - 1 is the first action after `shown_ns`, as in a chunk.
        A gripper that was not commanded is NaN, too.
        """
        T_o, T_p = self._horizons.T_o, self._horizons.T_p
        before = [command.as_array() for command in self._before(shown_ns)[-T_o:]]
        path = [before[0]] * (T_o - len(before)) + before
        path += [*(move.action for move in self.moves_since(shown_ns)), *coming]
        known = np.array(path[: T_p + 1])  # one more than actions: each step begins at the one before
        last = np.repeat(known[-1:], T_p + 1 - len(known), axis=0)
        whole, is_free = np.concatenate([known, last]), np.arange(T_p) >= len(known) - 1
        actions = whole[1:].copy()
        actions[:, POSITION.slice] = encode_positions(
            POSITION.of(whole[1:]), POSITION.of(whole[:-1]), is_free, self._horizons, kind
        )
        actions[is_free] = np.nan
        return actions
