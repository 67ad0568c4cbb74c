"""Disturbances: none at strength 0, the same for the same seed, and at the place and time they say."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("mujoco")

from dp_ros.control.planner import Pictures, PlanRequest
from dp_ros.control.safety import Verdict
from dp_ros.evaluation.disturbances import KINDS, NONE, ONSET, Disturbance, check_possible, possible, sweep
from dp_ros.evaluation.episode import replay, run_episode
from dp_ros.evaluation.results import EpisodeResult
from dp_ros.evaluation.robustness import Curve, Point
from dp_ros.evaluation.rollout import Episode
from dp_ros.evaluation.trace import Trace
from dp_ros.poses import make_pose
from dp_ros.schema import ConfigError, PolicyConfig, RuntimeConfig, override
from dp_ros.sim.arm import ArmSpec, Observation, SimulatedArm, TaskError, make_arm, rest_command, simulator_of
from dp_ros.sim.rendering import RenderingError

TICKS = 48  # beyond the last onset
STRONG = {kind.kind: kind(max(kind.defaults), nominal_speed_m_s=0.05) for kind in KINDS.values()}
HAS_METAWORLD = importlib.util.find_spec("metaworld") is not None
needs_metaworld = pytest.mark.skipif(not HAS_METAWORLD, reason="metaworld is not installed")
MOVABLE = ("tiny-push", *(simulator_of("push").movable_tasks if HAS_METAWORLD else ()))


@pytest.fixture(scope="module")
def arm() -> Iterator[SimulatedArm]:
    """A task whose object lies free, and that no made-up policy solves."""
    arm = make_arm(ArmSpec("tiny-push", ("gripperPOV", "behindGripper"), 40, 36))
    try:
        arm.reset(0)
        arm.observe()
    except RenderingError as error:
        pytest.skip(str(error))
    yield arm
    arm.close()


@pytest.fixture(scope="module")
def policy(tiny_policy: PolicyConfig) -> PolicyConfig:
    return override(tiny_policy, {"encoder.cameras": ["gripperPOV", "behindGripper"], "rate_hz": 20.0})


def plan(request: PlanRequest) -> NDArray[np.float64]:
    """Relative moves that depend on every pixel seen and on the plan's seed."""
    rng = np.random.default_rng(
        [sum(int(picture.sum()) for frame in request.images for picture in frame), *request.seed]
    )
    return np.append(rng.uniform(-0.004, 0.004, (8, 3)), rng.uniform(-1, 1, (8, 1)), axis=1)


def observation(seed: int = 0) -> Observation:
    rng = np.random.default_rng(seed)
    pictures = {name: rng.integers(1, 256, (12, 16, 3), dtype=np.uint8) for name in ("left", "right")}
    return Observation(pictures, make_pose(rng.normal(size=3), [0, 1, 0, 0]), 0.5)


def ticks_at_work(disturbance: Disturbance, seed: int) -> list[int]:
    clear = observation()
    seen = [disturbance.perturb_observation(clear, seed, t) for t in range(200)]
    return [t for t, o in enumerate(seen) if o is None or (o.images["left"] != clear.images["left"]).any()]


@pytest.mark.parametrize("kind", ["occlusion", "patch"])
def test_cameras_are_covered_for_so_many_frames_from_an_onset_that_the_seed_decides(kind: str) -> None:
    onsets = set()
    for seed in range(8):
        short, long = (ticks_at_work(KINDS[kind](frames), seed) for frames in (5, 20))
        assert short == long[:5] == list(range(short[0], short[0] + 5))
        assert len(long) == 20
        assert ONSET[0] * 50 - 1 < short[0] < ONSET[1] * 50
        onsets.add(short[0])
    assert len(onsets) > 2


def test_a_patch_covers_a_square_of_half_the_height_and_nothing_else() -> None:
    patch, clear = KINDS["patch"](80), observation()
    seen = patch.perturb_observation(clear, 3, patch.onset(3))
    assert seen is not None
    for name, picture in seen.images.items():
        changed = (picture != clear.images[name]).any(axis=-1)
        assert 30 <= changed.sum() <= 36  # of 6x6; some pixels were grey before
        assert (picture[changed] == 128).all()
    np.testing.assert_array_equal(seen.ee_position_m, clear.ee_position_m)


@pytest.mark.parametrize(
    ("stops", "before", "after"),
    [
        (-1, [0, 10, 117, 255], [0, 5, 84, 188]),
        (1, [0, 10, 117, 188], [0, 18, 161, 255]),
        (0, [0, 10, 117, 255], [0, 10, 117, 255]),
    ],
)
def test_a_stop_is_twice_the_light_and_not_twice_the_byte(
    stops: float, before: list[int], after: list[int]
) -> None:
    """Bytes are sRGB: 188 stands for half of the light of 255, and 117 for 18 % of it, a grey card."""
    picture = np.array([before], dtype=np.uint8)[..., None].repeat(3, axis=2)
    seen = KINDS["brightness"](stops).perturb_observation(
        Observation({"left": picture}, make_pose(np.zeros(3), [0, 1, 0, 0]), 0.0), 0, 0
    )
    assert seen is not None
    assert seen.images["left"][0, :, 0].tolist() == after


def test_frames_lost_at_one_strength_are_lost_at_every_greater_one() -> None:
    few, many = (set(ticks_at_work(KINDS["dropped-frames"](share), 4)) for share in (0.1, 0.5))
    assert few < many
    assert 5 < len(few) < 40 < 70 < len(many) < 130
    assert 0 not in ticks_at_work(KINDS["dropped-frames"](1.0), 4)  # without a first frame nothing begins


def test_late_commands_come_in_order_after_as_much_rest() -> None:
    commands = [np.full(4, float(i)) for i in range(6)]
    rest = np.full(4, -1.0)
    acted = [KINDS["action-delay"](2).perturb_command(commands[: i + 1], rest)[0] for i in range(6)]
    assert acted == [-1.0, -1.0, 0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(("kind", "slowing"), [("speed-limit", "path"), ("speed-clip", "axes")])
def test_speed_is_limited_to_a_share_of_the_seeds_own(kind: str, slowing: str) -> None:
    gate = KINDS[kind](60, nominal_speed_m_s=0.5).perturb_runtime(RuntimeConfig(), 80.0).gate
    assert (gate.max_speed_m_s, gate.slowing) == (pytest.approx(0.2), slowing)
    assert KINDS[kind](0).perturb_runtime(RuntimeConfig(), 80.0) == RuntimeConfig()
    tight = override(RuntimeConfig(), {"gate.max_speed_m_s": 0.1})
    assert KINDS[kind](60, nominal_speed_m_s=0.5).perturb_runtime(tight, 80.0).gate.max_speed_m_s == 0.1


@pytest.mark.sim
def test_strength_zero_is_the_undisturbed_episode_to_the_bit(arm: SimulatedArm, policy: PolicyConfig) -> None:
    expected = run_episode(arm, plan, policy, RuntimeConfig(), 5, TICKS)
    for kind in KINDS.values():
        result, trace = run_episode(arm, plan, policy, RuntimeConfig(), 5, TICKS, None, kind(0))
        assert result == expected[0]
        assert trace.verdict == expected[1].verdict
        np.testing.assert_array_equal(trace.command, expected[1].command, err_msg=kind.kind)
        np.testing.assert_array_equal(trace.ee_position_m, expected[1].ee_position_m, err_msg=kind.kind)


@pytest.mark.sim
@pytest.mark.parametrize("disturbance", STRONG.values(), ids=str)
def test_each_changes_the_episode_the_same_way_for_the_same_seed_and_leaves_no_trace_behind(
    arm: SimulatedArm, policy: PolicyConfig, disturbance: Disturbance
) -> None:
    """And replaying the commands leads to the same states, so that videos show what was counted."""
    calm = run_episode(arm, plan, policy, RuntimeConfig(), 5, TICKS)[1]
    shaken, again = (
        run_episode(arm, plan, policy, RuntimeConfig(), 5, TICKS, None, disturbance)[1] for _ in range(2)
    )
    assert (shaken.ee_position_m != calm.ee_position_m).any()
    np.testing.assert_array_equal(again.ee_position_m, shaken.ee_position_m)
    shown: list[Observation] = []
    replayed = replay(arm, 5, shaken, disturbance, shown.append)
    np.testing.assert_array_equal(replayed.ee_position_m, shaken.ee_position_m)
    assert len(shown) == TICKS + 1
    after = run_episode(arm, plan, policy, RuntimeConfig(), 5, TICKS)[1]
    np.testing.assert_array_equal(after.ee_position_m, calm.ee_position_m)


@pytest.mark.sim
@pytest.mark.parametrize("ticks", [1, 2, 3])
def test_late_plans_hold_the_arm_for_the_first_one_and_then_not(
    arm: SimulatedArm, policy: PolicyConfig, ticks: int
) -> None:
    """Up to half of T_p - T_o + 1 ticks, a chunk lasts until the next one arrives."""
    _, trace = run_episode(arm, plan, policy, RuntimeConfig(), 5, TICKS, None, KINDS["plan-delay"](ticks))
    assert [t for t, verdict in enumerate(trace.verdict) if verdict.holds] == list(range(ticks))
    np.testing.assert_array_equal(trace.plan_s, ticks / 20.0)
    assert trace.plan[:ticks].tolist() == [-1] * ticks
    begins = np.flatnonzero(np.diff(trace.plan))
    assert (np.diff(trace.plan)[begins] == 1).all()
    apart = np.diff(begins)
    assert apart[0] == 4  # the first plan finds the arm where it saw it
    assert set(apart[1:]) == {max(ticks, 4 - ticks)}


class Scored:
    """An engine that finds dark pictures unlike those of its training."""

    def __call__(self, request: PlanRequest) -> NDArray[np.float64]:
        return plan(request)

    def ood_scores(self, pictures: Pictures) -> NDArray[np.float64]:
        return np.array([2.0 if picture.mean() < 40 else 0.5 for picture in pictures])


@pytest.mark.sim
def test_ticks_of_pictures_unlike_the_training_are_told_and_held_by_the_gate_that_asks_for_it(
    arm: SimulatedArm, policy: PolicyConfig
) -> None:
    """The same code as the node's: the trace has its scores, and a replay keeps them."""
    dark = KINDS["brightness"](-6)
    runtime = RuntimeConfig(min_contrast=0.0)
    _, bare = run_episode(arm, plan, policy, runtime, 5, TICKS, None, dark)
    assert (bare.ood_score, bare.warned) == (None, None)
    _, calm = run_episode(arm, Scored(), policy, runtime, 5, TICKS)
    assert calm.warned is not None
    assert not calm.warned.any()
    _, told = run_episode(arm, Scored(), policy, runtime, 5, TICKS, None, dark)
    assert told.warned is not None
    assert told.warned.tolist() == [False] * 4 + [True] * (TICKS - 4)  # from the second plan on
    np.testing.assert_array_equal(told.command, bare.command)
    np.testing.assert_array_equal(replay(arm, 5, told, dark).warned, told.warned)
    gated = override(runtime, {"gate.max_ood_score": 1.0})
    _, held = run_episode(arm, Scored(), policy, gated, 5, TICKS, None, dark)
    assert set(held.verdict[4:]) == {Verdict.HOLD_OOD}


def test_share_of_ticks_that_warn_is_in_the_points_of_a_curve() -> None:
    def episode(warned: list[bool], has_scores: bool = True) -> Episode:
        n = len(warned)
        verdicts, plans = (Verdict.PASS,) * n, np.zeros(n, dtype=np.int64)
        trace = Trace(np.zeros((n, 4)), np.zeros((n + 1, 3)), verdicts, np.zeros(1), plans)
        if has_scores:
            trace = replace(trace, warned=np.array(warned), ood_score=np.where(warned, 2.0, 0.5))
        return Episode(EpisodeResult(1, True, n), trace, [])

    point = Point(NONE, 20.0, [episode([False, False, True, True]), episode([False, False, False, True])])
    values = point.as_dict()
    assert (values["warned_share"], values["ood_score_p50"]) == (3 / 8, 0.5)
    assert "38% of ticks warned" in Curve([point]).line()
    bare = Point(NONE, 20.0, [episode([False] * 4, has_scores=False)])
    assert bare.as_dict()["warned_share"] is None
    assert "warned" not in Curve([bare]).line()


@pytest.mark.sim
def test_lost_frames_make_the_gate_hold(arm: SimulatedArm, policy: PolicyConfig) -> None:
    disturbance = KINDS["dropped-frames"](1.0)
    result, trace = run_episode(arm, plan, policy, RuntimeConfig(), 5, TICKS, None, disturbance)
    assert not result.success
    assert trace.verdict[-1] is Verdict.HOLD_STALE
    assert "old" in result.reason
    np.testing.assert_array_equal(trace.command[-1], trace.command[-2])


@pytest.mark.sim
@pytest.mark.parametrize(
    ("failing", "reason"), [({0}, "time limit"), ({2}, "the plan failed: OSError: gone")]
)
def test_a_hold_is_why_an_episode_failed_only_where_it_ended_in_it(
    arm: SimulatedArm, policy: PolicyConfig, failing: set[int], reason: str
) -> None:
    """A tick held early was given as the reason of every episode that later ran into the time limit."""
    asked: list[PlanRequest] = []

    def fragile(request: PlanRequest) -> NDArray[np.float64]:
        asked.append(request)
        if len(asked) - 1 in failing:
            raise OSError("gone")
        return plan(request)

    result, trace = run_episode(arm, fragile, policy, RuntimeConfig(), 5, 9)
    assert [verdict.holds for verdict in trace.verdict].count(True) == 1
    assert (result.success, result.reason) == (False, reason)
    np.testing.assert_array_equal(
        trace.command[:1, 3] == -1.0, [0 in failing]
    )  # without a plan it stays open


@pytest.mark.parametrize("kind", ["occlusion", "patch", "object-shift"])
@pytest.mark.parametrize("nominal_steps", [12, 33, 200])
def test_what_happens_once_happens_before_the_episode_is_over(kind: str, nominal_steps: int) -> None:
    """Onsets up to tick 39 came after the end of episodes that take 33, which then counted as withstood."""
    for seed in range(30):
        weak, strong = (KINDS[kind](strength, nominal_steps=nominal_steps) for strength in (10, 80))
        onset = weak.onset(seed)
        assert strong.onset(seed) == onset
        assert 0.2 * nominal_steps - 1 < onset < 0.6 * nominal_steps
        assert weak.touches(seed, onset + 1)
        assert not weak.touches(seed, onset)
        assert not replace(weak, strength=0).touches(seed, 500)


def test_an_episode_that_lost_no_frame_was_not_disturbed() -> None:
    dropped = KINDS["dropped-frames"](0.1)
    first = ticks_at_work(dropped, 4)[0]
    assert not dropped.touches(4, first)
    assert dropped.touches(4, first + 1)
    assert KINDS["action-delay"](1).touches(4, 1)
    assert not KINDS["brightness"](0).touches(4, 200)


@pytest.mark.sim
def test_object_moves_by_so_many_millimetres_at_its_onset(arm: SimulatedArm) -> None:
    disturbance = KINDS["object-shift"](40)
    arm.reset(2)
    for t in range(50):
        before = arm.simulator_state()
        disturbance.perturb_scene(arm, 2, t)
        moved = arm.simulator_state() - before
        expected = 0.04 if t == disturbance.onset(2) else 0.0
        assert np.linalg.norm(moved) == pytest.approx(expected)


@pytest.mark.sim
@pytest.mark.parametrize("task", MOVABLE)
def test_pushing_the_object_does_not_solve_the_task(task: str) -> None:
    """An arm that holds still solved peg-unplug-side: the shift unplugged the peg."""
    arm = make_arm(ArmSpec(task))
    try:
        for strength in KINDS["object-shift"].defaults:
            disturbance = KINDS["object-shift"](strength, nominal_steps=2)
            rest = rest_command(arm, arm.reset(0))
            for t in range(6):
                disturbance.perturb_scene(arm, 0, t)
                arm.advance(rest)
            assert not arm.success, strength
    finally:
        arm.close()


@needs_metaworld
@pytest.mark.parametrize("task", ["peg-unplug-side-v3", "disassemble-v3"])
def test_what_sits_in_the_scene_cannot_be_shifted(task: str) -> None:
    assert "object-shift" not in possible(task)


class Displaced:
    """Cameras that keep how far they were moved."""

    spec = ArmSpec("any", ("left", "right"))

    def __init__(self) -> None:
        self.offsets_m: dict[str, NDArray[np.float64]] = {}

    def move_camera(self, camera: str, offset_m: NDArray[np.float64]) -> None:
        self.offsets_m[camera] = offset_m


def test_cameras_are_displaced_by_millimetres_each_in_a_direction_that_only_the_seed_decides() -> None:
    far, near = Displaced(), Displaced()
    assert KINDS["camera-shift"](40).perturb_scene(far, 3, 0)  # type: ignore[arg-type]
    assert KINDS["camera-shift"](10).perturb_scene(near, 3, 0)  # type: ignore[arg-type]
    assert not KINDS["camera-shift"](10).perturb_scene(Displaced(), 3, 1)  # type: ignore[arg-type]
    for camera, offset_m in far.offsets_m.items():
        assert np.linalg.norm(offset_m) == pytest.approx(0.040)
        np.testing.assert_allclose(near.offsets_m[camera] * 4, offset_m)
    assert np.abs(far.offsets_m["left"] - far.offsets_m["right"]).max() > 1e-3


@needs_metaworld
def test_what_a_task_does_not_allow_is_refused_with_the_tasks_that_do() -> None:
    assert "object-shift" not in possible("drawer-open-v3")
    check_possible("object-shift", "push-v3")
    check_possible("action-delay", "drawer-open-v3")
    with pytest.raises(ConfigError, match=r"object of drawer-open-v3 is fixed .* it can in .*pick-place"):
        check_possible("object-shift", "drawer-open-v3")


@needs_metaworld
@pytest.mark.sim
def test_object_that_is_fixed_is_not_moved() -> None:
    arm = make_arm(ArmSpec("drawer-open-v3"))
    try:
        with pytest.raises(TaskError, match="is fixed to the scene"):
            arm.move_object(np.array([0.01, 0.0, 0.0]))
    finally:
        arm.close()


def test_sweeps_are_sorted_and_hold_zero() -> None:
    assert [d.strength for d in sweep("action-delay=4,1")] == [0.0, 1.0, 4.0]
    assert [d.strength for d in sweep("brightness=-1,1")] == [-1.0, 0.0, 1.0]
    assert [d.strength for d in sweep("occlusion")] == [0, 5, 10, 20, 40, 80]
    assert sweep("action-delay=0")[0] != NONE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("action-dely", "did you mean 'action-delay'?"),
        ("xyz", "there are occlusion, patch"),
        ("action-delay=much", "e.g. action-delay=0,1,2"),
        ("action-delay=", "e.g. action-delay=0,1,2"),
        ("action-delay=1.5", "give a whole number of ticks"),
        ("action-delay=-1", "give 0 to 100 ticks"),
        ("dropped-frames=nan", "give 0 to 1"),
    ],
)
def test_wrong_sweep_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sweep(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
