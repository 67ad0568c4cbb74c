"""Training windows: their frames, their actions, and the crops of their pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dp_ros.actions import ACTION_DIM, POSITION, STATE_DIM, gripper_of, join
from dp_ros.data.episodes import Dataset, DatasetError
from dp_ros.data.windows import Windows
from dp_ros.schema import ActionConfig, EncoderConfig, Horizons

HORIZONS = Horizons(T_o=2, T_p=4, T_a=2)


def encoder(**changes: Any) -> EncoderConfig:
    sizes = {"height_px": 36, "width_px": 40, "crop_height_px": 32, "crop_width_px": 32, "stages": 2}
    return EncoderConfig.model_validate({"cameras": ("left", "right"), **sizes, **changes})


def small_dataset() -> Dataset:
    """Two episodes, of 3 and 2 ticks, that move along x by powers of two; the second tick was perturbed."""
    x = np.array([1.0, 3, 7, 100, 300])  # clean commands
    executed = np.array([1.0, 13, 7, 100, 300])
    measured = np.array([0.0, 1, 12, 90, 100])

    def along_x(values: np.ndarray) -> np.ndarray:
        return np.stack([values, np.zeros(5), np.zeros(5)], axis=1)

    grip = np.array([-1.0, -1, 1, -1, 0.5])
    pixels = np.zeros((5, 36, 40, 3), dtype=np.uint8)
    return Dataset(
        images={"left": pixels, "right": pixels},
        ee_pose=along_x(measured),
        gripper=np.array([0.1, 0.2, 0.3, 0.4, 0.5]),
        action=join(along_x(x), grip),
        command=join(along_x(executed), grip),
        episode_ends=np.array([3, 5]),
        attributes={},
    )


def test_frames_before_an_episode_repeat_its_first_one() -> None:
    windows = Windows(small_dataset(), HORIZONS, ActionConfig(), encoder())
    assert len(windows) == 5
    np.testing.assert_array_equal(windows.frames, [[0, 0], [0, 1], [1, 2], [3, 3], [3, 4]])
    long = Windows(small_dataset(), Horizons(T_o=4, T_p=5, T_a=2), ActionConfig(), encoder())
    np.testing.assert_array_equal(long.frames[[2, 4]], [[0, 0, 1, 2], [3, 3, 3, 4]])
    np.testing.assert_array_equal(windows.state[1], [[0, 0, 0, 0.1], [1, 0, 0, 0.2]])


# The steps, each from the command that really came before it: 1 - 0 (measured), 3 - 1, 7 - 13, | 100 - 90, 300 - 100.
@pytest.mark.parametrize(
    ("kind", "x"),
    [
        ("delta", [[0, 1, 2, -6], [1, 2, -6, 0], [2, -6, 0, 0], [0, 10, 200, 0], [10, 200, 0, 0]]),
        ("relative", [[0, 1, 3, -3], [0, 2, -4, -4], [0, -6, -6, -6], [0, 10, 210, 210], [0, 200, 200, 200]]),
        (
            "absolute",
            [[0, 1, 3, -3], [1, 3, -3, -3], [13, 7, 7, 7], [90, 100, 300, 300], [100, 300, 300, 300]],
        ),
    ],
)
def test_actions_are_clean_steps_that_hold_outside_the_episode(kind: Any, x: list[list[float]]) -> None:
    """Window t predicts ticks t - 1 to t + 2; worked out by hand."""
    windows = Windows(small_dataset(), HORIZONS, ActionConfig(position=kind), encoder())
    np.testing.assert_array_equal(windows.actions[..., 0], x)
    assert not POSITION.of(windows.actions)[..., 1:].any()


def test_executed_actions_are_steps_from_the_same_reference_with_the_noise() -> None:
    windows = Windows(small_dataset(), HORIZONS, ActionConfig(), encoder())
    clean, executed = POSITION.of(windows.actions)[..., 0], POSITION.of(windows.executed)[..., 0]
    # Window 1: 3 was commanded and 13 executed, then 7; from the command before, 1. Clean are the expert's steps.
    np.testing.assert_array_equal(clean[1, 1:], [2, -4, -4])
    np.testing.assert_array_equal(executed[1, 1:], [12, 6, 6])
    np.testing.assert_array_equal(gripper_of(windows.executed), gripper_of(windows.actions))


@pytest.mark.parametrize(
    ("kind", "T_o", "count"),
    [("relative", 1, 1), ("relative", 2, 1), ("relative", 3, 2), ("delta", 1, 1), ("delta", 2, 2)],
)
def test_step_from_a_command_that_is_not_recorded_is_not_trained_on(kind: Any, T_o: int, count: int) -> None:
    """Windows that are trained on do not change with the measured position before the arm's first command."""
    dataset = replace(small_dataset(), corrected=np.array([False, True]))
    moved = dataset.ee_pose.copy()
    moved[3] += 5.0
    horizons = Horizons(T_o=T_o, T_p=4, T_a=2)
    one, other = (
        Windows(replace(dataset, ee_pose=pose), horizons, ActionConfig(position=kind), encoder())
        for pose in (dataset.ee_pose, moved)
    )
    assert one.trainable.tolist() == [True, True, True, *[False] * count, *[True] * (2 - count)]
    np.testing.assert_array_equal(one.actions[one.trainable], other.actions[one.trainable])
    assert Windows(small_dataset(), horizons, ActionConfig(position=kind), encoder()).trainable.all()


def test_gripper_keeps_its_first_and_last_command_outside_the_episode() -> None:
    windows = Windows(small_dataset(), HORIZONS, ActionConfig(), encoder())
    grip = [[-1, -1, -1, 1], [-1, -1, 1, 1], [-1, 1, 1, 1], [-1, -1, 0.5, 0.5], [-1, 0.5, 0.5, 0.5]]
    np.testing.assert_array_equal(gripper_of(windows.actions), grip)


def test_statistics_are_the_limits_of_what_is_trained_on() -> None:
    stats = Windows(small_dataset(), HORIZONS, ActionConfig(), encoder()).stats()
    assert stats == {
        "action": {"low": [-6, -0.001, -0.001, -1], "high": [210, 0.001, 0.001, 1]},
        "state": {"low": [0, -0.001, -0.001, 0.1], "high": [100, 0.001, 0.001, 0.5]},
    }


@pytest.mark.parametrize(("kind", "least_m"), [("absolute", 2e-3), ("relative", 2e-3), ("delta", 2e-4)])
def test_dimension_that_hardly_varied_has_the_least_range_of_its_unit(kind: Any, least_m: float) -> None:
    """Metres for positions, a share of its whole range for the gripper; its middle stays."""
    still = small_dataset()
    noise = 1e-6 * np.array([0.0, 1, 0, 1, 0])
    action = join(np.stack([noise, 0.4 + noise, np.zeros(5)], axis=1), -1 + noise)
    state = np.stack([noise, 0.4 + noise, np.zeros(5)], axis=1)
    still = replace(still, action=action, command=action, ee_pose=state, gripper=0.7 + noise)
    stats = Windows(still, HORIZONS, ActionConfig(position=kind), encoder()).stats()
    ranges = {name: np.subtract(each["high"], each["low"]) for name, each in stats.items()}
    np.testing.assert_allclose(ranges["action"], [least_m] * 3 + [0.1])
    np.testing.assert_allclose(ranges["state"], [2e-3] * 3 + [0.05])
    assert np.mean([stats["state"]["low"], stats["state"]["high"]], axis=0) == pytest.approx(
        [0, 0.4, 0, 0.7], abs=1e-6
    )


def located_dataset(ticks: int = 6) -> Dataset:
    """Each pixel encodes its place and tick: (row, column, tick + 100 for the right camera)."""
    row, column = np.meshgrid(np.arange(36), np.arange(40), indexing="ij")
    frames = np.stack([np.stack([row, column, np.full_like(row, t)], axis=-1) for t in range(ticks)])
    left = frames.astype(np.uint8)
    right = left + np.array([0, 0, 100], dtype=np.uint8)
    zeros = np.zeros((ticks, ACTION_DIM))
    return Dataset(
        {"left": left, "right": right},
        POSITION.of(zeros),
        gripper_of(zeros),
        zeros,
        zeros,
        np.array([ticks]),
        {},
    )


def test_frames_of_a_window_share_their_crop() -> None:
    """Else the crop would move the scene between two frames, and motion would be noise."""
    windows = Windows(located_dataset(), Horizons(), ActionConfig(), encoder())
    rows = np.array([3, 0, 5])
    images, state, actions = windows.batch(rows, np.random.default_rng(0))
    assert [(of_camera.shape, of_camera.dtype) for of_camera in images] == [((3, 2, 32, 32, 3), np.uint8)] * 2
    assert (state.shape, state.dtype) == ((3, 2, STATE_DIM), np.float32)
    assert (actions.shape, actions.dtype) == ((3, 8, ACTION_DIM), np.float32)
    for b, row in enumerate(rows):
        for view in range(2):
            corners = images[view][b, :, 0, 0, :2].astype(int)
            np.testing.assert_array_equal(corners[0], corners[1])
            for o, tick in enumerate(windows.frames[row]):
                top, left = corners[o]
                assert (images[view][b, o, ..., 0] == np.arange(top, top + 32)[:, None]).all()
                assert (images[view][b, o, ..., 1] == np.arange(left, left + 32)).all()
                assert (images[view][b, o, ..., 2] == tick + 100 * view).all()


def test_crops_reach_every_place_of_the_picture() -> None:
    windows = Windows(located_dataset(), Horizons(), ActionConfig(), encoder(cameras=("left",)))
    images, _, _ = windows.batch(np.zeros(500, dtype=np.int64), np.random.default_rng(0))
    corners = {tuple(corner) for corner in images[0][:, 0, 0, 0, :2].tolist()}
    assert corners == {(top, left) for top in range(5) for left in range(9)}


def test_views_follow_the_order_of_the_config() -> None:
    windows = Windows(located_dataset(), Horizons(), ActionConfig(), encoder(cameras=("right", "left")))
    images, _, _ = windows.batch(np.array([2]), np.random.default_rng(0))
    assert [of_camera[0, 1, 0, 0, 2] for of_camera in images] == [102, 2]


def test_batch_follows_from_its_rows_and_its_generator(make_dataset: Callable[..., Dataset]) -> None:
    windows = Windows(make_dataset(), Horizons(), ActionConfig(), encoder())
    rows = np.array([4, 0, 17])
    first, again, other = (windows.batch(rows, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for a, b in zip((*first[0], *first[1:]), (*again[0], *again[1:]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(first[0], other[0], strict=True))
    np.testing.assert_array_equal(first[2], other[2])


def test_camera_of_another_size_is_refused() -> None:
    with pytest.raises(DatasetError, match="'left' was recorded at 40x36 px but the policy takes 40x64"):
        Windows(small_dataset(), HORIZONS, ActionConfig(), encoder(height_px=64))


def test_camera_that_was_not_recorded_is_refused() -> None:
    blind = replace(small_dataset(), images={"left": small_dataset().images["left"]})
    with pytest.raises(DatasetError, match="no camera 'right'; it has left"):
        Windows(blind, HORIZONS, ActionConfig(), encoder())
