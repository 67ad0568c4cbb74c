"""Who computes plans: one thread, the newest request, and no exception that gets lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from dp_ros.control.planner import (
    DelayedPlanner,
    InferenceFn,
    InlinePlanner,
    Pictures,
    PlanRequest,
    PlanResult,
    PlanWorker,
)

DEADLINE_S = 20.0


def request(stamp_ns: int) -> PlanRequest:
    return PlanRequest(
        ((np.zeros((2, 2, 3), np.uint8),),) * 2, np.zeros((2, 4)), np.zeros(3), stamp_ns, (0, stamp_ns)
    )


def engine(asked: PlanRequest) -> np.ndarray:
    return np.full((8, 4), asked.stamp_ns)


class Gated:
    """An engine that answers one request each time it is let."""

    def __init__(self) -> None:
        self.began, self.may = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, asked: PlanRequest) -> np.ndarray:
        self.began.release()
        assert self.may.acquire(timeout=DEADLINE_S)
        return engine(asked)


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[PlanWorker, threading.Semaphore]]]:
    """Workers that are closed in any case, each with a semaphore that counts its finished plans."""
    workers: list[PlanWorker] = []

    def start(plan: InferenceFn) -> tuple[PlanWorker, threading.Semaphore]:
        finished = threading.Semaphore(0)
        workers.append(PlanWorker(lambda: plan, finished.release))
        return workers[-1], finished

    yield start
    for worker in workers:
        worker.close()


def take(worker: PlanWorker, finished: threading.Semaphore) -> PlanResult:
    assert finished.acquire(timeout=DEADLINE_S)
    plan = worker.poll()
    assert plan is not None
    return plan


def test_a_plan_is_made_of_the_request_and_given_once(start: Callable[..., tuple]) -> None:
    worker, finished = start(engine)
    assert worker.poll() is None
    asked = request(5)
    worker.request(asked)
    plan = take(worker, finished)
    assert plan.request is asked
    np.testing.assert_array_equal(plan.chunk, np.full((8, 4), 5.0))
    assert plan.error is None
    assert plan.duration_s >= 0
    assert worker.poll() is None
    assert not worker.busy


def test_the_newest_request_wins(start: Callable[..., tuple]) -> None:
    gated = Gated()
    worker, finished = start(gated)
    worker.request(request(1))
    assert gated.began.acquire(timeout=DEADLINE_S)
    for stamp in (2, 3, 4):  # while the first is being worked on
        worker.request(request(stamp))
    assert worker.busy
    gated.may.release()
    assert take(worker, finished).request.stamp_ns == 1
    assert gated.began.acquire(timeout=DEADLINE_S)
    assert worker.busy
    gated.may.release()
    assert take(worker, finished).request.stamp_ns == 4
    assert not worker.busy
    assert not gated.began.acquire(blocking=False)


def test_an_exception_becomes_a_plan_that_says_so_and_the_next_one_is_made(
    start: Callable[..., tuple],
) -> None:
    def fragile(asked: PlanRequest) -> np.ndarray:
        if asked.stamp_ns == 1:
            raise RuntimeError("out of memory")
        return engine(asked)

    worker, finished = start(fragile)
    worker.request(request(1))
    plan = take(worker, finished)
    assert plan.chunk is None
    assert plan.error == "RuntimeError: out of memory"
    worker.request(request(2))
    assert take(worker, finished).chunk is not None


def test_what_loading_raises_is_raised_where_the_worker_is_made() -> None:
    def load() -> InferenceFn:
        raise FileNotFoundError("models/none")

    before = threading.active_count()
    with pytest.raises(FileNotFoundError, match="models/none"):
        PlanWorker(load)
    for thread in threading.enumerate():
        if thread.name == "plan-worker":
            thread.join(DEADLINE_S)
    assert threading.active_count() <= before


def test_engine_is_loaded_and_called_on_one_thread_that_is_not_the_callers(
    start: Callable[..., tuple],
) -> None:
    threads: list[int] = []
    finished = threading.Semaphore(0)

    def load() -> InferenceFn:
        threads.append(threading.get_ident())

        def plan(asked: PlanRequest) -> np.ndarray:
            threads.append(threading.get_ident())
            return engine(asked)

        return plan

    worker = PlanWorker(load, finished.release)
    worker.request(request(1))
    take(worker, finished)
    worker.close()
    assert len(threads) == 2
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


def test_close_ends_the_thread() -> None:
    worker = PlanWorker(lambda: engine)
    assert any(thread.name == "plan-worker" for thread in threading.enumerate())
    worker.close()
    assert not any(thread.name == "plan-worker" for thread in threading.enumerate())


def test_inline_planner_answers_in_the_call() -> None:
    planner = InlinePlanner(engine)
    assert planner.poll() is None
    planner.request(request(3))
    assert not planner.busy
    plan = planner.poll()
    assert plan is not None
    assert plan.request.stamp_ns == 3
    assert planner.poll() is None


def test_inline_planner_turns_an_exception_into_a_plan_that_says_so() -> None:
    def broken(asked: PlanRequest) -> np.ndarray:
        raise ValueError("shape")

    planner = InlinePlanner(broken)
    planner.request(request(1))
    plan = planner.poll()
    assert plan is not None
    assert (plan.chunk, plan.error) == (None, "ValueError: shape")


@pytest.mark.parametrize("delay_ns", [0, 30])
def test_delayed_planner_gives_its_plan_once_after_its_virtual_time(delay_ns: int) -> None:
    clock_ns = [100]
    planner = DelayedPlanner(engine, delay_ns, lambda: clock_ns[-1])
    assert not planner.busy
    planner.request(request(3))
    for now_ns in range(100, 100 + delay_ns, 10):
        clock_ns.append(now_ns)
        assert planner.busy
        assert planner.poll() is None
    clock_ns.append(100 + delay_ns)
    assert not planner.busy
    plan = planner.poll()
    assert plan is not None
    assert (plan.request.stamp_ns, plan.duration_s) == (3, delay_ns / 1e9)
    assert planner.poll() is None


def interrupted(asked: PlanRequest) -> np.ndarray:
    raise KeyboardInterrupt


def test_ctrl_c_while_planning_inline_reaches_the_caller() -> None:
    planner = InlinePlanner(interrupted)
    with pytest.raises(KeyboardInterrupt):
        planner.request(request(1))
    assert planner.poll() is None


def test_what_is_no_ordinary_exception_does_not_end_the_thread(start: Callable[..., tuple]) -> None:
    worker, finished = start(interrupted)
    for stamp_ns in (1, 2):
        worker.request(request(stamp_ns))
        plan = take(worker, finished)
        assert plan.chunk is None
        assert plan.error.startswith("KeyboardInterrupt")


class Encoding(Gated):
    """An engine that also encodes one frame each time it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.encodes, self.may_encode = threading.Semaphore(0), threading.Semaphore(0)

    def prefetch(self, pictures: Pictures) -> None:
        self.encodes.release()
        assert self.may_encode.acquire(timeout=DEADLINE_S)


def test_a_plan_knows_how_long_it_waited_for_a_frame_that_was_being_encoded(
    start: Callable[..., tuple],
) -> None:
    plan = Encoding()
    worker, finished = start(plan)
    plan.may.release()
    worker.request(request(1))
    assert take(worker, finished).waited_s == 0.0
    worker.offer(request(2).images[0])
    assert plan.encodes.acquire(timeout=DEADLINE_S)
    began_s = time.perf_counter()
    worker.request(request(2))
    requested_s = time.perf_counter()
    plan.may_encode.release()
    plan.may.release()
    took = take(worker, finished)
    assert 0.0 < took.waited_s <= took.finished_s - began_s - took.duration_s
    assert requested_s <= took.finished_s <= time.perf_counter()


class Noted(Gated):
    """An engine that keeps the requests."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[PlanRequest] = []

    def __call__(self, asked: PlanRequest) -> np.ndarray:
        self.asked.append(asked)
        return super().__call__(asked)


def wait_until(done: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def test_samples_of_a_plan_have_noise_of_their_own(start: Callable[..., tuple]) -> None:
    plan = Noted()
    worker, finished = start(plan)
    plan.may.release(4)
    worker.request(request(1))
    made = take(worker, finished)
    assert worker.spread() is None
    worker.sample(made.request, 3)
    wait_until(lambda: (spread := worker.spread()) is not None and len(spread.chunks) == 3)
    spread = worker.spread()
    assert spread is not None
    assert spread.request is made.request
    assert spread.chunks.shape == (3, 8, 4)
    assert len({asked.seed for asked in plan.asked}) == 4
    assert {asked.stamp_ns for asked in plan.asked} == {1}
    assert worker.poll() is None


def test_a_request_waits_for_one_sample_at_most(start: Callable[..., tuple]) -> None:
    plan = Noted()
    worker, finished = start(plan)
    plan.may.release()
    worker.request(request(1))
    made = take(worker, finished)
    worker.sample(made.request, 30)
    for _ in range(2):  # the plan, and the first sample
        assert plan.began.acquire(timeout=DEADLINE_S)
    assert not worker.busy
    worker.request(request(2))
    plan.may.release(2)
    newer = take(worker, finished)
    assert newer.request.stamp_ns == 2
    assert newer.waited_s > 0
    assert [asked.stamp_ns for asked in plan.asked] == [1, 1, 2]
    worker.request(request(3))
    plan.may.release()
    assert take(worker, finished).request.stamp_ns == 3
    assert len(plan.asked) == 4  # the other 29 samples were given up


def test_a_sample_that_fails_is_left_out(start: Callable[..., tuple]) -> None:
    def plan(asked: PlanRequest) -> np.ndarray:
        if asked.seed[-1] == 1:
            raise ValueError("no")
        return engine(asked)

    worker, finished = start(plan)
    worker.request(request(5))
    made = take(worker, finished)
    worker.sample(made.request, 3)
    wait_until(lambda: (spread := worker.spread()) is not None and len(spread.chunks) == 2)
    worker.request(request(6))
    assert take(worker, finished).chunk is not None
