"""Who computes plans: the caller itself, or one thread that always takes the newest request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PlanRequest:
    """A window of frames to plan from."""

    images: NDArray[np.uint8]  # (T_o, V, H, W, 3)
    state: Array  # (T_o, 4): ee_x, ee_y, ee_z [m], gripper
    reference_m: Array  # (3,): the last command whose effect the newest frame shows
    stamp_ns: int  # of the newest frame
    seed: tuple[int, ...]  # of the sampler's noise


@dataclass(frozen=True)
class PlanResult:
    """An answer: the network's chunk (T_p, 4), of the declared kinds, or why there is none."""

    request: PlanRequest
    chunk: Array | None
    error: str | None
    duration_s: float


InferenceFn = Callable[[PlanRequest], Array]


class Planner(Protocol):
    """What the controller needs of whoever computes plans."""

    def request(self, request: PlanRequest) -> None:
        """Ask for a plan; a request still waiting is replaced."""

    def poll(self) -> PlanResult | None:
        """A finished plan, once."""

    @property
    def busy(self) -> bool:
        """Whether a request is waiting or being worked on."""


def run_plan(plan: InferenceFn, request: PlanRequest, caught: type[BaseException] = Exception) -> PlanResult:
    """One inference, timed; an exception of the kind `caught` becomes a plan without a chunk, and so a hold."""
    began = time.perf_counter()
    try:
        chunk, error = np.asarray(plan(request), dtype=np.float64), None
    except caught as exception:
        chunk, error = None, f"{type(exception).__name__}: {exception}"
    return PlanResult(request, chunk, error, time.perf_counter() - began)


class InlinePlanner:
    """Plans when asked, in the caller's thread: in-process rollouts. Ctrl-C while it plans reaches the caller."""

    def __init__(self, plan: InferenceFn) -> None:
        self._plan = plan
        self._finished: PlanResult | None = None

    def request(self, request: PlanRequest) -> None:
        self._finished = run_plan(self._plan, request)

    def poll(self) -> PlanResult | None:
        finished, self._finished = self._finished, None
        return finished

    @property
    def busy(self) -> bool:
        return False


class PlanWorker:
    """One thread that loads the engine, then answers the newest request; `on_finished` is called from it.

    The engine is loaded and called on the same thread: compiled GPU models misbehave otherwise.
    """

    def __init__(
        self, load: Callable[[], InferenceFn], on_finished: Callable[[], None] | None = None
    ) -> None:
        """Returns when the engine is loaded, and raises what loading raised."""
        self._on_finished = on_finished
        self._wake = threading.Condition()
        self._waiting: PlanRequest | None = None
        self._finished: PlanResult | None = None
        self._working = False
        self._stop = False
        self._load_error: BaseException | None = None
        loaded = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(load, loaded), name="plan-worker", daemon=True
        )
        self._thread.start()
        loaded.wait()
        if self._load_error is not None:
            raise self._load_error

    def request(self, request: PlanRequest) -> None:
        with self._wake:
            self._waiting = request
            self._wake.notify()

    def poll(self) -> PlanResult | None:
        with self._wake:
            finished, self._finished = self._finished, None
            return finished

    @property
    def busy(self) -> bool:
        with self._wake:
            return self._working or self._waiting is not None

    def close(self, timeout_s: float = 5.0) -> None:
        with self._wake:
            self._stop = True
            self._wake.notify()
        self._thread.join(timeout_s)

    def _run(self, load: Callable[[], InferenceFn], loaded: threading.Event) -> None:
        try:
            plan = load()
        except BaseException as error:
            self._load_error = error
            return
        finally:
            loaded.set()
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stop or self._waiting is not None)
                if self._stop:
                    return
                request, self._waiting, self._working = self._waiting, None, True
            assert request is not None
            # Whatever the engine raises must end in a hold, not in a dead thread.
            finished = run_plan(plan, request, BaseException)
            with self._wake:
                self._finished, self._working = finished, False
                if self._stop:  # nobody is left to tell
                    return
            if self._on_finished:
                self._on_finished()
