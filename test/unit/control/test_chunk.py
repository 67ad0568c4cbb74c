"""A plan in time: the action of its moment, or none."""

from __future__ import annotations

import numpy as np
import pytest

from dp_ros.actions import POSITION, PositionKind, decode_positions, gripper_of
from dp_ros.control.chunk import Chunk
from dp_ros.schema import Horizons

DT = 12_500_000
FRAME = 5_000_000_000  # stamp of the newest frame
ACTIONS = np.arange(32, dtype=np.float64).reshape(8, 4)


def chunk(T_o: int = 2, T_a: int = 4) -> Chunk:
    return Chunk.after(FRAME, DT, ACTIONS, Horizons(T_o=T_o, T_p=8, T_a=T_a))


def index_at(ticks: float, T_o: int = 2) -> int | None:
    action = chunk(T_o).at(FRAME + round(ticks * DT))
    return None if action is None else int(action[0]) // 4


@pytest.mark.parametrize(
    ("ticks", "index"),
    [(-2, None), (-1, None), (-0.51, None), (-0.49, 1), (0, 1), (0.49, 1), (0.51, 2), (1, 2), (3, 4), (6, 7)],
)
def test_the_action_is_that_of_its_moment(ticks: float, index: int | None) -> None:
    assert index_at(ticks) == index


def test_an_exhausted_chunk_gives_nothing() -> None:
    assert index_at(6.49) == 7
    assert index_at(6.51) is None
    assert index_at(1e6) is None


def test_actions_before_the_newest_frame_are_never_executed() -> None:
    assert [index_at(t, T_o=3) for t in range(-3, 2)] == [None, None, None, 2, 3]


def test_a_new_plan_is_due_when_the_executed_part_is_used_up() -> None:
    due = [chunk().is_due(FRAME + tick * DT) for tick in range(6)]
    assert due == [False, False, False, False, True, True]


@pytest.mark.parametrize(
    ("before", "since", "executed"),
    [
        (0, 0, [1, 2, 3, 4]),
        (2, 0, [3, 4, 5, 6]),
        (3, 0, [4, 5, 6, 7]),
        (6, 0, [7]),
        (7, 0, []),
        (0, 2, [3, 4]),  # while the plan was made, the one before it went on
        (2, 2, [5, 6]),
    ],
)
def test_what_was_commanded_already_is_not_executed_again(
    before: int, since: int, executed: list[int]
) -> None:
    """Where commands take ticks to show, those from before the frame are under way."""
    now_ns = FRAME + since * DT
    joined = chunk().realigned(now_ns, before + since, before)
    ticks = [tick for tick in range(10) if not joined.is_due(now_ns + tick * DT)]
    assert [joined.index(now_ns + tick * DT) for tick in ticks] == executed
    assert list(range(8))[joined.executed][since:] == executed


def test_plan_that_is_over_by_the_clock_is_not_begun() -> None:
    late, too_late = (FRAME + ticks * DT for ticks in (6, 7))
    assert chunk().realigned(late, 0).index(late) == 1
    assert chunk().realigned(too_late, 0).at(too_late) is None


@pytest.mark.parametrize("kind", ["absolute", "relative", "delta"])
@pytest.mark.parametrize("T_o", [1, 2, 3])
@pytest.mark.parametrize("passed", [0, 3, 6, 9])
def test_a_continued_chunk_decodes_to_its_own_actions_and_then_goes_on(
    kind: PositionKind, T_o: int, passed: int
) -> None:
    """Positions are the square of the tick until the chunk ends, then its last step is repeated."""
    now, horizons = T_o - 1, Horizons(T_o=T_o, T_p=8, T_a=4)
    ticks = np.arange(8.0)[:, None] * [1, 1, 1, 1]
    plan = Chunk.after(FRAME, DT, ticks**2, horizons)
    chunk = plan.continued(FRAME + passed * DT, kind)
    at = np.arange(now + passed, 8 + passed)  # of the actions from now on
    expected = np.where(at < 8, at**2.0, 49.0 + 13.0 * (at - 7))
    reference = at[0] - 1
    reference_m = np.full(3, reference**2.0 if reference < 8 else 49.0 + 13.0 * (reference - 7))
    if reference >= 0:
        decoded = decode_positions(POSITION.of(chunk), reference_m, horizons, kind)
        np.testing.assert_allclose(decoded[now:, 0], expected[: 8 - now])
    np.testing.assert_allclose(gripper_of(chunk)[now:], np.minimum(at, 7)[: 8 - now] ** 2.0)


def test_every_action_has_its_time() -> None:
    times_ns = chunk(T_o=2).times_ns()
    assert times_ns == [FRAME + (i - 1) * DT for i in range(8)]
    assert all(chunk().index(t) == i for i, t in enumerate(times_ns))


def test_large_stamps_are_not_rounded() -> None:
    """Nanoseconds since 1970 do not fit into a float."""
    now_ns = 1_800_000_000_123_456_789
    late = Chunk.after(now_ns, DT, ACTIONS, Horizons())
    assert [late.index(now_ns + i * DT) for i in range(6)] == [1, 2, 3, 4, 5, 6]
    assert late.times_ns()[1] == now_ns
