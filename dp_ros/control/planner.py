"""Planners: the caller's own thread, the same on virtual time, or one worker thread that takes the newest request."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_SAMPLES = 7919  # begins the noise of samples: no plan has it
Pictures = tuple[NDArray[np.uint8], ...]  # of one frame, in the policy's order of cameras


@dataclass(frozen=True)
class PlanRequest:
    """Window of frames to plan from."""

    images: tuple[Pictures, ...]  # T_o frames of V pictures (H, W, 3), the oldest first
    state: Array  # (T_o, STATE_DIM): position [m] and gripper opening, see dp_ros.actions
    reference_m: Array  # (3,): the last commanded position whose effect the newest frame shows
    stamp_ns: int  # of the newest frame
    seed: tuple[int, ...]  # of the sampler's noise
    # (T_p, ACTION_DIM) of the declared kinds: actions that are executed in any case, which the chunk must repeat; NaN
    # where it is free. None: it is free everywhere.
    committed: Array | None = None
    # (D,): embedding of the sentence, for a policy with `instruction`.
    instruction: NDArray[np.float32] | None = None
    # (T_p, ACTION_DIM) of the declared kinds: the plan before, continued, where `warm_start` asks for it.
    guess: Array | None = None


@dataclass(frozen=True)
class PlanResult:
    """Predicted chunk (T_p, ACTION_DIM) of the declared kinds, or the reason why there is none."""

    request: PlanRequest
    chunk: Array | None
    error: str | None
    duration_s: float
    finished_s: float = math.nan  # when it was there, on the clock of time.perf_counter
    waited_s: float = 0.0  # until a prefetch or sample ended that was in progress when the plan was requested
    # (V,) of the newest frame's pictures, see `Engine.ood_scores`; None where there are none.
    ood_scores: Array | None = None


InferenceFn = Callable[[PlanRequest], Array]  # an engine, which has `prefetch`, too, or any function


class Planner(Protocol):
    """Interface between the controller and the computation of plans."""

    def request(self, request: PlanRequest) -> None:
        """Request a plan; it replaces a request that still waits."""

    def offer(self, pictures: Pictures) -> None:
        """Pictures of a frame that the next request will contain, to be encoded while nothing else is to do."""

    def poll(self) -> PlanResult | None:
        """A finished plan, once."""

    @property
    def busy(self) -> bool:
        """Whether a request waits or is being computed."""


def run_plan(plan: InferenceFn, request: PlanRequest, caught: type[BaseException] = Exception) -> PlanResult:
    """One timed inference. An exception of the kind `caught` becomes a result without a chunk, and so a hold."""
    began = time.perf_counter()
    score = getattr(plan, "ood_scores", None)  # a plain function has none
    scores = None
    try:
        chunk, error = np.asarray(plan(request), dtype=np.float64), None
        scores = score(request.images[-1]) if score else None
    except caught as exception:
        chunk, error = None, f"{type(exception).__name__}: {exception}"
    finished_s = time.perf_counter()
    return PlanResult(request, chunk, error, finished_s - began, finished_s, ood_scores=scores)


class InlinePlanner:
    """Planner in the caller's thread, for in-process rollouts. Ctrl-C during a plan reaches the caller."""

    def __init__(self, plan: InferenceFn) -> None:
        self._plan = plan
        self._finished: PlanResult | None = None

    def request(self, request: PlanRequest) -> None:
        self._finished = run_plan(self._plan, request)

    def offer(self, pictures: Pictures) -> None:
        """Nothing: the caller would wait for it."""

    def poll(self) -> PlanResult | None:
        finished, self._finished = self._finished, None
        return finished

    @property
    def busy(self) -> bool:
        return False


class DelayedPlanner:
    """Inline planner on virtual time: a plan is computed at once, and arrives `delay_ns` after its request.

    Its duration is that delay, whatever the computation took, so that an episode does not depend on the machine.
    """

    def __init__(self, plan: InferenceFn, delay_ns: int, now_ns: Callable[[], int]) -> None:
        """now_ns: the virtual time."""
        self._plan, self._delay_ns, self._now_ns = plan, delay_ns, now_ns
        self._coming: PlanResult | None = None
        self._due_ns = 0

    def request(self, request: PlanRequest) -> None:
        self._coming = replace(run_plan(self._plan, request), duration_s=self._delay_ns / 1e9)
        self._due_ns = self._now_ns() + self._delay_ns

    def offer(self, pictures: Pictures) -> None:
        """Nothing: computation takes no virtual time."""

    def poll(self) -> PlanResult | None:
        if self.busy:
            return None
        finished, self._coming = self._coming, None
        return finished

    @property
    def busy(self) -> bool:
        return self._coming is not None and self._now_ns() < self._due_ns


@dataclass(frozen=True)
class Spread:
    """Further samples of a plan, (n, T_p, ACTION_DIM) of the declared kinds."""

    request: PlanRequest
    chunks: Array


class PlanWorker:
    """One thread that loads the engine, then answers the newest request and calls `on_finished`.

    Without a request, it lets the engine prefetch the newest pictures offered. With neither, it draws the samples that
    `sample` asked for, one at a time, so that a plan waits for one at most. The engine is loaded and called on the same
    thread, because compiled GPU models fail on others.
    """

    def __init__(
        self, load: Callable[[], InferenceFn], on_finished: Callable[[], None] | None = None
    ) -> None:
        """Return when the engine is loaded; raise the error of loading."""
        self._on_finished = on_finished
        self._wake = threading.Condition()
        self._waiting: PlanRequest | None = None
        self._requested_s = self._prefetched_s = 0.0  # when the last of each came and ended
        self._offered: Pictures | None = None
        self._sampled: PlanRequest | None = None  # whose samples are asked for
        self._samples: list[Array] = []
        self._samples_wanted = 0
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
            self._waiting, self._requested_s = request, time.perf_counter()
            self._samples_wanted = 0  # of a plan that will soon be replaced
            self._wake.notify()

    def sample(self, request: PlanRequest, count: int) -> None:
        """Draw `count` further samples of a plan, with other noise, until the next request comes. See `spread`."""
        with self._wake:
            if self._waiting is None:
                self._sampled, self._samples, self._samples_wanted = request, [], count
                self._wake.notify()

    def spread(self) -> Spread | None:
        """The samples so far; None where there are none."""
        with self._wake:
            if self._sampled is None or not self._samples:
                return None
            return Spread(self._sampled, np.array(self._samples))

    def offer(self, pictures: Pictures) -> None:
        with self._wake:
            self._offered = pictures
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
        prefetch = getattr(plan, "prefetch", None)
        while True:
            with self._wake:
                self._wake.wait_for(self._has_work)
                if self._stop:
                    return
                request, offered = self._waiting, self._offered
                waited_s = max(0.0, self._prefetched_s - self._requested_s)
                self._waiting = self._offered = None
                self._working = request is not None
            if request is None:
                if offered is None:
                    self._draw_sample(plan)
                elif prefetch:
                    with suppress(
                        BaseException
                    ):  # the plan with these pictures meets the same fault, and holds
                        prefetch(offered)
                self._prefetched_s = time.perf_counter()
                continue
            # Every exception of the engine must end in a hold, not in a dead thread.
            finished = replace(run_plan(plan, request, BaseException), waited_s=waited_s)
            with self._wake:
                self._finished, self._working = finished, False
                if self._stop:  # the node no longer listens
                    return
            if self._on_finished:
                self._on_finished()

    def _has_work(self) -> bool:
        return (
            self._stop or self._waiting is not None or self._offered is not None or self._samples_wanted > 0
        )

    def _draw_sample(self, plan: InferenceFn) -> None:
        with self._wake:
            request, number = self._sampled, self._samples_wanted
        assert request is not None
        drawn = run_plan(plan, replace(request, seed=(*request.seed, _SAMPLES, number)), BaseException)
        with self._wake:
            self._samples_wanted -= 1
            if request is self._sampled and drawn.chunk is not None:
                self._samples.append(drawn.chunk)
