"""Frames of recorded episodes: which samples they hold, and which commands belong to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp_ros.actions import POSITION, gripper_of
from dp_ros.data import episodes
from dp_ros.data.bags.reader import BagError
from dp_ros.ros.bags.convert import convert
from dp_ros.ros.bags.episode_reader import read_episode
from dp_ros.ros.bags.frames import frames_of
from dp_ros.schema import ConvertConfig, TopicMap, override

MS = 1_000_000
BEGIN_NS = 1_700_000_000_000_000_000
PERIOD_NS = 12_500_000


def settings(**changes: Any) -> ConvertConfig:
    return override(ConvertConfig(), {key.replace("__", "."): value for key, value in changes.items()})


def run(bags: Path | list[Path], out: Path, **changes: Any) -> Any:
    return convert(bags if isinstance(bags, list) else [bags], out, settings(**changes), jobs=1)


@pytest.mark.parametrize("rate_hz", [30.0, 80.0, 200.0])
def test_a_frame_holds_the_newest_sample_that_is_not_of_its_future(
    tmp_path: Path, bag_maker, rate_hz: float
) -> None:
    """Against a search through all samples: jitter, drops, late arrival, any rate."""
    rng = np.random.default_rng(0)
    late = rng.integers(0, 60, (10, 400)) * MS
    streams = ("camera left", "ee_pose", "gripper", "command_pose", "command_gripper")
    drop = {name: set(rng.integers(1, 119, 6).tolist()) for name in streams}
    drop["command_gripper"] = drop["command_pose"]  # a command needs both
    path = bag_maker.episode(
        tmp_path / "bag",
        ticks=120,
        latency_ns=lambda stream, i: int(late[streams.index(stream), i]),
        dropped=lambda stream, i: i in drop[stream],
    )
    config = settings(rate_hz=rate_hz, max_age_s=0.05)
    episode = read_episode(path, TopicMap())
    found = frames_of(episode, config)
    values = bag_maker.values(0, 120, ("left",), (36, 40))
    kept = {name: [i for i in range(120) if i not in drop[name]] for name in streams}
    expected: list[dict[str, int]] = []
    first = max(ticks[0] for ticks in kept.values()) * PERIOD_NS
    last = min(ticks[-1] for ticks in kept.values()) * PERIOD_NS
    for at in range(first, last + 1, round(1e9 / rate_hz)):
        expected.append({name: max(i for i in kept[name] if i * PERIOD_NS <= at) for name in streams})
    np.testing.assert_array_equal(found.ee_pose, values["ee_pose"][[row["ee_pose"] for row in expected]])
    np.testing.assert_array_equal(
        POSITION.of(found.command), POSITION.of(values["command"])[[row["command_pose"] for row in expected]]
    )
    np.testing.assert_array_equal(
        gripper_of(found.command), gripper_of(values["command"])[[row["command_gripper"] for row in expected]]
    )
    run(path, tmp_path / "data", rate_hz=rate_hz, max_age_s=0.05, accept_failed=True)
    pictures = episodes.load(tmp_path / "data").images["left"]
    np.testing.assert_array_equal(pictures, values["left"][[row["camera left"] for row in expected]])


def test_no_frame_holds_a_sample_beyond_the_maximum_age(tmp_path: Path, bag_maker) -> None:
    """A hole splits the episode: no window may span it."""
    path = bag_maker.episode(
        tmp_path / "bag", ticks=100, dropped=lambda stream, i: stream == "camera left" and 40 <= i < 60
    )
    result = run(path, tmp_path / "data", max_age_s=0.05, accept_failed=True)
    assert result.episodes == 2
    found = episodes.load(tmp_path / "data")
    held = 4  # ticks of 12.5 ms in 50 ms
    assert found.episode_ends.tolist() == [40 + held, 100 - 20 + held]
    values = bag_maker.values(0, 100, ("left",), (36, 40))
    np.testing.assert_array_equal(found.images["left"][40:44], np.repeat(values["left"][39:40], held, axis=0))
    np.testing.assert_array_equal(found.images["left"][44], values["left"][60])


def test_as_arrived_holds_what_had_arrived(tmp_path: Path, bag_maker) -> None:
    """Pictures that arrive 40 ms late are late for the node, and in the frames that a policy is trained on."""
    path = bag_maker.episode(
        tmp_path / "bag", ticks=60, latency_ns=lambda stream, i: 40 * MS if stream == "camera left" else 0
    )
    values = bag_maker.values(0, 60, ("left",), (36, 40))
    run(path, tmp_path / "as-arrived", as_arrived=True)
    found = episodes.load(tmp_path / "as-arrived")
    np.testing.assert_array_equal(found.images["left"], values["left"][: len(found)])
    np.testing.assert_array_equal(found.ee_pose, values["ee_pose"][60 - len(found) :])
    assert len(found) == 60 - 4  # 40 ms are 3.2 ticks
    run(path, tmp_path / "by-stamp")
    np.testing.assert_array_equal(episodes.load(tmp_path / "by-stamp").images["left"], values["left"])


def test_as_arrived_is_refused_where_the_clocks_differ(tmp_path: Path, bag_maker) -> None:
    path = bag_maker.episode(tmp_path / "bag", latency_ns=lambda stream, i: 10**15)
    with pytest.raises(BagError, match="stamped by another clock"):
        run(path, tmp_path / "data", as_arrived=True)


def test_the_frames_that_a_policy_node_had_are_rebuilt(tmp_path: Path, bag_maker) -> None:
    """While it drove: its ticks and the samples that it had, although newer ones were stamped by then."""
    ticks = BEGIN_NS + np.arange(10, 30) * PERIOD_NS + 3 * MS
    names = ("camera left", "ee_pose", "gripper")
    ages_ms = {"camera left": 28.0, "ee_pose": 3.0, "gripper": 15.5}
    record = [
        (
            "/policy/ages",
            int(at),
            bag_maker.joints(int(at), position=[ages_ms[n] / 1e3 for n in names], names=names),
        )
        for at in ticks
    ]
    path = bag_maker.episode(tmp_path / "bag", ticks=40, extra=record)
    run(path, tmp_path / "data")
    found, values = episodes.load(tmp_path / "data"), bag_maker.values(0, 40, ("left",), (36, 40))
    by_stamp, after = np.arange(10), np.arange(31, 40)  # before it drove, and once a period has passed since

    def rows(first: int) -> np.ndarray:
        return np.concatenate([by_stamp, np.arange(first, first + 20), after])

    np.testing.assert_array_equal(found.images["left"], values["left"][rows(8)])
    np.testing.assert_array_equal(found.ee_pose, values["ee_pose"][rows(10)])
    np.testing.assert_array_equal(found.gripper, values["gripper"][rows(9)])
    assert found.attributes["bags"][0]["frames"] == "as the policy node had them"


def test_a_frame_of_which_a_sample_is_not_in_the_bag_is_left_out(tmp_path: Path, bag_maker) -> None:
    names = ("camera left", "ee_pose", "gripper")
    record = [
        ("/policy/ages", at, bag_maker.joints(at, position=[0.0] * 3, names=names))
        for at in range(BEGIN_NS, BEGIN_NS + 40 * PERIOD_NS, PERIOD_NS)
    ]
    path = bag_maker.episode(
        tmp_path / "bag", extra=record, dropped=lambda stream, i: stream == "camera left" and i == 20
    )
    run(path, tmp_path / "data", accept_failed=True)
    assert episodes.load(tmp_path / "data").episode_ends.tolist() == [20, 39]


def test_a_policy_of_another_rate_is_not_resampled(tmp_path: Path, bag_maker) -> None:
    names = ("camera left", "ee_pose", "gripper")
    record = [
        ("/policy/ages", at, bag_maker.joints(at, position=[0.0] * 3, names=names))
        for at in range(BEGIN_NS, BEGIN_NS + 40 * PERIOD_NS, PERIOD_NS)
    ]
    path = bag_maker.episode(tmp_path / "bag", extra=record)
    with pytest.raises(BagError, match=r"the policy ran at 80.0 Hz, not at 20: give --rate"):
        run(path, tmp_path / "data", rate_hz=20.0)


def test_a_camera_that_the_policy_did_not_look_at_is_taken_by_stamp(tmp_path: Path, bag_maker) -> None:
    names = ("camera left", "ee_pose", "gripper")
    record = [
        ("/policy/ages", at, bag_maker.joints(at, position=[0.0125, 0.0, 0.0], names=names))
        for at in range(BEGIN_NS + PERIOD_NS, BEGIN_NS + 40 * PERIOD_NS, PERIOD_NS)
    ]
    path = bag_maker.episode(tmp_path / "bag", extra=record, cameras=("left", "right"))
    run(path, tmp_path / "data")
    found, values = episodes.load(tmp_path / "data"), bag_maker.values(0, 40, ("left", "right"), (36, 40))
    np.testing.assert_array_equal(found.images["left"][-39:], values["left"][:39])
    np.testing.assert_array_equal(found.images["right"][-39:], values["right"][1:])


def test_a_command_of_which_one_message_was_lost_is_none(tmp_path: Path, bag_maker) -> None:
    """The new position was never executed with the old gripper command."""
    path = bag_maker.episode(
        tmp_path / "bag", dropped=lambda stream, i: stream == "command_gripper" and i == 20
    )
    run(path, tmp_path / "data")
    assert episodes.load(tmp_path / "data").episode_ends.tolist() == [20, 39]


def test_commands_sent_on_change_are_held_where_asked(tmp_path: Path, bag_maker) -> None:
    once = lambda stream, i: stream == "command_gripper" and i % 20 != 0  # noqa: E731
    path = bag_maker.episode(tmp_path / "bag", ticks=60, dropped=once)
    result = run(path, tmp_path / "short")
    assert result.sparse[0][1] < 0.5  # and the command says so
    run(path, tmp_path / "held", hold_commands=True)
    found, values = episodes.load(tmp_path / "held"), bag_maker.values(0, 60, ("left",), (36, 40))
    np.testing.assert_array_equal(
        gripper_of(found.command), gripper_of(values["command"])[np.arange(41) // 20 * 20]
    )


def test_one_topic_may_have_two_roles(tmp_path: Path, bag_maker) -> None:
    """A robot whose joint states hold the measured opening and the commanded effort."""
    both = [
        (
            "/joints",
            BEGIN_NS + i * PERIOD_NS,
            bag_maker.joints(BEGIN_NS + i * PERIOD_NS, position=[0.7], effort=[-0.2]),
        )
        for i in range(40)
    ]
    path = bag_maker.episode(tmp_path / "bag", extra=both)
    run(path, tmp_path / "data", topics__gripper="joints", topics__command_gripper="joints")
    found = episodes.load(tmp_path / "data")
    assert set(found.gripper) == {0.7}
    assert set(gripper_of(found.command)) == {-0.2}


def test_a_clock_that_was_set_by_hours_does_not_make_hours_of_ticks(tmp_path: Path, bag_maker) -> None:
    later = [
        (topic, at + 1, message)
        for at in (BEGIN_NS + 10**15, BEGIN_NS + 10**15 + PERIOD_NS)
        for topic, message in (
            ("/camera/left/image_raw", bag_maker.image(at, np.zeros((36, 40, 3), np.uint8))),
            ("/ee_pose", bag_maker.pose(at, [0.0, 0.0, 0.0])),
            ("/gripper/state", bag_maker.joints(at, position=[0.0])),
            ("/command/ee_pose", bag_maker.pose(at, [0.0, 0.0, 0.0])),
            ("/command/gripper", bag_maker.joints(at, effort=[0.0])),
        )
    ]
    path = bag_maker.episode(tmp_path / "bag", extra=later)
    with pytest.raises(BagError, match="a gap of 999999512 ms"):
        run(path, tmp_path / "data")
    run(path, tmp_path / "data", accept_failed=True)
    assert episodes.load(tmp_path / "data").episode_ends[0] >= 40


def test_a_lockstep_bag_may_not_hold_a_sample_over_a_tick(tmp_path: Path, bag_maker) -> None:
    custom = {"mode": "lockstep", "outcome": "success"}
    lost = lambda stream, i: stream == "camera left" and i == 20  # noqa: E731
    path = bag_maker.episode(tmp_path / "bag", dropped=lost, custom=custom)
    with pytest.raises(BagError, match=r"camera left: 1 samples missing"):
        run(path, tmp_path / "data")
    run(path, tmp_path / "data", accept_failed=True)
    assert episodes.load(tmp_path / "data").episode_ends.tolist() == [20, 39]
