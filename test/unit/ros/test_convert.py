"""Bags to datasets: the frames that the rules demand, whoever recorded, whenever it was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from dp_ros.data import episodes
from dp_ros.data.bags.reader import BagError
from dp_ros.data.episodes import DatasetError
from dp_ros.ros.bags.convert import convert
from dp_ros.ros.bags.episode import read_episode
from dp_ros.ros.bags.frames import frames_of
from dp_ros.schema import ConfigError, ConvertConfig, TopicMap, override

MS = 1_000_000
BEGIN_NS = 1_700_000_000_000_000_000
PERIOD_NS = 12_500_000
FLAT = ("ee_pose", "gripper", "action", "command")


def settings(**changes: Any) -> ConvertConfig:
    return override(ConvertConfig(), {key.replace("__", "."): value for key, value in changes.items()})


def run(bags: Path | list[Path], out: Path, **changes: Any) -> Any:
    return convert(bags if isinstance(bags, list) else [bags], out, settings(**changes), jobs=1)


def assert_same(found: episodes.Dataset, expected: episodes.Dataset) -> None:
    for name in (*FLAT, "episode_ends"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for camera in expected.images:
        np.testing.assert_array_equal(found.images[camera], expected.images[camera])


def test_an_episode_becomes_what_was_recorded(tmp_path: Path, bag_maker) -> None:
    """One sample of each stream at every tick: those are the rows."""
    bag_maker.episode(tmp_path / "bags/a", ticks=100, cameras=("left", "right"), expert=True)
    result = run(tmp_path / "bags", tmp_path / "data")
    assert (result.episodes, result.ticks, result.refused) == (1, 100, [])
    found, values = episodes.load(tmp_path / "data"), bag_maker.values(0, 100, ("left", "right"), (36, 40))
    for name in FLAT:
        np.testing.assert_array_equal(getattr(found, name), values[name])
    for camera in ("left", "right"):
        np.testing.assert_array_equal(found.images[camera], values[camera])
    (bag,) = found.attributes["bags"]
    assert (bag["name"], bag["ticks"], bag["audit"]["passed"]) == ("a", 100, True)


def test_without_an_expert_the_command_is_the_label(tmp_path: Path, bag_maker) -> None:
    bag_maker.episode(tmp_path / "bag")
    run(tmp_path / "bag", tmp_path / "data")
    found = episodes.load(tmp_path / "data")
    np.testing.assert_array_equal(found.action, found.command)


@pytest.mark.parametrize("rate_hz", [30.0, 80.0, 200.0])
def test_a_frame_holds_the_newest_sample_that_is_not_of_its_future(
    tmp_path: Path, bag_maker, rate_hz: float
) -> None:
    """Against a search through all samples: jitter, drops, late arrival, any rate."""
    rng = np.random.default_rng(0)
    late = rng.integers(0, 60, (10, 400)) * MS
    streams = ("camera left", "ee_pose", "gripper", "command_pose", "command_gripper")
    drop = {name: set(rng.integers(1, 119, 6).tolist()) for name in streams}
    drop["command_gripper"] = drop["command_pose"]  # one without the other is no command
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
        found.command[:, :3], values["command"][[row["command_pose"] for row in expected], :3]
    )
    np.testing.assert_array_equal(
        found.command[:, 3], values["command"][[row["command_gripper"] for row in expected], 3]
    )
    run(path, tmp_path / "data", rate_hz=rate_hz, max_age_s=0.05, accept_failed=True)
    pictures = episodes.load(tmp_path / "data").images["left"]
    np.testing.assert_array_equal(pictures, values["left"][[row["camera left"] for row in expected]])


def test_no_frame_holds_a_sample_beyond_the_maximum_age(tmp_path: Path, bag_maker) -> None:
    """A hole ends one piece and begins another: no window may span it."""
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
    """A camera that takes 40 ms to arrive is seen late by the node, and then by the policy that is trained."""
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


def test_the_frames_a_policy_node_had_are_made_again(tmp_path: Path, bag_maker) -> None:
    """Its ticks while it drove, and the samples that it says it had, though newer ones were stamped by then."""
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
    """Nobody executed the new position with the old gripper."""
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
    np.testing.assert_array_equal(found.command[:, 3], values["command"][np.arange(41) // 20 * 20, 3])


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
    assert set(found.command[:, 3]) == {-0.2}


@pytest.mark.parametrize("spoilt", ["size", "bytes", "joint"])
def test_messages_the_node_cannot_use_are_left_out_and_counted(
    tmp_path: Path, bag_maker, spoilt: str
) -> None:
    """One of 60 is a gap like any other; a bag full of them is refused, and the others are converted."""

    def spoil(folder: Path, which: range) -> None:
        extra = []
        for i in which:
            at = BEGIN_NS + i * PERIOD_NS
            if spoilt == "joint":
                extra.append(("/gripper/state", at + MS, bag_maker.joints(at)))
            elif spoilt == "size":
                odd = np.zeros((36, 80, 3), np.uint8)
                extra.append(("/camera/left/image_raw", at + MS, bag_maker.image(at, odd)))
            else:
                kind, msg = bag_maker.image(at, np.zeros((36, 40, 3), np.uint8))
                msg.data = msg.data[:100]
                extra.append(("/camera/left/image_raw", at + MS, (kind, msg)))
        stream = "gripper" if spoilt == "joint" else "camera left"
        bag_maker.episode(
            folder,
            ticks=60,
            extra=extra,
            dropped=lambda name, i: name == stream and i in which,
            seed=len(which),
        )

    spoil(tmp_path / "bags/a", range(20, 21))
    spoil(tmp_path / "bags/b", range(20, 30))
    bag_maker.episode(tmp_path / "bags/c", ticks=60)
    result = run(tmp_path / "bags", tmp_path / "data")
    assert result.episodes == 2
    ((path, why),) = result.refused
    assert path.name == "b"
    assert "10 messages cannot be used" in why
    found, values = episodes.load(tmp_path / "data"), bag_maker.values(1, 60, ("left",), (36, 40))
    if spoilt == "joint":
        np.testing.assert_array_equal(found.gripper[19:22], values["gripper"][[19, 19, 21]])
    else:
        np.testing.assert_array_equal(found.images["left"][19:22], values["left"][[19, 19, 21]])


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


def test_a_bag_of_another_outcome_takes_no_camera_away(tmp_path: Path, bag_maker) -> None:
    bag_maker.episode(tmp_path / "bags/a", cameras=("left", "right"), custom={"outcome": "success"})
    bag_maker.episode(tmp_path / "bags/b", custom={"outcome": "discarded"})
    run(tmp_path / "bags", tmp_path / "data")
    assert set(episodes.load(tmp_path / "data").images) == {"left", "right"}


def test_a_file_of_a_bag_keeps_what_was_said_of_it(tmp_path: Path, bag_maker) -> None:
    path = bag_maker.episode(tmp_path / "bag", custom={"outcome": "discarded"})
    (file,) = path.glob("*.mcap")
    alone = file.rename(tmp_path / "alone.mcap")
    with pytest.raises(BagError, match="its outcome is discarded"):
        run(alone, tmp_path / "data")


def test_a_bag_labelled_later_is_added_behind_the_others(tmp_path: Path, bags: Path, bag_maker) -> None:
    """A killed recording in the middle, repaired and labelled after the others were converted; and a note since."""
    from dp_ros.data.bags.reader import read_metadata
    from dp_ros.data.bags.writer import write_metadata

    def say(bag: Path, **custom: str) -> None:
        metadata = read_metadata(bag)
        metadata["custom_data"] = {**(metadata["custom_data"] or {}), **custom}
        write_metadata(bag, metadata)

    say(bags / "episode_1", outcome="unknown")
    assert run(bags, tmp_path / "data").episodes == 4
    say(bags / "episode_1", outcome="success")
    say(bags / "episode_0", note="a remark")
    assert run(bags, tmp_path / "data").new_bags == 1
    found = episodes.load(tmp_path / "data")
    assert [bag["name"] for bag in found.attributes["bags"]] == [f"episode_{i}" for i in (0, 2, 3, 4, 1)]
    np.testing.assert_array_equal(
        found.images["left"][-10:], bag_maker.values(1, 10, ("left", "right"), (36, 40))["left"]
    )


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_bags_of_ros2_bag_convert_with_compressed_pictures_and_other_names(
    tmp_path: Path, bag_maker, storage: str
) -> None:
    path = bag_maker.episode(
        tmp_path / "bag", prefix="/left_arm", compressed=True, storage=storage, cameras=("wrist",)
    )
    topics = TopicMap(namespace="/left_arm", cameras={"gripperPOV": "camera/wrist/image_raw/compressed"})
    result = run(path, tmp_path / "data", topics=topics.model_dump())
    assert (result.episodes, result.ticks) == (1, 40)
    found, values = episodes.load(tmp_path / "data"), bag_maker.values(0, 40, ("wrist",), (36, 40))
    np.testing.assert_array_equal(found.images["gripperPOV"], values["wrist"])
    np.testing.assert_array_equal(found.command, values["command"])


def test_pictures_are_made_smaller_as_the_node_makes_them(tmp_path: Path, bag_maker) -> None:
    from dp_ros.streams import fit_image

    path = bag_maker.episode(tmp_path / "bag", size=(72, 80))
    run(path, tmp_path / "data", height_px=36, width_px=40)
    values = bag_maker.values(0, 40, ("left",), (72, 80))
    np.testing.assert_array_equal(
        episodes.load(tmp_path / "data").images["left"],
        np.stack([fit_image(picture, 36, 40) for picture in values["left"]]),
    )


@pytest.fixture
def bags(tmp_path: Path, bag_maker) -> Path:
    """Five episodes; their ends lie within chunks of pictures, some within the same."""
    folder = tmp_path / "bags"
    for i, ticks in enumerate((40, 10, 9, 70, 33)):
        bag_maker.episode(folder / f"episode_{i}", seed=i, ticks=ticks, cameras=("left", "right"))
    return folder


def test_a_stopped_conversion_goes_on_to_the_same_dataset(tmp_path: Path, bags: Path) -> None:
    class Stop(Exception):
        pass

    def stop(what: str, done: int, total: int) -> None:
        if (what, done) == ("converting", after):
            raise Stop

    run(bags, tmp_path / "whole")
    expected = episodes.load(tmp_path / "whole")
    for after in range(1, 5):
        out = tmp_path / f"stopped_{after}"
        with pytest.raises(Stop):
            convert([bags], out, settings(), jobs=1, on_progress=stop)
        with pytest.raises(DatasetError, match="unfinished"):
            episodes.load(out)
        assert run(bags, out).new_bags == 5 - after
        assert_same(episodes.load(out), expected)


def test_many_processes_make_the_same_dataset(tmp_path: Path, bags: Path) -> None:
    run(bags, tmp_path / "one")
    convert([bags], tmp_path / "two", settings(), jobs=2)
    one, two = episodes.load(tmp_path / "one"), episodes.load(tmp_path / "two")
    assert_same(two, one)
    assert one.attributes == two.attributes


def test_new_bags_are_added_behind_the_others(tmp_path: Path, bags: Path, bag_maker) -> None:
    (bags / "episode_4").rename(tmp_path / "episode_4")
    run(bags, tmp_path / "grown")
    (tmp_path / "episode_4").rename(bags / "episode_4")
    assert run(bags, tmp_path / "grown").new_bags == 1
    assert run(bags, tmp_path / "grown").new_bags == 0
    run(bags, tmp_path / "whole")
    assert_same(episodes.load(tmp_path / "grown"), episodes.load(tmp_path / "whole"))
    (bags / "episode_0").rename(tmp_path / "gone")
    with pytest.raises(DatasetError, match="begun with other bags, or in another order"):
        run(bags, tmp_path / "grown")


def test_an_episode_that_fails_the_audit_is_refused_by_name(tmp_path: Path, bags: Path, bag_maker) -> None:
    bag_maker.episode(
        bags / "episode_5", ticks=60, dropped=lambda stream, i: stream == "ee_pose" and i % 2 == 1
    )
    bag_maker.episode(
        bags / "episode_6", ticks=60, dropped=lambda stream, i: stream == "ee_pose" and 20 < i < 40
    )
    result = run(bags, tmp_path / "data")
    assert result.episodes == 6  # half the rate without a gap is a slower sensor, not a fault
    ((path, why),) = result.refused
    assert path.name == "episode_6"
    assert why.startswith("fails the audit: ee_pose: a gap of 250 ms; ee_pose: 19 samples missing")


def test_outcomes_decide_what_is_converted(tmp_path: Path, bag_maker) -> None:
    for outcome in ("success", "failure", "discarded", "unknown"):
        bag_maker.episode(tmp_path / "bags" / outcome, custom={"outcome": outcome})
    result = run(tmp_path / "bags", tmp_path / "data")
    assert result.episodes == 1
    assert {path.name: why.split(";")[0] for path, why in result.refused} == {
        name: f"its outcome is {name}, not success" for name in ("failure", "discarded", "unknown")
    }
    assert run(tmp_path / "bags", tmp_path / "more", outcomes=("success", "failure")).episodes == 2


def test_a_lockstep_bag_may_not_hold_a_sample_over_a_tick(tmp_path: Path, bag_maker) -> None:
    custom = {"mode": "lockstep"}
    lost = lambda stream, i: stream == "camera left" and i == 20  # noqa: E731
    path = bag_maker.episode(tmp_path / "bag", dropped=lost, custom=custom)
    with pytest.raises(BagError, match=r"camera left: 1 samples missing"):
        run(path, tmp_path / "data")
    run(path, tmp_path / "data", accept_failed=True)
    assert episodes.load(tmp_path / "data").episode_ends.tolist() == [20, 39]


def test_the_settings_of_a_scripted_collection_are_those_of_the_dataset(tmp_path: Path, bag_maker) -> None:
    collect = {"task": "reach-v3", "first_seed": 100, "noise": [0.0, 0.3], "width_px": 40, "height_px": 36}
    for seed in (100, 101, 103):  # 102 did not succeed
        custom = {"collect": json.dumps(collect), "seed": str(seed), "outcome": "success", "task": "reach-v3"}
        bag_maker.episode(tmp_path / "bags" / f"episode_{seed}", custom=custom)
    run(tmp_path / "bags", tmp_path / "data")
    group = zarr.open_group(tmp_path / "data", mode="r")
    assert group.attrs["collect"] == collect
    assert group["seed"][:].tolist() == [100, 101, 103]
    assert group["noise"][:].tolist() == [0.0, 0.3, 0.3]
    assert group["tried"][:].tolist() == [1, 2, 4]


def test_bags_that_do_not_fit_together_are_refused(tmp_path: Path, bag_maker) -> None:
    bag_maker.episode(tmp_path / "tasks/a", custom={"task": "pour"})
    bag_maker.episode(tmp_path / "tasks/b", custom={"task": "stack"})
    with pytest.raises(ConfigError, match=r"several tasks \(pour, stack\)"):
        run(tmp_path / "tasks", tmp_path / "data")
    bag_maker.episode(tmp_path / "sizes/a")
    bag_maker.episode(tmp_path / "sizes/b", size=(72, 80))
    with pytest.raises(ConfigError, match=r"is 80x72 px, 'left' of .*a is 40x36: give --size"):
        run(tmp_path / "sizes", tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cameras": ("front",)}, "has no camera 'front'; it has left"),
        ({"topics__gripper": "hand"}, r"has no messages on /hand \(gripper\)"),
        (
            {"topics__ee_pose": "gripper/state"},
            "/gripper/state is of type sensor_msgs/msg/JointState, not geometry",
        ),
        ({"topics__namespace": "arm"}, "no camera in common"),
    ],
)
def test_a_topic_that_is_missing_or_of_another_type_is_named(
    tmp_path: Path, bag_maker, changes: dict[str, Any], says: str
) -> None:
    path = bag_maker.episode(tmp_path / "bag")
    with pytest.raises(BagError, match=says) as caught:
        run(path, tmp_path / "data", **changes)
    assert "\n" not in str(caught.value)
