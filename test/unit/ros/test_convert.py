"""Conversion of bags to datasets: rows, pictures, resumption and refusals."""

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
from dp_ros.pictures import fit_image
from dp_ros.ros.bags.convert import convert
from dp_ros.schema import ConfigError, ConvertConfig, Target, TopicMap, override

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


@pytest.mark.parametrize("spoilt", ["size", "bytes", "joint"])
def test_messages_the_node_cannot_use_are_left_out_and_counted(
    tmp_path: Path, bag_maker, spoilt: str
) -> None:
    """One of 60 leaves a short gap; a bag with many is refused, and the others are converted."""

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


def test_a_bag_of_another_outcome_takes_no_camera_away(tmp_path: Path, bag_maker) -> None:
    bag_maker.episode(tmp_path / "bags/a", cameras=("left", "right"), custom={"outcome": "success"})
    bag_maker.episode(tmp_path / "bags/b", custom={"outcome": "discarded"})
    run(tmp_path / "bags", tmp_path / "data")
    assert set(episodes.load(tmp_path / "data").images) == {"left", "right"}


def test_a_single_file_of_a_bag_keeps_its_label(tmp_path: Path, bag_maker) -> None:
    path = bag_maker.episode(tmp_path / "bag", custom={"outcome": "discarded"})
    (file,) = path.glob("*.mcap")
    alone = file.rename(tmp_path / "alone.mcap")
    with pytest.raises(BagError, match="its outcome is discarded"):
        run(alone, tmp_path / "data")


def test_a_bag_labelled_later_is_added_after_the_others(tmp_path: Path, bags: Path, bag_maker) -> None:
    """A killed recording, repaired and labelled after the others were converted; another bag got a note since."""
    from dp_ros.data.bags.reader import read_metadata
    from dp_ros.data.bags.writer import write_metadata

    def label(bag: Path, **custom: str) -> None:
        metadata = read_metadata(bag)
        metadata["custom_data"] = {**(metadata["custom_data"] or {}), **custom}
        write_metadata(bag, metadata)

    label(bags / "episode_1", outcome="unknown")
    assert run(bags, tmp_path / "data").episodes == 4
    label(bags / "episode_1", outcome="success")
    label(bags / "episode_0", note="a remark")
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
    path = bag_maker.episode(tmp_path / "bag", size=(72, 80))
    run(path, tmp_path / "data", height_px=36, width_px=40)
    values = bag_maker.values(0, 40, ("left",), (72, 80))
    np.testing.assert_array_equal(
        episodes.load(tmp_path / "data").images["left"],
        np.stack([fit_image(picture, Target(36, 40)) for picture in values["left"]]),
    )


@pytest.fixture
def bags(tmp_path: Path, bag_maker) -> Path:
    """Five episodes; their ends lie within chunks of pictures, some within the same."""
    folder = tmp_path / "bags"
    for i, ticks in enumerate((40, 10, 9, 70, 33)):
        bag_maker.episode(folder / f"episode_{i}", seed=i, ticks=ticks, cameras=("left", "right"))
    return folder


@pytest.mark.slow
def test_a_stopped_conversion_resumes_to_the_same_dataset(tmp_path: Path, bags: Path) -> None:
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


@pytest.mark.slow
def test_new_bags_are_added_after_the_others(tmp_path: Path, bags: Path, bag_maker) -> None:
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


def test_only_what_training_uses_can_fail_an_episode_by_its_losses(tmp_path: Path, bag_maker) -> None:
    lost = {"/camera/left/camera_info": 1, "/joint_states": 3, "/camera/right/image_raw": 2}
    custom = {"outcome": "success", "dropped": json.dumps(lost), "lost": json.dumps({"/tf": 1})}
    path = bag_maker.episode(tmp_path / "bag", cameras=("left", "right"), custom=custom)
    run(path, tmp_path / "data", cameras=("left",))
    audit = episodes.load(tmp_path / "data").attributes["bags"][0]["audit"]
    assert audit["passed"]
    assert audit["notes"] == [
        f"{topic}: the recorder lost {count}, which training does not use"
        for topic, count in (lost | {"/tf": 1}).items()
    ]
    says = "fails the audit: /camera/right/image_raw: the recorder lost 2; --accept-failed converts it all the same"
    with pytest.raises(BagError, match=says):
        run(path, tmp_path / "both")
    assert run(path, tmp_path / "both", accept_failed=True).episodes == 1


def test_outcomes_decide_what_is_converted(tmp_path: Path, bag_maker) -> None:
    for outcome in ("success", "failure", "discarded", "unknown"):
        bag_maker.episode(tmp_path / "bags" / outcome, custom={"outcome": outcome})
    result = run(tmp_path / "bags", tmp_path / "data")
    assert result.episodes == 1
    assert {path.name: why.split(";")[0] for path, why in result.refused} == {
        name: f"its outcome is {name}, not success" for name in ("failure", "discarded", "unknown")
    }
    assert run(tmp_path / "bags", tmp_path / "more", outcomes=("success", "failure")).episodes == 2


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
    bag_maker.episode(tmp_path / "tasks/a", custom={"task": "pour", "outcome": "success"})
    bag_maker.episode(tmp_path / "tasks/b", custom={"task": "stack", "outcome": "success"})
    with pytest.raises(ConfigError, match=r"several tasks \(pour, stack\)"):
        run(tmp_path / "tasks", tmp_path / "data")
    bag_maker.episode(tmp_path / "sizes/a")
    bag_maker.episode(tmp_path / "sizes/b", size=(72, 80))
    with pytest.raises(ConfigError, match=r"camera 'left' is 80x72 px, in .*a it is 40x36: give --size"):
        run(tmp_path / "sizes", tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cameras": ("front",)}, "has no camera 'front'; it has left"),
        ({"topics__gripper": "hand"}, r"has no messages on /hand \(gripper\)"),
        (
            {"topics__ee_pose": "gripper/state"},
            "/gripper/state is of type sensor_msgs/msg/JointState, not geometry_msgs/msg/PoseStamped; "
            "it has /command/ee_pose, /ee_pose of that type: map another topic with --topics-file",
        ),
        (
            {"topics__cameras": {"left": "/cam"}},
            "/cam has no messages; it has /camera/left/image_raw: map another topic with --topics-file",
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


@pytest.mark.parametrize("storage", ["ours", "mcap", "sqlite3"])
def test_a_bag_without_a_label_is_no_success_by_itself(tmp_path: Path, bag_maker, storage: str) -> None:
    path = bag_maker.episode(tmp_path / "bag", custom={}, storage=storage)
    says = "it has no label, so its outcome is unknown; label it with `dp_ros bag label .*, or give --outcome unknown"
    with pytest.raises(BagError, match=says):
        run(path, tmp_path / "data")
    assert run(path, tmp_path / "data", outcomes=("success", "unknown")).episodes == 1


def test_a_failure_whose_metadata_was_rebuilt_stays_a_failure(tmp_path: Path, bag_maker) -> None:
    """`ros2 bag reindex` writes metadata.yaml without custom data."""
    from dp_ros.data.bags.reader import read_metadata
    from dp_ros.data.bags.writer import write_metadata

    for outcome in ("failure", "discarded", "success"):
        path = bag_maker.episode(tmp_path / "bags" / outcome, custom={"outcome": outcome})
        write_metadata(
            path, {key: value for key, value in read_metadata(path).items() if key != "custom_data"}
        )
    result = run(tmp_path / "bags", tmp_path / "data")
    assert (result.episodes, [path.name for path, _ in result.refused]) == (1, ["discarded", "failure"])


def test_a_camera_without_stamps_is_refused_without_the_advice_to_accept_it(
    tmp_path: Path, bag_maker
) -> None:
    """Its pictures have no tick in common with the rest."""
    lost = [
        (
            "/camera/left/image_raw",
            BEGIN_NS + i * PERIOD_NS,
            bag_maker.image(0, np.zeros((36, 40, 3), np.uint8)),
        )
        for i in range(40)
    ]
    bag_maker.episode(tmp_path / "bag", extra=lost, dropped=lambda stream, i: stream == "camera left")
    with pytest.raises(BagError, match=r"camera left: its messages have no stamp \(0\)") as caught:
        run(tmp_path / "bag", tmp_path / "data")
    assert "--accept-failed" not in str(caught.value)
