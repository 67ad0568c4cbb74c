"""Log of a running controller: all that it was given beside the messages of the sensors, so that it can be replayed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dp_ros.control.controller import Controller, PolicyDecision
from dp_ros.control.episode import Inherited
from dp_ros.control.planner import PlanResult
from dp_ros.control.safety import Verdict
from dp_ros.errors import UserError
from dp_ros.schema import ConfigError, GateConfig, parse
from dp_ros.streams import Sample, Selection

Kind = Literal["begin", "gate", "instruct", "frame", "tick", "between", "hold"]
KINDS: tuple[str, ...] = get_args(Kind)


class TickError(UserError):
    """A record that cannot be read; one line."""


@dataclass(frozen=True)
class Delivered:
    """A plan that the controller took in this tick."""

    frame_ns: int  # stamp of the newest frame of its request
    duration_s: float
    waited_s: float
    error: str | None  # why there is no chunk


@dataclass(frozen=True)
class Settings:
    """Settings in force, and where an episode begins the state before it; see `Commander`."""

    gate: GateConfig
    instruction: NDArray[np.float32] | None
    went_on: bool = False
    inherited: Inherited | None = None
    moved_ns: int | None = None  # of begin: time of the last command before it that moved the arm


@dataclass(frozen=True)
class TickRecord:
    """One call of the controller.

    begin: reset, at activation. gate, instruct: other limits, another instruction. frame: an observation alone.
    tick: observation, if there is one, and tick. between, hold: the methods of these names.

    Stamps are those of the messages; the times of the controller differ from them once the clock was set.
    """

    number: int  # consecutive: a gap is a lost record
    kind: Kind
    stamp_ns: int = 0
    pose_ns: int | None = None  # stamp of the measured pose
    samples_ns: dict[str, int] | None = None  # stream -> stamp of its sample in the frame; None: no frame
    ahead_ns: dict[str, int] = field(default_factory=dict)  # "", "pose" or stream -> its stamp minus its time
    is_requested: bool = False  # a plan was requested
    is_undecided: bool = False  # there was no decision: in lockstep, a plan was being computed
    plan: Delivered | None = None
    rival: str = ""
    stopped: str = ""
    settings: Settings | None = (
        None  # of begin, gate and instruct, and of a tick with which an episode begins
    )

    def time_ns(self, stamp_ns: int, name: str = "") -> int:
        """Time of the controller of a stamp: of the call, of the measured `pose`, or of a stream's sample."""
        return stamp_ns - self.ahead_ns.get(name, 0)

    def to_json(self) -> str:
        """Only what is not the default."""
        values: dict[str, Any] = {"n": self.number, "kind": self.kind, "stamp": self.stamp_ns}
        optional = {
            "pose": self.pose_ns,
            "samples": self.samples_ns,
            "ahead": self.ahead_ns or None,
            "requested": self.is_requested or None,
            "undecided": self.is_undecided or None,
            "plan": None if self.plan is None else vars(self.plan),
            "rival": self.rival or None,
            "stopped": self.stopped or None,
            "settings": None if self.settings is None else _settings_to_json(self.settings),
        }
        return json.dumps(values | {key: value for key, value in optional.items() if value is not None})

    @classmethod
    def from_json(cls, text: str) -> TickRecord:
        """TickError where the text is no record."""
        try:
            values = json.loads(text)
            settings, plan = values.get("settings"), values.get("plan")
            if values["kind"] not in KINDS:
                raise TickError(f"its kind '{values['kind']}' is unknown: install a newer dp_ros")
            return cls(
                int(values["n"]),
                values["kind"],
                int(values["stamp"]),
                values.get("pose"),
                values.get("samples"),
                values.get("ahead", {}),
                bool(values.get("requested")),
                bool(values.get("undecided")),
                Delivered(**plan) if plan else None,
                values.get("rival", ""),
                values.get("stopped", ""),
                _settings_from_json(settings) if settings else None,
            )
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise TickError(f"is no record of a tick ({type(error).__name__}: {error})") from None


def _settings_to_json(settings: Settings) -> dict[str, Any]:
    told, state = settings.instruction, settings.inherited
    values: dict[str, Any] = {
        "gate": settings.gate.model_dump(mode="json"),
        "instruction": None if told is None else base64.b64encode(told.astype("<f4").tobytes()).decode(),
    }
    if settings.went_on:
        values["went_on"] = True
    if settings.moved_ns is not None:
        values["moved_ns"] = settings.moved_ns
    if state is not None:
        turned = None if state.orientation is None else state.orientation.tolist()
        held = None if state.held is None else [state.held[0].value, state.held[1]]
        values["inherited"] = {**vars(state), "orientation": turned, "held": held}
    return values


def _settings_from_json(values: Mapping[str, Any]) -> Settings:
    told, state = values["instruction"], values.get("inherited")
    embedding = (
        None if told is None else np.frombuffer(base64.b64decode(told), dtype="<f4").astype(np.float32)
    )
    inherited = None
    if state is not None:
        turned, held = state["orientation"], state["held"]
        inherited = Inherited(
            state["gripper"],
            None if turned is None else np.array(turned),
            state["silent_s"],
            state["asked_ns"],
            None if held is None else (Verdict(held[0]), int(held[1])),
            bool(state.get("is_lost", True)),
        )
    gate = parse(GateConfig, values["gate"], where="gate")
    return Settings(gate, embedding, bool(values.get("went_on")), inherited, values.get("moved_ns"))


class TickLog:
    """Makes the records of one controller, in the order of the calls, and gives them to `write`."""

    def __init__(
        self,
        controller: Controller,
        streams: tuple[str, ...],
        write: Callable[[TickRecord], None],
        to_stamp: Callable[[int], int] = lambda time_ns: time_ns,
    ) -> None:
        """streams: names of the samples of a frame. to_stamp: time of the controller [ns] -> stamp of its command."""
        self._controller, self._streams, self._write, self._to_stamp = controller, streams, write, to_stamp
        self._number = 0
        self._begun = 0  # episodes
        self._requested_ns: int | None = None  # at the last record
        self._taken: PlanResult | None = None  # the same
        self._seen: dict[str, Any] = {}

    def add(self, kind: Literal["begin", "gate", "instruct", "between"], time_ns: int | None = None) -> None:
        """Log a call, after it."""
        settings = None if kind == "between" else self._settings()
        if kind == "begin" and settings:
            self._begun = self._controller.commander.begun
            settings = replace(settings, moved_ns=self._controller.commander.moved_ns)
        self._put(TickRecord(self._number, kind, stopped=self._stopped, settings=settings), time_ns)

    def see(self, pose: Sample[Any] | None, selection: Selection | None) -> None:
        """Note the measured pose, and the samples that were observed, before the next tick or hold."""
        commander = self._controller.commander
        named = {"pose": pose} if pose else {}
        self._seen = {"pose_ns": pose.stamp_ns + pose.ahead_ns if pose else None}
        if selection is not None:
            samples = dict(zip(self._streams, selection.samples, strict=True))
            self._seen["samples_ns"] = {name: each.stamp_ns + each.ahead_ns for name, each in samples.items()}
            named |= samples
        self._seen["ahead_ns"] = {name: each.ahead_ns for name, each in named.items() if each.ahead_ns}
        if commander.begun != self._begun:
            self._begun = commander.begun
            self._seen["settings"] = replace(
                self._settings(), went_on=commander.went_on, inherited=commander.inherited
            )

    def frame(self, time_ns: int) -> None:
        """Log an observation that no tick follows, after `see`."""
        self._put(TickRecord(self._number, "frame", stopped=self._stopped, **self._seen), time_ns)

    def hold(self, time_ns: int) -> None:
        """Log a hold that was given, after it and `see`."""
        rival = self._controller.commander.rival
        self._put(TickRecord(self._number, "hold", rival=rival, stopped=self._stopped, **self._seen), time_ns)

    def tick(self, time_ns: int, decision: PolicyDecision | None) -> None:
        """Log a tick, after it."""
        requested_ns, plan, delivered = self._controller.requested_ns, self._controller.taken, None
        if plan is not None and plan is not self._taken:
            delivered = Delivered(plan.request.stamp_ns, plan.duration_s, plan.waited_s, plan.error)
        record = TickRecord(
            self._number,
            "tick",
            is_requested=requested_ns is not None and requested_ns != self._requested_ns,
            is_undecided=decision is None,
            plan=delivered,
            rival=self._controller.commander.rival,
            stopped=self._stopped,
            **self._seen,
        )
        self._put(record, time_ns)

    def _put(self, record: TickRecord, time_ns: int | None) -> None:
        if time_ns is not None:
            stamp_ns = self._to_stamp(time_ns)
            now = {"": stamp_ns - time_ns} if stamp_ns != time_ns else {}
            record = replace(record, stamp_ns=stamp_ns, ahead_ns=record.ahead_ns | now)
        self._number += 1
        self._seen, self._requested_ns, self._taken = (
            {},
            self._controller.requested_ns,
            self._controller.taken,
        )
        self._write(record)

    @property
    def _stopped(self) -> str:
        return self._controller.commander.stopped

    def _settings(self) -> Settings:
        return Settings(self._controller.commander.config, self._controller.instruction)
