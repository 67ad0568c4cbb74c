"""Replay of a log of ticks: the same commands, to the bit, whatever happened meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp_ros.control.controller import Controller
from dp_ros.control.planner import Pictures, PlanRequest, PlanResult, run_plan
from dp_ros.control.replay import LackingError, Replay
from dp_ros.control.safety import Command
from dp_ros.control.tick_log import TickError, TickLog, TickRecord
from dp_ros.schema import PolicyConfig, RuntimeConfig, override
from dp_ros.streams import Frame, Sample, Selection, to_frame

DT = 12_500_000
START = 1_000_000_000_000
POLICY = PolicyConfig.model_validate({"instruction": {"embedding_dim": 8}})
CAMERA = POLICY.encoder.cameras[0]
TOLD, OTHER = np.eye(8, dtype=np.float32)[:2]
Commands = dict[int, Command]


def plan(request: PlanRequest) -> NDArray[np.float64]:
    """A chunk that depends on all of a request."""
    seen = sum(int(picture.sum()) for pictures in request.images for picture in pictures)
    rng = np.random.default_rng([*request.seed, seen % 2**31, int(1e6 * abs(request.state.sum()))])
    steps = rng.uniform(-0.002, 0.004, size=(POLICY.horizons.T_p, 3))
    chunk = np.concatenate([np.cumsum(steps, axis=0), rng.uniform(-1, 1, (POLICY.horizons.T_p, 1))], axis=1)
    assert request.instruction is not None
    chunk[:, 1] += 0.001 * request.instruction[0]
    return chunk + 1e-3 * (request.reference_m[0] if request.reference_m.size else 0.0)


class Scored:
    """The same plans from an engine that scores its pictures: one in three is unlike those of its training."""

    def __call__(self, request: PlanRequest) -> NDArray[np.float64]:
        return plan(request)

    def ood_scores(self, pictures: Pictures) -> NDArray[np.float64]:
        return np.array([1.5 if int(pictures[0].sum()) % 3 == 0 else 0.5])


SCORED = Scored()


class LatePlanner:
    """A planner that answers some polls after the request."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._waiting: PlanRequest | None = None
        self._left = 0

    def request(self, request: PlanRequest) -> None:
        self._waiting, self._left = request, int(self._rng.integers(1, 4))

    def offer(self, pictures: object) -> None:
        pass

    def poll(self) -> PlanResult | None:
        self._left -= 1
        if self._waiting is None or self._left > 0:
            return None
        request, self._waiting = self._waiting, None
        if self._rng.random() < 0.05:
            return PlanResult(request, None, "RuntimeError: broken", 0.01)
        result = run_plan(SCORED, request)
        duration_s, scores = float(self._rng.uniform(0.001, 0.04)), result.ood_scores
        return PlanResult(request, result.chunk, None, duration_s, 0.0, 0.001, scores)

    @property
    def busy(self) -> bool:
        return self._waiting is not None


class Robot:
    """A served policy with a robot that follows it: its log, its commands, and its samples by stamp."""

    def __init__(self, mode: str, seed: int = 0, is_simulated: bool = False, **settings: Any) -> None:
        self.rng = np.random.default_rng(seed)
        base = {"mode": mode, "min_contrast": 0.0, **settings}
        self.runtime = override(RuntimeConfig(), base)
        self.controller = Controller(POLICY, self.runtime, LatePlanner(self.rng))
        self.controller.commander.is_reset_by_time = self.is_simulated = is_simulated
        self.records: list[str] = []
        names = (f"camera {CAMERA}", "ee_pose", "gripper")
        self.log = TickLog(
            self.controller, names, lambda record: self.records.append(record.to_json()), self.to_stamp
        )
        self.ahead_ns = 0  # of the clock that stamps
        self.samples: dict[int, tuple[Any, NDArray[np.float64], float]] = {}  # by the stamp of the message
        self.times: dict[int, int] = {}  # the controller's, by stamp
        self.obeys = True
        self.commands: Commands = {}
        self.position = np.array([0.0, 0.6, 0.2])
        self.now = START

    def to_stamp(self, time_ns: int) -> int:
        return time_ns + self.ahead_ns

    def begin(self) -> None:
        self.controller.reset()
        self.log.add("begin")
        self.instruct(TOLD)

    def instruct(self, embedding: NDArray[np.float32] | None) -> None:
        self.controller.instruct(embedding)
        self.log.add("instruct")

    def limit(self, **changes: Any) -> None:
        self.controller.commander.limit(override(self.controller.commander.config, changes))
        self.log.add("gate")

    def run(self, ticks: int, is_seen: Callable[[int], bool] = lambda tick: True) -> None:
        for tick in range(ticks):
            self.now += DT
            selection = self._selection() if is_seen(tick) else None
            controller = self.controller
            if self.runtime.mode == "realtime":
                pose = self._measure()
            else:
                pose = None
                assert selection is not None
            if selection is not None:
                controller.observe(to_frame(selection))
            self.log.see(pose, selection)
            decision = controller.tick(self.now)
            self.log.tick(self.now, decision)
            while decision is None and self.runtime.mode == "lockstep":
                decision = controller.tick(self.now)
                self.log.tick(self.now, decision)
            if decision is not None and not decision.is_silent:
                self._take(decision.command)
            if self.runtime.command_rate_hz:
                between_ns = self.now + DT // 2
                command = controller.between(between_ns)
                self.log.add("between", between_ns)
                if command is not None:
                    self._take(command)

    def stop(self) -> None:
        for _ in range(3):
            self.now += DT
            self.log.see(self._measure(), None)
            if (command := self.controller.hold(self.now)) is not None:
                self.log.hold(self.now)
                self._take(command)

    def _measure(self) -> Sample[NDArray[np.float64]] | None:
        stamp_ns = max(self.samples, key=lambda stamp_ns: self.times[stamp_ns], default=None)
        if stamp_ns is None:
            return None
        pose = Sample(self.times[stamp_ns], self.samples[stamp_ns][1], stamp_ns - self.times[stamp_ns])
        self.controller.commander.measure(*pose[:2])
        return pose

    def _take(self, command: Command) -> None:
        self.commands[self.to_stamp(command.stamp_ns)] = command
        if self.obeys:
            self.position = command.position_m

    def _selection(self) -> Selection:
        time_ns = self.now - (0 if self.runtime.mode == "lockstep" else int(self.rng.integers(0, DT)))
        stamp_ns = self.to_stamp(time_ns)
        self.times[stamp_ns] = time_ns
        picture = self.rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        pose = np.concatenate([self.position + self.rng.normal(scale=1e-4, size=3), [0.0, 1.0, 0.0, 0.0]])
        self.samples[stamp_ns] = picture, pose, float(self.rng.random())
        return self.selection(self.now, stamp_ns, time_ns)

    def selection(self, tick_ns: int, stamp_ns: int, time_ns: int) -> Selection:
        picture, *others = (Sample(time_ns, each, stamp_ns - time_ns) for each in self.samples[stamp_ns])
        return Selection(tick_ns, (picture,), *others)

    def replay(
        self, records: list[str] | None = None, policy: Any = SCORED, lost: set[int] = frozenset()
    ) -> tuple[Commands, Replay, dict[int, str]]:
        """The commands of a replay of the records, and why others are unknown, by stamp."""
        replay = Replay(POLICY, self.runtime, self.is_simulated, policy)

        def frame(record: TickRecord) -> Frame | None:
            if record.samples_ns is None:
                return None
            stamp_ns = record.samples_ns["ee_pose"]
            if stamp_ns in lost:
                raise LackingError("a picture is lost")
            tick_ns, time_ns = record.time_ns(record.stamp_ns), record.time_ns(stamp_ns, "ee_pose")
            return to_frame(self.selection(tick_ns, stamp_ns, time_ns))

        found: Commands = {}
        unknown: dict[int, str] = {}
        for text in self.records if records is None else records:
            record = TickRecord.from_json(text)
            command = replay.apply(record, frame, lambda stamp_ns: self.samples[stamp_ns][1])
            if replay.why_not:
                unknown[record.stamp_ns] = replay.why_not
            elif command is not None:
                found[record.stamp_ns] = command
        return found, replay, unknown


def assert_same(found: Commands, expected: Commands) -> None:
    assert found.keys() == expected.keys()
    for stamp_ns, command in expected.items():
        again = found[stamp_ns]
        np.testing.assert_array_equal(again.position_m, command.position_m)
        np.testing.assert_array_equal(again.orientation, command.orientation)
        assert again.gripper == command.gripper


REAL = {"max_frozen_s": 0.0}
LIMITS = {
    "gate.max_acceleration_m_s2": 2.0,
    "gate.max_speed_m_s": 0.1,
    "gate.ramp_s": 0.2,
    "gate.recover_s": 0.05,
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"continuity": "inpaint", **LIMITS},
        {"continuity": "shift", "command_rate_hz": 160.0, "command_delay_s": 0.025},
        {"warm_start": 2, "continuity": "switch", "gate.max_distance_m": 0.0},
        {"gate.max_ood_score": 1.0},
    ],
    ids=["ensemble", "inpaint, limits", "shift, between", "warm start", "unlike"],
)
def test_a_replay_in_real_time_is_the_same_to_the_bit(settings: dict[str, Any], seed: int) -> None:
    """With outages, other limits and instructions, a rival, an emergency stop, and two activations."""
    robot = Robot("realtime", seed, **settings)
    robot.begin()
    robot.run(40)
    robot.run(30, lambda tick: tick % 7 < 5)
    robot.run(40, lambda tick: tick > 20)  # an outage, which holds
    robot.limit(max_speed_m_s=0.05)
    robot.run(10)
    robot.instruct(OTHER)
    robot.run(20)
    robot.instruct(None)
    robot.run(5)
    robot.instruct(TOLD)
    robot.controller.commander.rival = "another"
    robot.run(3)
    robot.controller.commander.rival = ""
    robot.run(60)
    robot.now += 900_000_000  # the cameras pause: another episode
    robot.run(60)
    robot.controller.commander.stopped = "stop"
    robot.run(5)
    robot.stop()
    robot.now += 3_000_000_000
    robot.begin()
    robot.run(30)
    found, replay, unknown = robot.replay()
    assert_same(found, robot.commands)
    assert unknown == {}
    assert replay.plans > 20
    positions = np.array([command.position_m for command in robot.commands.values()])
    assert np.ptp(positions, axis=0).max() > 0.01


def test_a_replay_is_the_same_where_the_clock_was_set_and_the_arm_was_stuck() -> None:
    """The commands go back to the arm; then the node is activated again at once, before the arm has come to rest."""
    limits = {
        "gate.max_distance_m": 0.02,
        "gate.max_acceleration_m_s2": 1.0,
        "gate.path_tolerance_m": 0.0,
        "gate.max_frozen_s": 0.0,
    }
    robot = Robot("realtime", command_rate_hz=160.0, **limits)
    robot.begin()
    robot.run(30)
    robot.ahead_ns = 7_123_456_789
    robot.run(30)
    robot.obeys = False
    robot.ahead_ns = -3_600_000_000_000
    count = len(robot.commands)
    robot.run(100)
    positions = np.array([command.position_m for command in robot.commands.values()])
    apart_m = np.linalg.norm(positions[count:] - robot.position, axis=1)
    assert apart_m.max() > 0.02
    assert apart_m[-10:].max() < 0.002  # the commands came back to the arm
    robot.obeys = True
    robot.begin()
    robot.run(40)
    robot.stop()
    robot.begin()
    robot.run(40)
    found, _, unknown = robot.replay()
    assert_same(found, robot.commands)
    assert unknown == {}
    assert len(found) > 350


@pytest.mark.parametrize("seed", range(3))
def test_a_replay_in_lockstep_is_the_same_to_the_bit(seed: int) -> None:
    robot = Robot("lockstep", seed)
    robot.begin()
    robot.run(40)
    robot.instruct(OTHER)
    robot.run(20)
    robot.now += 2_000_000_000
    robot.run(40)
    found, replay, unknown = robot.replay()
    assert_same(found, robot.commands)
    assert (unknown, replay.plans > 15) == ({}, True)


@pytest.mark.parametrize("mode", ["lockstep", "realtime"])
def test_a_log_that_begins_in_an_episode_is_replayed_from_the_next_one(mode: str) -> None:
    """Of a simulated robot, whose next episode is begun by a leap of time; with the state that is left of the last."""
    robot = Robot(mode, is_simulated=mode == "realtime", **{"gate.recover_s": 3.0})
    robot.begin()
    robot.run(40)
    if mode == "realtime":
        robot.run(
            20, lambda tick: False
        )  # what it recovers from is still to be waited for in the next episode
    robot.limit(max_speed_m_s=0.5)
    robot.instruct(OTHER)
    since, before = len(robot.records), set(robot.commands)
    robot.run(10, lambda tick: mode == "lockstep")
    robot.now += 2_000_000_000
    begun_ns = robot.now
    robot.run(200)
    found, _, unknown = robot.replay(robot.records[since:])
    later = {stamp: command for stamp, command in robot.commands.items() if stamp not in before}
    assert_same(found, {stamp: command for stamp, command in later.items() if stamp > begun_ns})
    assert set(unknown.values()) == {"no episode has begun"}
    assert len(found) == 200


def test_a_real_robot_that_was_silent_begins_anew_and_is_replayed() -> None:
    robot = Robot("realtime", 2)
    robot.begin()
    robot.run(40)
    robot.run(60, lambda tick: False)
    since = len(robot.records)
    robot.run(60)
    found, _, unknown = robot.replay(robot.records[since:])
    assert found
    assert_same(found, {stamp: robot.commands[stamp] for stamp in found})
    assert len(found) + len(unknown) <= 60


def test_after_a_lost_record_nothing_is_claimed_until_the_next_activation() -> None:
    robot = Robot("realtime")
    robot.begin()
    robot.run(30)
    begun = len(robot.records)
    robot.begin()
    robot.run(30)
    lost = [*robot.records[:20], *robot.records[21:]]
    found, _, unknown = robot.replay(lost)
    assert set(unknown.values()) == {"records of ticks were lost"}
    assert len(unknown) == begun - 21
    assert_same(found, {stamp: robot.commands[stamp] for stamp in found})


def test_a_lost_picture_is_named() -> None:
    robot = Robot("realtime")
    robot.begin()
    robot.run(30)
    stamp_ns = sorted(robot.samples)[10]
    _, _, unknown = robot.replay(lost={stamp_ns})
    assert set(unknown.values()) == {"a picture is lost"}
    assert len(unknown) == 20


def test_another_policy_gives_other_commands() -> None:
    robot = Robot("realtime")
    robot.begin()
    robot.run(40)

    def other(request: PlanRequest) -> NDArray[np.float64]:
        return plan(request) + 1e-9

    found, _, _ = robot.replay(policy=other)
    same = [
        np.array_equal(found[stamp].position_m, command.position_m)
        for stamp, command in robot.commands.items()
    ]
    assert not all(same)
    assert same[0]  # a hold


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"n": 1, "kind": "leap", "stamp": 0}', '{"n": 0, "kind": "tick"}']
)
def test_what_is_no_record_is_one_line(text: str) -> None:
    with pytest.raises(TickError):
        TickRecord.from_json(text)
