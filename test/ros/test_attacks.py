"""What an adversary, a broken driver or a jumping clock may send: no command leaves the limits, and nothing moves
on what is old. The assembler and the controller as the node calls them, once every control period."""

import math

import numpy as np
import pytest

from dp_ros.control.controller import Controller
from dp_ros.control.planner import InlinePlanner, PlanRequest, PlanWorker
from dp_ros.control.safety import Verdict
from dp_ros.poses import make_pose
from dp_ros.schema import PolicyConfig, RuntimeConfig
from dp_ros.streams import FrameAssembler, to_frame

S = 1_000_000_000
DT_NS = S // 20
HOME_M = (0.0, 0.6, 0.2)
LOW_M, HIGH_M, STEP_M, MAX_OBS_AGE_S = (-0.5, 0.3, 0.0), (0.5, 1.0, 0.6), 0.02, 0.2


PICTURE = np.eye(2, dtype=np.uint8)[..., None] * np.full(3, 200, np.uint8)  # that shows something


def forward(request: PlanRequest) -> np.ndarray:
    """Two millimetres a tick along y, the gripper closed."""
    chunk = np.zeros((8, 4))
    chunk[:, 1] = 0.002 * np.arange(8)
    chunk[:, 3] = 1.0
    return chunk


class Loop:
    """The realtime node without ROS: what arrives is stored, `tick` decides."""

    def __init__(self, mode: str = "realtime", plan=forward) -> None:
        policy = PolicyConfig.model_validate({"rate_hz": 20, "encoder": {"cameras": ("left", "right")}})
        gate = {
            "workspace_low_m": LOW_M,
            "workspace_high_m": HIGH_M,
            "max_speed_m_s": STEP_M * S / DT_NS,
            "max_obs_age_s": MAX_OBS_AGE_S,
            "max_skew_s": MAX_OBS_AGE_S,
            "max_distance_m": 0.0,  # the measured arm of these tests does not move, nor do its pictures change
            "max_frozen_s": 0.0,
        }
        runtime = RuntimeConfig.model_validate({"mode": mode, "gate": gate})
        self.streams = FrameAssembler(policy.encoder.cameras, round(MAX_OBS_AGE_S * S))
        self.controller = Controller(policy, runtime, InlinePlanner(plan))
        self.decisions = []

    def sense(self, stamp_ns, position_m=HOME_M, gripper=1.0, skip=()) -> None:
        for camera, stream in self.streams.images.items():
            if camera not in skip:
                stream.put(stamp_ns, PICTURE)
        if "pose" not in skip:
            self.streams.ee_pose.put(stamp_ns, make_pose(position_m, [0.0, 1.0, 0.0, 0.0]))
        if "gripper" not in skip:
            self.streams.gripper.put(stamp_ns, gripper)

    def tick(self, now_ns):
        self.streams.refuse_future(now_ns)
        selection = self.streams.select(now_ns)
        if selection is not None:
            self.controller.observe(to_frame(selection))
        decision = self.controller.tick(now_ns)
        if decision is not None:
            self.decisions.append(decision)
        return decision

    def run(self, begin_ns: int, ticks: int, **sensed):
        """Sense and tick, `ticks` times; the time after it."""
        for i in range(ticks):
            self.sense(begin_ns + i * DT_NS, **sensed)
            self.tick(begin_ns + i * DT_NS)
        return begin_ns + ticks * DT_NS

    def verdicts(self, last: int):
        return {decision.verdict for decision in self.decisions[-last:]}


@pytest.fixture
def loop():
    return Loop()


def assert_within_limits(loop: Loop) -> None:
    positions = np.array([decision.command.position_m for decision in loop.decisions])
    assert np.isfinite(positions).all()
    assert (positions >= np.subtract(LOW_M, STEP_M)).all()
    assert (positions <= np.add(HIGH_M, STEP_M)).all()


@pytest.mark.parametrize("begins", ["first", "after a gap"])
@pytest.mark.parametrize(
    "measured_m",
    [(0.0, 600.0, 200.0), (math.nan,) * 3, (0.0, math.inf, 0.2), (0.0, 0.6, -0.021), (0.0, 1e300, 0.0)],
)
def test_an_arm_measured_far_outside_the_workspace_is_not_told_to_stay_there(loop, begins, measured_m):
    """A hold repeats where the arm was measured: millimetres taken for metres would send it through the wall."""
    now_ns = 100 * S
    if begins == "after a gap":
        now_ns = loop.run(now_ns, 5) + 2 * S
    count = len(loop.decisions)
    now_ns = loop.run(now_ns, 5, position_m=measured_m)
    last = None
    for decision in loop.decisions[count:]:
        assert decision.verdict.holds
        np.testing.assert_array_equal(
            decision.command.position_m, loop.decisions[count - 1].command.position_m
        )
    if begins == "first":
        assert loop.decisions == []
        assert loop.controller.hold(now_ns) is None
    if np.isfinite(measured_m).all():
        assert "outside the workspace" in loop.controller.refused
    loop.run(now_ns, 3)  # it is measured where it may be
    last = loop.decisions[-1]
    assert last.verdict is Verdict.PASS
    assert loop.controller.refused == ""
    assert_within_limits(loop)


def test_an_arm_that_leans_over_the_edge_comes_in(loop):
    """Less than one step outside, as an arm commanded to the edge is measured, is no reason to refuse."""
    edge_m = (0.0, 0.6, HIGH_M[2] + 0.9 * STEP_M)
    loop.run(100 * S, 3, position_m=edge_m)
    assert Verdict.LIMITED_WORKSPACE in loop.verdicts(3)
    assert loop.decisions[-1].command.position_m[2] == HIGH_M[2]
    assert_within_limits(loop)


@pytest.mark.parametrize("source", ["left", "right", "pose", "gripper"])
def test_nothing_moves_on_a_sample_older_than_the_limit(loop, source):
    """Also not on a pose: the limit counts from the oldest of what a command answers, whatever came after it."""
    now_ns = loop.run(100 * S, 10)
    silent_ns = now_ns - DT_NS
    loop.run(now_ns, 20, skip={source})
    moved = [d.command.stamp_ns for d in loop.decisions if not d.verdict.holds]
    assert silent_ns + 0.5 * MAX_OBS_AGE_S * S < max(moved) <= silent_ns + MAX_OBS_AGE_S * S
    assert loop.verdicts(10) == {Verdict.HOLD_STALE}


@pytest.mark.parametrize("ahead_s", [0.21, 0.5, 1.0, 3.0, 3600.0])
def test_a_camera_whose_clock_is_ahead_is_never_fresh(loop, ahead_s):
    """Its pictures would count as new when their time comes, seconds after they were taken."""
    now_ns = loop.run(100 * S, 10)
    count = len(loop.decisions)
    for i in range(100):
        loop.sense(now_ns + i * DT_NS, skip={"right"})
        loop.streams.images["right"].put(now_ns + i * DT_NS + round(ahead_s * S), PICTURE)
        loop.tick(now_ns + i * DT_NS)
    assert {d.verdict for d in loop.decisions[count + 6 :]} == {Verdict.HOLD_STALE}
    (problem,) = loop.streams.missing(now_ns + 99 * DT_NS)
    assert problem == f"camera right: stamped {ahead_s * 1e3:.0f} ms in the future"
    loop.run(now_ns + 100 * DT_NS, 20)  # its clock is set right
    assert loop.decisions[-1].verdict is Verdict.PASS


def test_one_stamp_from_the_future_costs_one_picture(loop):
    now_ns = loop.run(100 * S, 10)
    loop.streams.images["left"].put(now_ns + 10**17, PICTURE)
    loop.run(now_ns, 100)
    assert loop.verdicts(100) == {Verdict.PASS}


@pytest.mark.parametrize("back_s", [0.3, 0.6, 1.0, 3.0, 50.0])
def test_pictures_from_before_the_clock_jumped_back_are_not_new_again(loop, back_s):
    """A bag that starts over, a simulator that is reset: the sensors are dead, and time passes the old stamps."""
    now_ns = loop.run(100 * S, 80)
    count = len(loop.decisions)
    for i in range(1, 80):
        loop.tick(now_ns - round(back_s * S) + i * DT_NS)
    late = [d for d in loop.decisions[count:] if not d.verdict.holds]
    assert late == []
    for decision in loop.decisions[count:]:
        np.testing.assert_array_equal(
            decision.command.position_m, loop.decisions[count - 1].command.position_m
        )
    loop.run(now_ns - round(back_s * S) + 80 * DT_NS, 20)
    assert loop.decisions[-1].verdict is Verdict.PASS
    assert_within_limits(loop)


def test_a_jump_of_time_ahead_holds_until_there_are_new_observations(loop):
    now_ns = loop.run(100 * S, 10) + 1000 * S
    for i in range(10):
        loop.tick(now_ns + i * DT_NS)
    assert loop.verdicts(10) == {Verdict.HOLD_STALE}
    loop.run(now_ns + 10 * DT_NS, 3)
    assert loop.decisions[-1].verdict is Verdict.PASS


@pytest.mark.parametrize("stamp_ns", [0, -S, -(2**31) * S])
def test_stamps_that_are_zero_or_negative_are_old(loop, stamp_ns):
    for i in range(5):
        loop.sense(stamp_ns)
        loop.tick(100 * S + i * DT_NS)
    assert loop.decisions == []


def test_a_pause_of_the_camera_does_not_open_the_hand():
    """After the pause an episode begins anew; what the arm carries must not be dropped until there is a plan."""

    def busy_after_the_pause(request):
        if request.stamp_ns > 101 * S:
            raise RuntimeError("not ready")
        return forward(request)

    loop = Loop(plan=busy_after_the_pause)
    now_ns = loop.run(100 * S, 10)
    assert loop.decisions[-1].command.gripper == 1.0
    loop.run(now_ns + 2 * S, 3)
    assert loop.verdicts(3) == {Verdict.HOLD_NO_PLAN}
    assert {d.command.gripper for d in loop.decisions[10:]} == {1.0}


def test_frames_that_are_not_newer_are_not_observed():
    """The node answers a frame once: `observe` says whether it is one to answer."""
    controller, loop = Loop("lockstep").controller, Loop()
    loop.sense(100 * S)
    loop.sense(100 * S + DT_NS)
    old, new = (to_frame(loop.streams.select(at)) for at in (100 * S, 100 * S + DT_NS))
    assert controller.observe(old)
    assert controller.observe(new)
    assert not controller.observe(old)
    assert not controller.observe(new)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_a_worker_survives_whatever_the_engine_raises(error):
    """A thread that died in silence would leave the arm holding for ever, and nobody told why."""

    def engine(request):
        if request.stamp_ns == 1:
            raise error
        return np.zeros((8, 4))

    worker = PlanWorker(lambda: engine)
    try:
        for stamp_ns, failed in ((1, True), (2, False)):
            images = (np.zeros((2, 2, 2, 3), np.uint8),)
            worker.request(PlanRequest(images, np.zeros((2, 4)), np.zeros(3), stamp_ns, (0,)))
            plan = wait_for_plan(worker)
            assert plan is not None
            assert (plan.chunk is None) is failed
            assert bool(plan.error) is failed
    finally:
        worker.close()


def wait_for_plan(worker, timeout_s=120.0):
    import time

    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if (plan := worker.poll()) is not None:
            return plan
        time.sleep(0.001)
    return None
