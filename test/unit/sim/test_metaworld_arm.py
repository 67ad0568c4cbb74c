"""Metaworld as an arm: states follow from seed and commands, commands are exact, pictures are right."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("metaworld")

from dp_ros.sim.arm import ArmSpec, Observation, TaskError, rest_command
from dp_ros.sim.experts import demonstrate
from dp_ros.sim.metaworld_arm import MetaworldArm
from dp_ros.sim.rendering import RenderingError

pytestmark = [
    pytest.mark.sim,
    pytest.mark.filterwarnings(r"ignore:Constant\(s\) may be too high"),  # the experts rely on being clipped
]

TASKS = ("drawer-open-v3", "button-press-topdown-v3", "pick-place-v3")
CAMERAS = ("gripperPOV", "behindGripper")


@pytest.fixture
def make_arm() -> Iterator[Callable[..., MetaworldArm]]:
    arms: list[MetaworldArm] = []

    def make(task: str = TASKS[0], *args: object, **options: object) -> MetaworldArm:
        arms.append(MetaworldArm(ArmSpec(task, *args, **options)))
        return arms[-1]

    yield make
    for arm in arms:
        arm.close()


@pytest.fixture(scope="module")
def drawing() -> None:
    """For tests that need pictures; where no backend works, its own message is the reason to skip."""
    arm = MetaworldArm(ArmSpec(TASKS[0]))
    try:
        arm.reset(0)
        arm.render("gripperPOV", 8, 8)
    except RenderingError as error:
        pytest.skip(str(error))
    finally:
        arm.close()


def run(
    arm: MetaworldArm, seed: int, commands: NDArray[np.float64] | None = None
) -> list[NDArray[np.float64]]:
    """States of an episode of the expert, or of given commands."""
    arm.reset(seed)
    states = [arm.simulator_state()]
    for t in range(40 if commands is None else len(commands)):
        arm.advance(arm.expert_command() if commands is None else commands[t])
        states.append(arm.simulator_state())
    return states


@pytest.mark.parametrize("task", TASKS)
def test_states_follow_from_seed_and_commands_whatever_was_simulated_before(
    make_arm: Callable[..., MetaworldArm], task: str
) -> None:
    fresh, used = make_arm(task), make_arm(task)
    rng = np.random.default_rng(0)
    low, high = used.target_bounds_m
    run(used, 3, np.concatenate([rng.uniform(low, high, (40, 3)), rng.uniform(-1, 1, (40, 1))], axis=1))
    expected = run(fresh, 7)
    np.testing.assert_array_equal(run(used, 7), expected)
    assert any((a != b).any() for a, b in zip(run(used, 8), expected, strict=True))


def test_reset_senses_the_same_as_the_first_time(make_arm: Callable[..., MetaworldArm]) -> None:
    arm = make_arm()
    first = arm.reset(5)
    arm.advance(arm.expert_command())
    again = arm.reset(5)
    np.testing.assert_array_equal(again.ee_position_m, first.ee_position_m)
    assert again.gripper == first.gripper
    assert (arm.success, arm.steps) == (False, 0)


@pytest.mark.parametrize("task", ["push-v3", "push-back-v3"])
def test_goal_is_that_of_this_episode_from_the_first_picture_on(
    make_arm: Callable[..., MetaworldArm], task: str
) -> None:
    """These tasks place their goal after the physics."""
    fresh, used = make_arm(task), make_arm(task)
    run(used, 3)
    fresh.reset(7)
    used.reset(7)
    shown = [np.array(arm.data.site_xpos) for arm in (fresh, used)]
    np.testing.assert_array_equal(*shown)
    used.advance(used.expert_command())
    goal = used.model.site("goal").id
    np.testing.assert_array_equal(shown[1][goal], used.data.site_xpos[goal])


def test_command_is_where_the_arm_is_told_to_be(make_arm: Callable[..., MetaworldArm]) -> None:
    """Absolute metres: the target goes there, one centimetre per axis and tick at most, never out of its bounds."""
    arm = make_arm()
    arm.reset(0)
    low, high = arm.target_bounds_m
    rng = np.random.default_rng(1)
    for _ in range(60):
        before = arm.target_m
        command = np.append(before + rng.uniform(-0.03, 0.03, 3), rng.uniform(-1, 1))
        arm.advance(command)
        expected = np.clip(before + np.clip(command[:3] - before, -0.01, 0.01), low, high)
        np.testing.assert_allclose(arm.target_m, expected, atol=1e-12)
    assert arm.steps == 60


def test_native_actions_and_commands_are_two_ways_to_say_the_same(
    make_arm: Callable[..., MetaworldArm],
) -> None:
    arm = make_arm()
    arm.reset(0)
    rng = np.random.default_rng(2)
    for _ in range(50):
        native = rng.uniform(-1.5, 1.5, 4) + np.array([0.0, 1.0, 1.0, 0.0])  # on the whole towards the bounds
        command = arm.to_command(native)
        low, high = arm.target_bounds_m
        assert (command[:3] >= low).all()
        assert (command[:3] <= high).all()
        inside = (command[:3] > low) & (command[:3] < high)
        np.testing.assert_allclose(
            arm.to_native(command)[:3][inside], np.clip(native, -1, 1)[:3][inside], atol=1e-12
        )
        assert arm.to_native(command)[3] == np.clip(native[3], -1, 1)
        arm.advance(command)
        np.testing.assert_allclose(arm.target_m, command[:3], atol=1e-12)
    assert (arm.target_m == high).any()


@pytest.mark.parametrize("task", TASKS)
def test_expert_succeeds_through_commands_and_its_record_replays_to_the_same_states(
    make_arm: Callable[..., MetaworldArm], task: str
) -> None:
    arm, other = make_arm(task), make_arm(task)
    episode = demonstrate(arm, seed=11)
    assert episode is not None
    assert arm.success
    assert len(episode.action) == arm.steps
    np.testing.assert_array_equal(episode.action, episode.command)  # no noise
    observation = other.reset(11)
    for t, command in enumerate(episode.command):
        np.testing.assert_array_equal(observation.ee_position_m, episode.ee_pose[t])
        assert observation.gripper == episode.gripper[t]
        observation = other.step(command)
    np.testing.assert_array_equal(other.simulator_state(), arm.simulator_state())
    assert other.success


def test_noise_moves_the_arm_and_the_label_is_the_experts_clean_answer(
    make_arm: Callable[..., MetaworldArm],
) -> None:
    arm, other = make_arm(), make_arm()
    episode = demonstrate(arm, seed=11, noise=0.3)
    assert episode is not None
    assert np.abs(episode.command - episode.action)[:, :3].max() > 1e-3
    np.testing.assert_array_equal(
        episode.command[:, 3], episode.action[:, 3]
    )  # the gripper is never perturbed
    other.reset(11)
    for action, command in zip(episode.action, episode.command, strict=True):
        np.testing.assert_array_equal(other.expert_command(), action)  # at the state the noise led to
        other.advance(command)
    again = demonstrate(arm, seed=11, noise=0.3)
    assert again is not None
    np.testing.assert_array_equal(again.command, episode.command)


def test_ticks_after_the_success_are_kept_and_failures_are_not(
    make_arm: Callable[..., MetaworldArm],
) -> None:
    arm = make_arm()
    short, long = demonstrate(arm, seed=11), demonstrate(arm, seed=11, keep_steps=5)
    assert short is not None
    assert long is not None
    assert len(long.action) == len(short.action) + 5
    np.testing.assert_array_equal(long.action[: len(short.action)], short.action)
    assert demonstrate(arm, seed=11, max_steps=5) is None


def test_unknown_camera_names_those_there_are() -> None:
    with pytest.raises(TaskError, match=r"drawer-open-v3 has no camera 'front'; it has .*gripperPOV"):
        MetaworldArm(ArmSpec("drawer-open-v3", ("front",)))


def test_arm_is_what_its_joints_say(make_arm: Callable[..., MetaworldArm]) -> None:
    arm = make_arm()
    arm.reset(0)
    names, positions = arm.joint_positions()
    assert len(names) == len(positions) == 9  # seven of the arm, two fingers; not the drawer
    arm.advance(arm.expert_command())
    assert arm.joint_positions()[1] != positions
    assert arm.rate_hz == 80.0


def test_open_gripper_stays_open_while_the_arm_rests(make_arm: Callable[..., MetaworldArm]) -> None:
    """Effort 0, which was commanded before the first command, closes it a little."""
    arm = make_arm()
    first = arm.reset(0)
    assert first.gripper == 1.0
    rest = rest_command(arm, first)
    np.testing.assert_array_equal(rest, [*arm.target_m, -1.0])
    for _ in range(40):
        arm.advance(rest)
    assert arm.observe().gripper == 1.0
    np.testing.assert_array_equal(arm.target_m, rest[:3])


# ---- pictures ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("drawing")
def test_observation_has_a_picture_of_each_camera(make_arm: Callable[..., MetaworldArm]) -> None:
    arm = make_arm(TASKS[0], CAMERAS, width_px=64, height_px=48)
    for observation in (arm.reset(0), arm.step(arm.expert_command())):
        assert isinstance(observation, Observation)
        assert tuple(observation.images) == CAMERAS
        for pixels in observation.images.values():
            assert (pixels.shape, pixels.dtype) == ((48, 64, 3), np.uint8)
            assert pixels.std() > 5  # something is in it
        left, right = observation.images.values()
        assert (left != right).mean() > 0.5
    assert arm.render("corner", 32, 16).shape == (16, 32, 3)


@pytest.mark.usefixtures("drawing")
def test_two_simulators_in_one_process_draw_what_each_draws_alone(
    make_arm: Callable[..., MetaworldArm],
) -> None:
    """One GL context serves both: textures and sizes of the one must not end up in the other."""

    def pictures(arm: MetaworldArm, steps: int) -> Iterator[NDArray[np.uint8]]:
        arm.reset(1)
        for _ in range(steps):
            yield np.concatenate([p.ravel() for p in arm.step(arm.expert_command()).images.values()])

    options = [(TASKS[0], CAMERAS, 64, 48), (TASKS[1], CAMERAS[:1], 96, 96)]
    alone = []
    for option in options:
        arm = MetaworldArm(ArmSpec(*option))
        alone.append(list(pictures(arm, 3)))
        arm.close()  # and with it what it has on the GPU
    together = list(zip(*[pictures(make_arm(*option), 3) for option in options], strict=True))
    for i in range(2):
        np.testing.assert_array_equal([pair[i] for pair in together], alone[i])


@pytest.mark.usefixtures("drawing")
def test_closing_one_simulator_leaves_the_other_able_to_draw(make_arm: Callable[..., MetaworldArm]) -> None:
    first, second = make_arm(), make_arm()
    first.reset(0)
    second.reset(0)
    expected = second.render("corner")
    first.render("corner")
    first.close()
    np.testing.assert_array_equal(second.render("corner"), expected)


@pytest.mark.usefixtures("drawing")
def test_markers_are_drawn_only_when_asked_for(make_arm: Callable[..., MetaworldArm]) -> None:
    """The goal of pick-place floats in view of the corner camera; no real camera would see it."""
    plain, marked = make_arm("pick-place-v3"), make_arm("pick-place-v3", markers=True)
    pictures = []
    for arm in (plain, marked):
        arm.reset(0)
        pictures.append(arm.render("corner", 128, 128))
    changed = (pictures[0] != pictures[1]).any(axis=-1)
    assert 5 < changed.sum() < 0.1 * changed.size


@pytest.mark.usefixtures("drawing")
@pytest.mark.parametrize("size", [(641, 480), (640, 481)])
def test_size_beyond_the_buffer_is_refused(
    make_arm: Callable[..., MetaworldArm], size: tuple[int, int]
) -> None:
    arm = make_arm()
    arm.reset(0)
    assert arm.render("corner", 640, 480).shape == (480, 640, 3)
    with pytest.raises(RenderingError, match=f"{size[0]}x{size[1]} px is outside 1x1 to 640x480"):
        arm.render("corner", *size)
