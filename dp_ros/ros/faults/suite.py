"""Trials of faults: inject at a random moment, watch what the robot hears, take the cause away, see it recover."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import numpy as np

from dp_ros.evaluation.faults import (
    Bounds,
    Fault,
    Heard,
    Recovery,
    Score,
    Trial,
    is_moving,
    largest,
    reaction_s,
)
from dp_ros.ros.faults import cases, injector
from dp_ros.ros.faults.policy import ENGINE_FAULTS
from dp_ros.ros.faults.rig import Rig
from dp_ros.ros.processes.node_process import SessionError

_MOVING_S = 0.2  # the arm counts as moving where a command of this time moved it
_GOES_ON_MOVES = 3  # commands in that time that move it: a late one moves it there, and the next one back
_BEFORE_S = (0.8, 1.5)  # the fault begins this long after the arm moves, drawn; it has its full speed by then
_STORM_S = 2.0
_NOTICES_S = 1.0  # after that, a recorder has said that its disk is full
_SETTLED_S = 0.3  # after the limit: an arm that stopped must stay so
_BY_ITSELF_S = 1.0  # an arm that must be told to go on is watched for so long
_RECOVERS_S = 10.0


class Suite:
    """Trials on one rig."""

    def __init__(self, rig: Rig, bounds: Bounds, rng: np.random.Generator) -> None:
        self._rig, self._bounds, self._rng = rig, bounds, rng
        self._commands: list[Heard] = []

    def trial(self, fault: Fault) -> Trial:
        """One injection. Its `problem` is not empty where the processes cannot be used any more."""
        try:
            return self._trial(fault)
        except SessionError as error:
            return Trial(math.inf, *largest(self._commands, 0, self._bounds), "none", problem=str(error))

    def _trial(self, fault: Fault) -> Trial:
        rig = self._rig
        rig.watch(fault.name in cases.WATCHED)
        rig.storm(fault.name == cases.STORM)
        rig.record(fault.name == cases.DISK_FULL)
        rig.overheard.clear()
        self._begin()
        rig.wait(float(self._rng.uniform(*_BEFORE_S)))
        self._wait_until_moving(_RECOVERS_S, "the arm does not move before the fault")
        fault_ns = self._inject(fault.name)
        rig.wait(fault.limit_s(self._bounds) + (_STORM_S if fault.name == cases.STORM else _SETTLED_S))
        if fault.name == "robot-restarts":  # nothing reaches a dead robot: what it would have heard
            until_ns, heard = time.time_ns(), rig.overheard
            rig.start_robot()
        else:
            until_ns, heard = self._hear(), self._commands
        verdict = rig.verdict.partition(":")[0]
        if fault.name in cases.WATCHED:
            verdict = f"watchdog: {rig.guard.partition(':')[0]}"
        problem = ""
        recovery: Recovery = "none"
        if (recorder := rig.recorder) is not None:
            rig.spin_until(lambda: recorder.says == "problem", _NOTICES_S, "")
            verdict = f"recorder: {recorder.says}"
            problem = "" if recorder.says == "problem" else f"the recorder did not notice in {_NOTICES_S:g} s"
        reaction = reaction_s(fault.expected, heard, fault_ns, until_ns)
        try:
            recovery = self._recover(fault)
        except SessionError as error:
            problem = str(error)
        if recorder is not None:
            problem = problem or recorder.loss()
        return Trial(reaction, *largest(self._commands, fault_ns, self._bounds), recovery, verdict, problem)

    def _begin(self) -> None:
        """The arm moves, whatever the trial before has left."""
        self._rig.activate()
        try:
            self._wait_until_moving(_RECOVERS_S, "the arm does not move")
        except SessionError:
            self._rig.deactivate()
            self._rig.activate()
            self._wait_until_moving(_RECOVERS_S, f"the arm does not move ({self._rig.policy_says})")
        self._rig.wait_until_watched()
        self._wait_until_moving(_RECOVERS_S, "the arm does not move beside the watchdog")

    # ---- what is heard ---------------------------------------------------------------------------------

    def _hear(self, fault: str | None = None) -> int:
        now_ns, heard = self._rig.heard(fault)
        self._commands += heard
        return now_ns

    def _moves(self) -> bool:
        return is_moving(self._commands, self._hear() - round(_MOVING_S * 1e9))

    def _goes_on(self) -> bool:
        return is_moving(self._commands, self._hear() - round(_MOVING_S * 1e9), _GOES_ON_MOVES)

    def _wait_until_moving(self, timeout_s: float, otherwise: str) -> None:
        self._rig.spin_until(self._goes_on, timeout_s, otherwise)

    # ---- faults ----------------------------------------------------------------------------------------

    def _inject(self, name: str) -> int:
        """Begin the fault; the time at which it began, or before it."""
        rig = self._rig
        if name in injector.FAULTS:
            return self._hear(name)
        self._hear()
        fault_ns = time.time_ns()
        acts: dict[str, Callable[[], None]] = {
            "other-commander": lambda: rig.rival(self._commands[-1].position_m),
            "emergency-stop": lambda: rig.emergency_stop(True),
            "checkpoint-replaced": rig.replace_checkpoint,
            "robot-restarts": rig.kill_robot,
            cases.STORM: rig.let_loose,
            cases.DISK_FULL: rig.fill_disk,
            "policy-sigstop": lambda: rig.signal_policy(signal.SIGSTOP),
            "policy-sigkill": rig.kill_policy,
        }
        if name in ENGINE_FAULTS:
            rig.order(engine=name)
        elif name in cases.CLOCK_S:
            rig.order(clock_s=cases.CLOCK_S[name])
        else:
            acts[name]()
        return fault_ns

    def _clear(self, name: str) -> None:
        """Take the cause of the fault away."""
        rig = self._rig
        if name in injector.FAULTS:
            self._hear("")
        elif name in ENGINE_FAULTS or name in cases.CLOCK_S:
            rig.order()
        elif name == "other-commander":
            rig.rival(None)
        elif name == "emergency-stop":
            rig.emergency_stop(False)
        elif name == cases.STORM:
            rig.storm(False)
        elif name == cases.DISK_FULL:
            rig.free_disk()
        elif name == "policy-sigstop":
            rig.signal_policy(signal.SIGCONT)
        elif name == "policy-sigkill":
            rig.start_policy()

    def _recover(self, fault: Fault) -> Recovery:
        """Take the cause away; how the arm came to move again. SessionError where it did not."""
        rig, went_on = self._rig, fault.expected == "goes on" and self._moves()
        self._clear(fault.name)
        if went_on:
            return "none"
        is_told = fault.recovery == "explicit"
        with suppress(SessionError):
            self._wait_until_moving(_BY_ITSELF_S if is_told else _RECOVERS_S, "it waits")
            return "automatic"
        if fault.name in cases.WATCHED:
            if fault.name == "policy-sigkill":
                rig.activate()
            rig.release()
        else:
            rig.deactivate()
            rig.activate()
        self._wait_until_moving(_RECOVERS_S, f"the arm does not move again ({rig.policy_says})")
        return "explicit"


def measure(
    faults: Sequence[Fault],
    trials: int,
    setting: cases.Setting,
    seed: int = 0,
    domain_id: int | None = None,
    on_trial: Callable[[Score], None] = lambda score: None,
) -> Iterator[Score]:
    """The score of each fault, once its trials are done. After a trial that ends a process, all are started again.

    SessionError where a process does not start.
    """
    rng, rig = np.random.default_rng(seed), None
    try:
        for fault in faults:
            score = Score(fault, setting.bounds)
            for _ in range(trials):
                rig = rig or Rig(setting, domain_id)
                score.trials.append(Suite(rig, setting.bounds, rng).trial(fault))
                if score.trials[-1].problem:
                    rig.close()
                    rig = None
                on_trial(score)
            yield score
    finally:
        if rig is not None:
            rig.close()
