"""The contract of a simulated arm, kept by every simulator, and the registry that finds them by task."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mujoco")

from dp_ros.actions import ACTION_DIM, GRIPPER, POSITION, gripper_of
from dp_ros.poses import is_unit
from dp_ros.schema import BridgeConfig, CollectConfig
from dp_ros.sim import arm as arms
from dp_ros.sim.arm import (
    ArmSpec,
    SimulatedArm,
    TaskError,
    check_task,
    keep_gripper,
    make_arm,
    rest_command,
    simulator_of,
    spectator_of,
)
from dp_ros.sim.experts import demonstrate
from dp_ros.sim.rendering import RenderingError

pytestmark = [
    pytest.mark.sim,
    pytest.mark.filterwarnings(
        r"ignore:Constant\(s\) may be too high"
    ),  # Metaworld's experts rely on being clipped
]

ROOT = Path(__file__).parents[3]
TASKS = ("tiny-push", "coffee-push-v3")  # of each simulator one whose object lies free
CAMERAS = ("gripperPOV", "behindGripper")


@pytest.fixture(scope="module", params=TASKS)
def arm(request: pytest.FixtureRequest) -> Iterator[SimulatedArm]:
    if request.param.endswith("-v3"):
        pytest.importorskip("metaworld")
    arm = make_arm(ArmSpec(request.param, CAMERAS, width_px=48, height_px=36))
    yield arm
    arm.close()


@pytest.fixture
def can_draw(arm: SimulatedArm) -> None:
    arm.reset(0)
    try:
        arm.render(CAMERAS[0])
    except RenderingError as error:
        pytest.skip(str(error))


def random_commands(arm: SimulatedArm, count: int, seed: int = 0) -> list[np.ndarray]:
    """Absolute commands all over the box, most of them out of reach of one tick."""
    rng = np.random.default_rng(seed)
    low, high = arm.target_bounds_m
    return [np.append(rng.uniform(low - 0.05, high + 0.05), rng.uniform(-1.0, 1.0)) for _ in range(count)]


def advance(arm: SimulatedArm, seed: int, commands: list[np.ndarray]) -> np.ndarray:
    """The states after each command, (T, D)."""
    arm.reset(seed)
    states = []
    for command in commands:
        arm.advance(command)
        states.append(arm.simulator_state())
    return np.array(states)


@pytest.mark.usefixtures("can_draw")
def test_states_and_pictures_follow_from_seed_and_commands_alone(arm: SimulatedArm) -> None:
    commands = random_commands(arm, 12)
    first = advance(arm, 7, commands), arm.observe()
    other = advance(arm, 8, commands)
    again = advance(arm, 7, commands), arm.observe()
    np.testing.assert_array_equal(again[0], first[0])
    assert (other != first[0]).any()
    for camera in CAMERAS:
        np.testing.assert_array_equal(again[1].images[camera], first[1].images[camera])


@pytest.mark.usefixtures("can_draw")
def test_observation_is_complete(arm: SimulatedArm) -> None:
    for observation in (arm.reset(3), arm.step(arm.expert_command())):
        assert tuple(observation.images) == arm.spec.cameras == CAMERAS
        for pixels in observation.images.values():
            assert (pixels.shape, pixels.dtype) == ((36, 48, 3), np.uint8)
            assert pixels.std(axis=(0, 1)).max() > 5.0  # more than a covered camera shows
        assert observation.ee_pose.shape == (7,)
        assert is_unit(observation.ee_pose[3:])
        assert 0.0 <= observation.gripper <= 1.0
    assert arm.focal_length_px(CAMERAS[0]) > 0


def test_target_moves_towards_the_command_by_at_most_one_step_and_stays_in_its_box(arm: SimulatedArm) -> None:
    arm.reset(1)
    low, high = arm.target_bounds_m
    for command in random_commands(arm, 40, seed=1):
        before = arm.target_m
        arm.advance(command)
        move = np.clip(POSITION.of(command) - before, -arm.max_step_m, arm.max_step_m)
        np.testing.assert_allclose(arm.target_m, np.clip(before + move, low, high), atol=1e-12)
    assert arm.steps == 40


def test_noise_is_in_longest_moves_of_a_tick_and_spares_the_gripper(arm: SimulatedArm) -> None:
    arm.reset(2)
    low, high = arm.target_bounds_m
    command = np.append(np.clip(arm.target_m, low + 0.03, high - 0.03), 0.25)
    for _ in range(8):
        arm.advance(command)  # the target is now well inside its box
    np.testing.assert_allclose(arm.target_m, POSITION.of(command), atol=1e-12)
    noise = np.array([0.5, -0.25, 3.0])
    noisy = arm.perturb(command, noise)
    expected_m = arm.target_m + np.array([0.5, -0.25, 1.0]) * arm.max_step_m  # as far as one tick reaches
    np.testing.assert_allclose(POSITION.of(noisy), expected_m, atol=1e-12)
    assert gripper_of(noisy) == 0.25
    np.testing.assert_allclose(arm.perturb(command, np.zeros(3)), command, atol=1e-12)


@pytest.mark.usefixtures("can_draw")
def test_expert_solves_the_task_and_its_record_replays_to_the_same_states(arm: SimulatedArm) -> None:
    episode = demonstrate(arm, seed=12, noise=0.3)
    assert episode is not None
    assert arm.success
    end = arm.simulator_state()
    assert episode.action.shape == episode.command.shape == (arm.steps, ACTION_DIM)
    assert (POSITION.of(episode.action) != POSITION.of(episode.command)).any()
    np.testing.assert_array_equal(GRIPPER.of(episode.action), GRIPPER.of(episode.command))
    np.testing.assert_array_equal(advance(arm, 12, list(episode.command))[-1], end)


def test_reset_begins_an_episode(arm: SimulatedArm) -> None:
    arm.reset(4)
    start = arm.simulator_state()
    while not arm.success:
        arm.advance(arm.expert_command())
    assert arm.steps > 5
    arm.reset(4)
    assert (arm.success, arm.steps) == (False, 0)
    np.testing.assert_array_equal(arm.simulator_state(), start)


@pytest.mark.usefixtures("can_draw")
def test_rest_command_keeps_arm_and_open_gripper_as_they_are(arm: SimulatedArm) -> None:
    observation = arm.reset(5)
    assert observation.gripper > 0.9
    rest = rest_command(arm, observation)
    np.testing.assert_array_equal(POSITION.of(rest), arm.target_m)
    for _ in range(30):
        observation = arm.step(rest)
    np.testing.assert_array_equal(arm.target_m, POSITION.of(rest))
    assert observation.gripper > 0.9
    for _ in range(30):
        observation = arm.step(np.append(POSITION.of(rest), 1.0))
    assert observation.gripper < 0.5  # 1 closes


@pytest.mark.usefixtures("can_draw")
def test_moved_camera_is_back_after_a_reset(arm: SimulatedArm) -> None:
    arm.reset(1)
    clear = arm.render(CAMERAS[0])
    arm.move_camera(CAMERAS[0], np.array([0.02, 0.0, 0.0]))
    assert (arm.render(CAMERAS[0]) != clear).mean() > 0.05
    arm.reset(1)
    np.testing.assert_array_equal(arm.render(CAMERAS[0]), clear)


def test_moved_object_is_elsewhere_and_nothing_else_is(arm: SimulatedArm) -> None:
    arm.reset(2)
    before = arm.simulator_state()
    arm.move_object(np.array([0.03, 0.04, 0.0]))
    assert np.linalg.norm(arm.simulator_state() - before) == pytest.approx(0.05)
    assert arm.spec.task in simulator_of(arm.spec.task).movable_tasks


def test_facts_of_the_arm_are_those_of_its_simulator(arm: SimulatedArm) -> None:
    simulator = simulator_of(arm.spec.task)
    assert arm.rate_hz == simulator.rate_hz
    assert arm.render(simulator.spectator, 32, 16).shape == (16, 32, 3)
    assert spectator_of(arm.spec.task) == simulator.spectator
    assert spectator_of(arm.spec.task, "corner") == "corner"
    names, positions = arm.joint_positions()
    assert len(set(names)) == len(names) == len(positions)
    for use in (lambda: make_arm(ArmSpec(arm.spec.task, ("front",))), lambda: arm.render("front")):
        with pytest.raises(TaskError, match=r"has no camera 'front'; it has .*gripperPOV"):
            use()


def test_picture_drawn_in_the_background_is_that_of_the_moment_it_was_asked_for(
    arm: SimulatedArm, can_draw: None
) -> None:
    """Bit by bit, although the arm has moved on since, and so have its cameras and objects with the reset."""
    camera = simulator_of(arm.spec.task).spectator
    background = arm.background_renderer(camera, 40, 30, rate_hz=1e6)
    try:
        for seed in (1, 2):
            arm.reset(seed)
            arm.move_camera(camera, np.array([0.02 * seed, 0.0, 0.0]))
            advance_some(arm, 10)
            expected = arm.render(camera, 40, 30)
            background.offer(seed, now_s=1e3 * seed)
            advance_some(arm, 10)
            assert not np.array_equal(arm.render(camera, 40, 30), expected)
            stamp, picture = wait_for(lambda now_s=1e3 * seed: background.take(now_s))
            assert stamp == seed
            np.testing.assert_array_equal(picture, expected)
        assert arm.drawing_s.keys() == set(CAMERAS)
        assert all(0.0 < took_s < 10.0 for took_s in arm.drawing_s.values())
    finally:
        background.close()
    with pytest.raises(TaskError, match="has no camera 'front'"):
        arm.background_renderer("front", 40, 30, rate_hz=1.0)


def advance_some(arm: SimulatedArm, ticks: int) -> None:
    for _ in range(ticks):
        arm.advance(arm.expert_command())


def wait_for(done: Callable[[], Any], timeout_s: float = 300.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (result := done()):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return result


def test_two_arms_in_one_process_do_not_disturb_each_other(arm: SimulatedArm) -> None:
    commands = random_commands(arm, 6)
    alone = advance(arm, 3, commands)
    other = make_arm(arm.spec)
    advance(other, 9, commands)
    arm.reset(3)
    for command, expected in zip(commands, alone, strict=True):
        other.advance(command)
        arm.advance(command)
        np.testing.assert_array_equal(arm.simulator_state(), expected)
    other.close()


# ---- registry ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("drawer-opn", "unknown task 'drawer-opn'; did you mean 'drawer-open-v3'?"),
        ("drawer-opn-v3", "did you mean 'drawer-open-v3'?"),
        ("tiny-psh", "did you mean 'tiny-push'?"),
        ("xyzzy", "unknown task 'xyzzy'; tiny has 3, e.g. tiny-push; metaworld has 50, e.g. "),
        ("", "unknown task ''"),
    ],
)
def test_unknown_task_names_the_nearest(task: str, says: str) -> None:
    pytest.importorskip("metaworld")
    for refuse in (check_task, simulator_of, lambda task: make_arm(ArmSpec(task))):
        with pytest.raises(TaskError) as caught:
            refuse(task)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)


def test_task_may_be_named_without_its_version() -> None:
    pytest.importorskip("metaworld")
    assert check_task("drawer-open") == check_task("drawer-open-v3") == "drawer-open-v3"
    assert make_arm(ArmSpec("reach")).spec.task == "reach-v3"
    assert check_task("tiny-push") == "tiny-push"


def test_simulator_that_is_not_installed_is_named_and_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arms, "_MODULES", ("tiny_arm", "absent_arm"))
    assert simulator_of("tiny-push").name == "tiny"
    with pytest.raises(TaskError, match=r"task 'lift' .*needs dp_ros.sim.absent_arm: pip install") as caught:
        check_task("lift")
    assert "\n" not in str(caught.value)


def test_tiny_arm_is_found_without_loading_metaworld() -> None:
    code = "import sys; from dp_ros.sim.arm import check_task as c; c('tiny-push'); print('metaworld' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("config", [CollectConfig, BridgeConfig])
def test_spec_of_a_config_is_what_the_config_says(
    config: Callable[..., CollectConfig | BridgeConfig],
) -> None:
    made = config(task="tiny-push", cameras=CAMERAS, width_px=64, height_px=48, markers=True)
    assert ArmSpec.of(made) == ArmSpec("tiny-push", CAMERAS, 64, 48, True)


def test_gripper_that_is_not_commanded_keeps_the_last_command() -> None:
    last = np.array([0.0, 0.1, 0.2, -1.0])
    command = np.array([0.3, 0.4, 0.5, np.nan])
    np.testing.assert_array_equal(keep_gripper(command, last), [0.3, 0.4, 0.5, -1.0])
    np.testing.assert_array_equal(keep_gripper(np.array([0.3, 0.4, 0.5, 1.0]), last), [0.3, 0.4, 0.5, 1.0])
    assert np.isnan(
        keep_gripper(np.array([np.nan, 0.4, 0.5, np.nan]), last)[0]
    )  # a position is never made up
