"""Spread of a plan: further samples of it, for drawings only. They are placed as the chunk in use."""

from __future__ import annotations

import numpy as np

from dp_ros.actions import POSITION, decode_positions
from dp_ros.control.chunk import Chunk
from dp_ros.control.planner import Array, PlanResult, PlanWorker
from dp_ros.schema import PolicyConfig


class PlanSpread:
    """Samples of the newest plan, drawn by the worker while it has nothing else to do."""

    def __init__(self, policy: PolicyConfig, count: int, worker: PlanWorker) -> None:
        """count: samples of each plan; 0: none."""
        self._policy, self._count, self._worker = policy, count, worker
        self._plan: PlanResult | None = None

    def begin(self, plan: PlanResult) -> None:
        """Ask for the samples of a plan that has just arrived."""
        if self._count and plan.chunk is not None:
            self._plan = plan
            self._worker.sample(plan.request, self._count)

    def of(self, chunk: Chunk | None) -> Array | None:
        """Positions (n, T_p, 3) [m] of the samples so far of the chunk in use; None where there are none.

        Each is moved as the chunk was, where it continues the one before (see `Chunk.shifted` and `blended`).
        """
        if not self._count or chunk is None or self._plan is None or self._plan.chunk is None:
            return None
        spread = self._worker.spread()
        request = self._plan.request
        if spread is None or spread.request is not request or chunk.frame_ns != request.stamp_ns:
            return None
        drawn = [POSITION.of(sample) for sample in (self._plan.chunk, *spread.chunks)]
        horizons, kind = self._policy.horizons, self._policy.action.position
        planned, *others = (decode_positions(each, request.reference_m, horizons, kind) for each in drawn)
        moved = np.array(others) + (POSITION.of(chunk.actions) - planned)
        return moved if np.isfinite(moved).all() else None
