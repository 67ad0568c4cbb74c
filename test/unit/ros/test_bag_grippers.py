"""Grippers of other robots in bags: joints that share a topic, other fields, ranges and types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp_ros.actions import gripper_of
from dp_ros.data import episodes
from dp_ros.data.bags.audit import EpisodeAudit
from dp_ros.data.bags.reader import BagError
from dp_ros.ros.bags.check import check
from dp_ros.ros.bags.convert import convert
from dp_ros.ros.bags.episode_reader import read_episode
from dp_ros.ros.messages.conversions import ConversionError
from dp_ros.ros.messages.gripper_reader import GripperReader
from dp_ros.schema import AuditConfig, ConfigError, ConvertConfig, TopicMap, override

BEGIN_NS = 1_700_000_000_000_000_000
PERIOD_NS = 12_500_000
TICKS = 40
ARM = ("shoulder", "elbow")


def run(bag: Path, out: Path, **topics: Any) -> episodes.Dataset:
    convert([bag], out, ConvertConfig(topics=TopicMap(**topics)), jobs=1)
    return episodes.load(out)


def audit_of(bag: Path, **topics: Any) -> EpisodeAudit:
    return check(read_episode(bag, TopicMap(**topics)), AuditConfig())


def messages(topic: str, make: Callable[[int, int], Any], after_ns: int = 0) -> list[tuple[str, int, Any]]:
    """One message a tick: make(tick, stamp)."""
    stamps = [BEGIN_NS + i * PERIOD_NS + after_ns for i in range(TICKS)]
    return [(topic, at + 1_000_000, make(i, at)) for i, at in enumerate(stamps)]


def without(*silent: str) -> Callable[[str, int], bool]:
    return lambda stream, i: stream in silent


# ---- state ---------------------------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path, bag_maker) -> tuple[Path, np.ndarray]:
    """Arm, lift and gripper publish on one topic in turn, as with several joint_state_broadcasters."""
    openings = np.random.default_rng(1).random(TICKS)
    extra = [
        *messages("/joint_states", lambda i, at: bag_maker.joints(at, position=[0.5, 0.7], names=ARM)),
        *messages("/joint_states", lambda i, at: bag_maker.joints(at + 1, position=[0.9], names=["lift"])),
        *messages(
            "/joint_states",
            lambda i, at: bag_maker.joints(at, position=[openings[i]], names=["finger_joint"]),
        ),
    ]
    return bag_maker.episode(tmp_path / "bag", extra=extra), openings


def test_a_named_joint_is_read_and_messages_of_other_joints_are_ignored(tmp_path: Path, shared) -> None:
    path, openings = shared
    topics = {"gripper": "/joint_states", "gripper_joint": "finger_joint"}
    audit = audit_of(path, **topics)
    assert audit.passed
    assert audit.streams["gripper"].messages == TICKS
    np.testing.assert_array_equal(run(path, tmp_path / "data", **topics).gripper, openings)


def test_a_lone_joint_of_another_name_is_never_the_gripper(tmp_path: Path, bag_maker) -> None:
    extra = messages("/joint_states", lambda i, at: bag_maker.joints(at, position=[0.9], names=["lift"]))
    path = bag_maker.episode(tmp_path / "bag", extra=extra)
    with pytest.raises(
        BagError, match=r"no message on /joint_states \(gripper\) has the joint 'finger_joint'; .*lift"
    ):
        run(path, tmp_path / "data", gripper="/joint_states", gripper_joint="finger_joint")


def test_without_a_name_lone_joints_must_be_one_and_the_same(tmp_path: Path, shared, bag_maker) -> None:
    path, _ = shared
    says = r"not one of the 120 messages on /joint_states \(gripper\) can be used"
    with pytest.raises(BagError, match=says) as caught:
        run(path, tmp_path / "data", gripper="/joint_states")
    assert "gripper_joint" in str(caught.value)
    extra = messages("/hand", lambda i, at: bag_maker.joints(at, position=[0.25], names=["robotiq_knuckle"]))
    lone = bag_maker.episode(tmp_path / "lone", extra=extra)
    assert (run(lone, tmp_path / "more", gripper="/hand").gripper == 0.25).all()
    extra = messages(
        "/arm", lambda i, at: bag_maker.joints(at, position=[1.1, 0.25], names=["elbow", "gripper"])
    )
    among = bag_maker.episode(tmp_path / "among", extra=extra)
    assert (run(among, tmp_path / "most", gripper="/arm").gripper == 0.25).all()


@pytest.mark.parametrize("others", [("lift",), ("shoulder", "elbow"), ("elbow", "gripper")])
def test_without_a_name_another_joint_ends_the_reading_until_it_is_cleared(bag_maker, others) -> None:
    """Live, every second message would be of the wrong joint, and none would be missing."""
    reader = GripperReader()
    _, own = bag_maker.joints(0, position=[0.25], names=["finger_joint"])
    _, other = bag_maker.joints(1, position=[0.5] * len(others), names=others)
    assert reader.read(own) == 0.25
    for msg in (other, own, own):
        with pytest.raises(ConversionError, match="gripper_joint"):
            reader.read(msg)
    reader.clear()
    assert reader.read(own) == 0.25
    for position, says in (([1.5], "gripper_range"), ([], "0 position values")):  # of the right joint
        _, damaged = bag_maker.joints(2, position=position, names=["finger_joint"])
        with pytest.raises(ConversionError, match=says):
            reader.read(damaged)
        assert reader.read(own) == 0.25


def test_a_range_that_falls_becomes_an_opening(tmp_path: Path, bag_maker) -> None:
    """Robotiq: 0 open to 0.8 closed."""
    angles = np.linspace(0.0, 0.8, TICKS)
    extra = messages("/hand", lambda i, at: bag_maker.joints(at, position=[angles[i]]))
    path = bag_maker.episode(tmp_path / "bag", extra=extra)
    found = run(path, tmp_path / "data", gripper="/hand", gripper_range=(0.8, 0.0)).gripper
    np.testing.assert_allclose(found, np.linspace(1.0, 0.0, TICKS), atol=1e-12)


@pytest.mark.parametrize("opening", [0.08 * 1000, -0.2, 1.2])
def test_an_opening_outside_its_range_is_refused(tmp_path: Path, bag_maker, opening: float) -> None:
    extra = messages("/hand", lambda i, at: bag_maker.joints(at, position=[opening]))
    path = bag_maker.episode(tmp_path / "bag", extra=extra)
    says = f"position {opening:g} is outside 0 to 1: give the values that mean closed and open with gripper_range"
    with pytest.raises(BagError, match=says):
        run(path, tmp_path / "data", gripper="/hand")


# ---- commands ------------------------------------------------------------------------------------------

# name -> (range in the map, message of a share of the way from open to closed)
COMMANDS = {
    "position": ((0.0, 0.8), lambda maker, at, share: maker.joints(at, position=[0.8 * share])),
    "effort": ((0.0, 40.0), lambda maker, at, share: maker.joints(at, effort=[40.0 * share])),
    "float": ((0.08, 0.0), lambda maker, at, share: maker.number(0.08 * (1 - share))),
}


@pytest.mark.parametrize(("values", "make"), COMMANDS.values(), ids=COMMANDS.keys())
def test_commands_of_other_fields_ranges_and_types(tmp_path: Path, bag_maker, values, make, request) -> None:
    shares = np.linspace(0.0, 1.0, TICKS)
    stamped = "float" not in request.node.name  # a Float64 has no stamp: it counts from its receipt
    extra = messages(
        "/hand_command", lambda i, at: make(bag_maker, at, shares[i]), after_ns=0 if stamped else -1_000_000
    )
    path = bag_maker.episode(tmp_path / "bag", dropped=without("command_gripper"), extra=extra)
    field = "position" if "position" in request.node.name else "effort"
    topics = {
        "command_gripper": "/hand_command",
        "command_gripper_range": values,
        "command_gripper_field": field,
    }
    found = run(path, tmp_path / "data", **topics)
    np.testing.assert_allclose(gripper_of(found.action), 2.0 * shares - 1.0, atol=1e-12)
    assert audit_of(path, **topics).passed


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda maker, at: maker.joints(at, effort=[40.0]),
            "effort 40 is outside -1 to 1: give the values that mean open and closed with command_gripper_range",
        ),
        (
            lambda maker, at: maker.joints(at, position=[0.4]),
            "holds position, no effort: set command_gripper_field",
        ),
        (lambda maker, at: maker.number(7.0), "7 is outside -1 to 1"),
        (lambda maker, at: maker.joints(at, effort=[np.nan]), "is not finite"),
    ],
)
def test_commands_that_the_map_does_not_fit_are_refused_with_the_reason(
    tmp_path: Path, bag_maker, make, says: str
) -> None:
    extra = messages("/hand_command", lambda i, at: make(bag_maker, at))
    path = bag_maker.episode(tmp_path / "bag", extra=extra)
    with pytest.raises(BagError, match=says):
        run(path, tmp_path / "data", command_gripper="/hand_command")


def test_some_commands_outside_the_range_fail_the_audit(tmp_path: Path, bag_maker) -> None:
    extra = messages(
        "/hand_command", lambda i, at: bag_maker.joints(at, effort=[40.0 if i % 4 == 0 else 0.5])
    )
    path = bag_maker.episode(tmp_path / "bag", extra=extra)
    (reason,) = audit_of(path, command_gripper="/hand_command").reasons
    assert reason.startswith("command_gripper: 10 messages cannot be used (effort 40 is outside -1 to 1")


def test_commands_of_a_named_joint(tmp_path: Path, bag_maker) -> None:
    extra = [
        *messages("/commands", lambda i, at: bag_maker.joints(at, effort=[9.0], names=["lift"])),
        *messages("/commands", lambda i, at: bag_maker.joints(at, effort=[0.5], names=["finger_joint"])),
    ]
    path = bag_maker.episode(tmp_path / "bag", extra=extra)
    topics = {"command_gripper": "/commands", "command_gripper_joint": "finger_joint"}
    assert (gripper_of(run(path, tmp_path / "data", **topics).action) == 0.5).all()


def test_a_range_without_extent_is_no_range() -> None:
    with pytest.raises(ConfigError, match="command_gripper_range 1, 1 is no range"):
        override(TopicMap(), {"command_gripper_range": [1.0, 1.0]})


def test_a_dataset_of_an_older_version_can_grow(tmp_path: Path, bag_maker) -> None:
    """Its settings lack those that are new, and name the joint by the former default."""
    import zarr

    bag_maker.episode(tmp_path / "bags/a")
    run(tmp_path / "bags", tmp_path / "data")
    group = zarr.open_group(tmp_path / "data", mode="r+")
    settings: Any = group.attrs["convert"]
    for name in ("gripper_range", "command_gripper_joint", "command_gripper_field", "command_gripper_range"):
        del settings["topics"][name]
    settings["topics"]["gripper_joint"] = "gripper"
    group.attrs["convert"] = settings
    bag_maker.episode(tmp_path / "bags/b", seed=1)
    assert len(run(tmp_path / "bags", tmp_path / "data").episode_ends) == 2
