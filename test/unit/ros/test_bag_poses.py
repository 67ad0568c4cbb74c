"""Poses and gripper commands of bags: frames, orientations, and a gripper that is not commanded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp_ros.actions import POSITION, gripper_of, opening_to_command
from dp_ros.data import episodes
from dp_ros.data.bags.audit import EpisodeAudit
from dp_ros.data.bags.reader import BagError
from dp_ros.ros.bags.check import check
from dp_ros.ros.bags.convert import Converted, convert
from dp_ros.ros.bags.episode_reader import read_episode
from dp_ros.schema import AuditConfig, ConvertConfig, TopicMap

TICKS = 40
INVALID = [(0.0, 0.0, 0.0, 0.0), (0.0, 2.0, 0.0, 0.0), (0.0, math.nan, 0.0, 1.0)]
JOINTS = "sensor_msgs/msg/JointState"


def tilted(degrees: float) -> tuple[float, ...]:
    """A tool that points down, tilted about the x axis."""
    half_rad = math.radians(degrees) / 2
    return (0.0, math.cos(half_rad), math.sin(half_rad), 0.0)


def audit_of(bag: Path, **limits: float) -> EpisodeAudit:
    return check(read_episode(bag, TopicMap()), AuditConfig(**limits))


def run(bag: Path, out: Path, **changes: Any) -> Converted:
    return convert([bag], out, ConvertConfig(**changes), jobs=1)


@pytest.mark.parametrize("degrees", [0.0, 30.0, 180.0])
def test_tool_that_is_commanded_as_it_is_measured_passes_without_a_note(
    tmp_path: Path, bag_maker, degrees: float
) -> None:
    bag = bag_maker.episode(tmp_path / "bag", orientation=lambda stream, i: tilted(degrees))
    audit = audit_of(bag)
    assert (audit.reasons, audit.notes) == ((), ())
    assert audit.turn_max_rad == 0.0
    assert run(bag, tmp_path / "data").ticks == TICKS


@pytest.mark.parametrize("degrees", [30.0, 180.0])
def test_constant_commanded_orientation_is_noted_and_converts(
    tmp_path: Path, bag_maker, degrees: float
) -> None:
    """Recordings of older versions: every command had the quaternion (0, 1, 0, 0), whatever was measured."""
    bag = bag_maker.episode(
        tmp_path / "bag", orientation=lambda stream, i: tilted(degrees if stream == "ee_pose" else 0.0)
    )
    audit = audit_of(bag)
    assert audit.passed
    assert audit.turn_max_rad == pytest.approx(math.radians(degrees))
    assert audit.notes == (
        f"command_pose commands an orientation up to {math.radians(degrees):.2f} rad from the measured one "
        "(max_turn_rad 0.5)",
    )
    assert audit_of(bag, max_turn_rad=3.2).notes == ()
    run(bag, tmp_path / "data")
    found, values = episodes.load(tmp_path / "data"), bag_maker.values(0, TICKS, ("left",), (36, 40))
    np.testing.assert_array_equal(found.command, values["command"])


def test_the_measured_orientation_is_the_newest_one_at_the_command(tmp_path: Path, bag_maker) -> None:
    """A tool that turns and is told so is not far from its command; q and -q are the same orientation."""

    def turning(stream: str, i: int) -> tuple[float, ...]:
        sign = -1.0 if stream == "command_pose" else 1.0
        return tuple(sign * number for number in tilted(4.0 * i))

    assert audit_of(bag_maker.episode(tmp_path / "bag", orientation=turning)).turn_max_rad < 1e-6


@pytest.mark.parametrize("stream", ["command_pose", "expert_pose", "ee_pose"])
def test_pose_in_another_frame_is_refused_by_audit_and_conversion(
    tmp_path: Path, bag_maker, stream: str
) -> None:
    def frame_id(name: str, i: int) -> str:
        return "world" if name == stream and i >= 20 else "base_link"

    bag = bag_maker.episode(tmp_path / "bag", expert=True, frame_id=frame_id)
    topic = f"/{stream.replace('_pose', '/ee_pose')}" if stream != "ee_pose" else "/ee_pose"
    fault = f"{stream}: {topic} has poses in frame 'world', the first of ee_pose is in 'base_link'"
    assert audit_of(bag).reasons == (fault,)
    with pytest.raises(BagError, match=f"fails the audit: {fault}$"):
        run(bag, tmp_path / "data")
    with pytest.raises(BagError, match=f"{fault}: record all poses in one frame$") as caught:
        run(bag, tmp_path / "data", accept_failed=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_any_frame_will_do_when_it_is_the_same(tmp_path: Path, bag_maker) -> None:
    bag = bag_maker.episode(tmp_path / "bag", frame_id=lambda stream, i: "")
    assert audit_of(bag).passed


@pytest.mark.parametrize("invalid", INVALID)
def test_bag_without_a_valid_measured_orientation_is_refused_in_one_line(
    tmp_path: Path, bag_maker, invalid: tuple[float, ...]
) -> None:
    bag = bag_maker.episode(
        tmp_path / "bag", orientation=lambda stream, i: invalid if stream == "ee_pose" else tilted(0)
    )
    says = "ee_pose: 40 of 40 without a valid orientation: /ee_pose must hold the measured one"
    with pytest.raises(BagError, match=says):
        read_episode(bag, TopicMap())
    with pytest.raises(BagError, match=says) as caught:
        run(bag, tmp_path / "data", accept_failed=True)
    assert "\n" not in str(caught.value)


def test_measured_poses_without_a_valid_orientation_are_left_out_and_counted(
    tmp_path: Path, bag_maker
) -> None:
    bag = bag_maker.episode(
        tmp_path / "bag",
        orientation=lambda stream, i: INVALID[0] if stream == "ee_pose" and i in (10, 20, 30) else tilted(0),
    )
    assert audit_of(bag).reasons[0] == "ee_pose: 3 of 40 without a valid orientation"
    run(bag, tmp_path / "data", accept_failed=True)
    found, values = episodes.load(tmp_path / "data"), bag_maker.values(0, TICKS, ("left",), (36, 40))
    np.testing.assert_array_equal(found.ee_pose[9:12], values["ee_pose"][[9, 9, 11]])


@pytest.mark.parametrize("stream", ["command_pose", "expert_pose"])
@pytest.mark.parametrize("invalid", INVALID)
def test_command_without_a_valid_orientation_fails_the_audit(
    tmp_path: Path, bag_maker, stream: str, invalid: tuple[float, ...]
) -> None:
    bag = bag_maker.episode(
        tmp_path / "bag",
        expert=True,
        orientation=lambda name, i: invalid if name == stream and i == 7 else tilted(0),
    )
    assert audit_of(bag).reasons == (f"{stream}: 1 of 40 without a valid orientation",)
    with pytest.raises(BagError, match="1 of 40 without a valid orientation"):
        run(bag, tmp_path / "data")
    assert (
        run(bag, tmp_path / "data", accept_failed=True).ticks == TICKS
    )  # its position is a label as any other


@pytest.mark.parametrize("sent", ["without effort", "not at all"])
@pytest.mark.parametrize("expert", [False, True])
def test_gripper_that_is_not_commanded_yet_is_labelled_with_its_measured_opening(
    tmp_path: Path, bag_maker, sent: str, expert: bool
) -> None:
    """Until the first real command; then the commands count."""
    begins = 15

    def before(stream: str, i: int) -> bool:
        return stream.endswith("_gripper") and i < begins

    absent = {"uncommanded": before} if sent == "without effort" else {"dropped": before}
    bag = bag_maker.episode(tmp_path / "bag", expert=expert, **absent)
    audit = audit_of(bag)
    assert audit.passed
    assert audit.duration_s == pytest.approx((TICKS - 1) * 0.0125)
    assert audit.notes[0] == (
        "command_gripper commands the gripper 0.19 s after the first position: until then the label is its measured "
        "opening"
    )
    assert run(bag, tmp_path / "data").ticks == TICKS
    found, values = episodes.load(tmp_path / "data"), bag_maker.values(0, TICKS, ("left",), (36, 40))
    for name in ("command", "action") if expert else ("command",):
        np.testing.assert_array_equal(POSITION.of(getattr(found, name)), POSITION.of(values[name]))
        expected = gripper_of(values[name]).copy()
        expected[:begins] = [opening_to_command(opening) for opening in values["gripper"][:begins]]
        np.testing.assert_array_equal(gripper_of(getattr(found, name)), expected)


def test_gripper_that_is_no_longer_commanded_keeps_its_last_command(tmp_path: Path, bag_maker) -> None:
    bag = bag_maker.episode(
        tmp_path / "bag", uncommanded=lambda stream, i: stream == "command_gripper" and 20 <= i < 30
    )
    run(bag, tmp_path / "data")
    found, values = episodes.load(tmp_path / "data"), bag_maker.values(0, TICKS, ("left",), (36, 40))
    rows = np.arange(TICKS)
    rows[20:30] = 19
    np.testing.assert_array_equal(gripper_of(found.command), gripper_of(values["command"])[rows])


def test_gripper_that_is_never_commanded_converts_where_its_topic_was_recorded(
    tmp_path: Path, bag_maker
) -> None:
    """Without the topic, a wrong map could not be told from a gripper that was not needed."""
    silent = lambda stream, i: stream == "command_gripper"  # noqa: E731
    bag = bag_maker.episode(tmp_path / "bag", dropped=silent, silent={"/command/gripper": JOINTS})
    audit = audit_of(bag)
    assert audit.passed
    assert audit.notes == ("command_gripper never commands the gripper: the label is its measured opening",)
    for as_arrived in (False, True):
        out = tmp_path / f"data_{as_arrived}"
        assert run(bag, out, as_arrived=as_arrived).ticks == TICKS - as_arrived
        found, values = episodes.load(out), bag_maker.values(0, TICKS, ("left",), (36, 40))
        expected = [opening_to_command(opening) for opening in values["gripper"]]
        np.testing.assert_array_equal(gripper_of(found.command), expected[: len(found)])
    absent = bag_maker.episode(tmp_path / "absent", dropped=silent)
    with pytest.raises(BagError, match=r"has no messages on /command/gripper \(command_gripper\)"):
        run(absent, tmp_path / "no")


def test_limit_that_only_makes_notes_is_not_a_setting_of_the_dataset(tmp_path: Path, bag_maker) -> None:
    """It would keep datasets that older versions began from growing."""
    run(bag_maker.episode(tmp_path / "bag"), tmp_path / "data")
    limits = episodes.load(tmp_path / "data").attributes["convert"]["audit"]
    assert limits.keys() == AuditConfig.model_fields.keys() - {"max_turn_rad"}
