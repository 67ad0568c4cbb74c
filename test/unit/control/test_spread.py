"""Spread of a plan: samples are placed as the chunk in use is, and belong to its plan only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from dp_ros.control.chunk import Chunk
from dp_ros.control.planner import PlanRequest, PlanResult, Spread
from dp_ros.control.spread import PlanSpread
from dp_ros.schema import PolicyConfig

FRAME_NS, DT_NS = 10**9, 50_000_000
REFERENCE_M = np.array([0.1, 0.6, 0.2])


class Worker:
    """A worker whose samples are there at once."""

    def __init__(self, samples: np.ndarray) -> None:
        self._samples, self._request = samples, None

    def sample(self, request: PlanRequest, count: int) -> None:
        self._request, self._samples = request, self._samples[:count]

    def spread(self) -> Spread | None:
        return Spread(self._request, self._samples) if self._request is not None else None


@pytest.fixture
def policy(small_policy: Mapping[str, Any]) -> PolicyConfig:
    return PolicyConfig.model_validate(dict(small_policy))


@pytest.fixture
def plan() -> PlanResult:
    request = PlanRequest((), np.zeros((2, 4)), REFERENCE_M, FRAME_NS, (0, 0))
    chunk = np.zeros((8, 4))
    chunk[:, 0] = 0.01 * np.arange(8)
    return PlanResult(request, chunk, None, 0.01)


@pytest.fixture
def samples(plan: PlanResult) -> np.ndarray:
    """Above the plan by 1, 2 and 3 cm."""
    assert plan.chunk is not None
    drawn = np.repeat(plan.chunk[None], 3, axis=0)
    drawn[:, :, 2] += np.array([0.01, 0.02, 0.03])[:, None]
    return drawn


def chunk_of(policy: PolicyConfig, positions_m: np.ndarray) -> Chunk:
    actions = np.concatenate([positions_m, np.zeros((8, 1))], axis=1)
    return Chunk.after(FRAME_NS, DT_NS, actions, policy.horizons)


def test_samples_lie_around_the_chunk_where_it_was_moved(
    policy: PolicyConfig, plan: PlanResult, samples: np.ndarray
) -> None:
    spread = PlanSpread(policy, 3, Worker(samples))  # type: ignore[arg-type]
    spread.begin(plan)
    positions_m = np.random.default_rng(0).uniform(size=(8, 3))
    drawn = spread.of(chunk_of(policy, positions_m))
    assert drawn is not None
    above = np.array([0.01, 0.02, 0.03])[:, None]
    np.testing.assert_allclose(drawn[..., :2], np.broadcast_to(positions_m[:, :2], (3, 8, 2)), atol=1e-9)
    np.testing.assert_allclose(drawn[..., 2] - positions_m[:, 2], np.broadcast_to(above, (3, 8)), atol=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        lambda chunk: None,
        lambda chunk: Chunk.after(FRAME_NS + DT_NS, DT_NS, chunk.actions, chunk.horizons),
        lambda chunk: Chunk.after(FRAME_NS, DT_NS, chunk.actions * np.nan, chunk.horizons),
    ],
    ids=["no chunk", "of another plan", "not finite"],
)
def test_nothing_is_drawn_without_the_chunk_of_the_plan(
    change: Callable[[Chunk], Chunk | None], policy: PolicyConfig, plan: PlanResult, samples: np.ndarray
) -> None:
    spread = PlanSpread(policy, 3, Worker(samples))  # type: ignore[arg-type]
    spread.begin(plan)
    assert spread.of(change(chunk_of(policy, np.zeros((8, 3))))) is None


def test_by_default_no_sample_is_asked_for(
    policy: PolicyConfig, plan: PlanResult, samples: np.ndarray
) -> None:
    worker = Worker(samples)
    spread = PlanSpread(policy, 0, worker)  # type: ignore[arg-type]
    spread.begin(plan)
    assert worker.spread() is None
    assert spread.of(chunk_of(policy, np.zeros((8, 3)))) is None
