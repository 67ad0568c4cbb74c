"""Replay of a log of ticks: the commands that a controller with the same policy gives for the same inputs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dp_ros.control.controller import Controller
from dp_ros.control.planner import InferenceFn, PlanRequest, PlanResult, run_plan
from dp_ros.control.safety import Command
from dp_ros.control.tick_log import Delivered, TickRecord
from dp_ros.errors import UserError
from dp_ros.schema import PolicyConfig, RuntimeConfig
from dp_ros.streams import Frame

_KEPT = 8  # requests; a plan that was delivered is of one of the newest
GetFrame = Callable[[TickRecord], Frame | None]
GetPose = Callable[[int], NDArray[np.float64] | None]


class LackingError(UserError):
    """A sample that a recorded frame held is not there; the message names it."""


class RecordedPlanner:
    """Planner that computes each plan when it was delivered, with the times that were measured then."""

    def __init__(self, plan: InferenceFn, is_lockstep: bool) -> None:
        self._plan, self._is_lockstep = plan, is_lockstep
        self._requests: OrderedDict[int, PlanRequest] = OrderedDict()
        self._due: Delivered | None = None
        self.busy = False

    def expect(self, record: TickRecord) -> None:
        """Before the tick of a record."""
        self._due = record.plan
        self.busy = not record.is_requested and (record.is_undecided or not self._is_lockstep)

    def request(self, request: PlanRequest) -> None:
        self._requests[request.stamp_ns] = request
        while len(self._requests) > _KEPT:
            self._requests.popitem(last=False)

    def offer(self, pictures: object) -> None:
        """Nothing: the caller would wait for it."""

    def poll(self) -> PlanResult | None:
        """The plan that was delivered in this tick, once its request is known."""
        due = self._due
        if due is None or due.frame_ns not in self._requests:
            return None
        self._due, request = None, self._requests.pop(due.frame_ns)
        if due.error is not None:
            result = PlanResult(request, None, due.error, due.duration_s)
        else:
            result = run_plan(self._plan, request)
        return replace(result, duration_s=due.duration_s, waited_s=due.waited_s)


class _Counted:
    """An engine whose plans are counted."""

    def __init__(self, plan: InferenceFn) -> None:
        self._plan = plan
        self.ood_scores = getattr(plan, "ood_scores", None)
        self.plans = 0

    def __call__(self, request: PlanRequest) -> NDArray[np.float64]:
        self.plans += 1
        return self._plan(request)


class Replay:
    """A controller that is called as the recorded one was.

    It begins with the first record whose state is known: an activation, or an episode that does not go on from the
    last command. After a lost record, or a frame whose samples are lost, it waits for the next one.
    """

    def __init__(
        self, policy: PolicyConfig, runtime: RuntimeConfig, is_reset_by_time: bool, plan: InferenceFn
    ) -> None:
        """runtime: of the recorded controller. plan: an engine."""
        self._policy, self._runtime, self._is_reset_by_time = policy, runtime, is_reset_by_time
        self._plan = _Counted(plan)
        self._number: int | None = None  # of the last record
        self._controller: Controller | None = None
        self._planner = RecordedPlanner(self._plan, runtime.mode == "lockstep")
        self.why_not = "no episode has begun"  # why a record cannot be replayed; empty while it can

    def apply(self, record: TickRecord, frame: GetFrame, pose: GetPose) -> Command | None:
        """The command that was published in this call, if one was; None too while `why_not` says why it is unknown.

        frame(record), pose(stamp) give what the record names, and raise LackingError.
        """
        if self._number is not None and record.number != self._number + 1:
            self._lose("records of ticks were lost")
        self._number = record.number
        self._begin(record)
        if self._controller is None:
            return None
        try:
            return self._call(self._controller, record, frame, pose)
        except LackingError as error:
            self._lose(str(error))
            return None

    def _lose(self, why: str) -> None:
        self._controller, self.why_not = None, why

    def _begin(self, record: TickRecord) -> None:
        """Make the controller where a record tells its state."""
        settings = record.settings
        if settings is None or settings.went_on or record.kind not in ("begin", "frame", "tick"):
            return
        if record.kind != "begin" and self._controller is not None:
            return
        runtime = self._runtime.model_copy(update={"gate": settings.gate})
        self._planner = RecordedPlanner(self._plan, runtime.mode == "lockstep")
        self._controller = controller = Controller(self._policy, runtime, self._planner)
        controller.commander.is_reset_by_time = self._is_reset_by_time
        controller.commander.moved_ns = settings.moved_ns
        controller.instruct(settings.instruction)
        if settings.inherited is not None:
            controller.inherit(settings.inherited)
        self.why_not = ""

    @property
    def plans(self) -> int:
        """Computed so far."""
        return self._plan.plans

    def _call(
        self, controller: Controller, record: TickRecord, frame: GetFrame, pose: GetPose
    ) -> Command | None:
        commander, settings = controller.commander, record.settings
        commander.stopped, time_ns = record.stopped, record.time_ns(record.stamp_ns)
        if record.kind == "gate" and settings is not None:
            commander.limit(settings.gate)
        elif record.kind == "instruct" and settings is not None:
            controller.instruct(settings.instruction)
        elif record.kind == "between":
            return controller.between(time_ns)
        elif record.kind in ("frame", "tick", "hold"):
            if record.pose_ns is not None and (measured := pose(record.pose_ns)) is not None:
                commander.measure(record.time_ns(record.pose_ns, "pose"), measured)
            if record.kind == "hold":
                commander.rival = record.rival
                return controller.hold(time_ns)
            if (observed := frame(record)) is not None:
                controller.observe(observed)
            return self._tick(controller, record) if record.kind == "tick" else None
        return None

    def _tick(self, controller: Controller, record: TickRecord) -> Command | None:
        controller.commander.rival = record.rival
        self._planner.expect(record)
        decision = controller.tick(record.time_ns(record.stamp_ns))
        return None if decision is None or decision.is_silent else decision.command
