"""From measurements of a robot's topics to findings: the fault, the stream and the remedy, in one line each."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from dp_ros.doctor.findings import Finding, Level, fails
from dp_ros.doctor.measurements import (
    CameraHeard,
    CommandTopic,
    Endpoint,
    Expected,
    GripperHeard,
    PoseHeard,
    RobotHeard,
)
from dp_ros.doctor.robot import judge
from dp_ros.schema import PolicyConfig, RuntimeConfig, parse

BEGIN_NS = 1_700_000_000_000_000_000
DOWN = (0.0, 1.0, 0.0, 0.0)
IMAGE, POSE, JOINTS = "sensor_msgs/msg/Image", "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/JointState"
STATS = {"state": {"low": [-0.2, 0.4, 0.05, 0.0], "high": [0.2, 0.8, 0.35, 1.0]}}


def expected(stats: Any = STATS, **runtime: Any) -> Expected:
    encoder = {
        "cameras": ("wrist",),
        "height_px": 96,
        "width_px": 96,
        "crop_height_px": 84,
        "crop_width_px": 84,
    }
    policy = parse(PolicyConfig, {"rate_hz": 20.0, "encoder": encoder}, "test")
    return Expected.of(policy, parse(RuntimeConfig, runtime, "test"), stats)


def times(rate_hz: float = 30.0, age_s: float = 0.01, seconds: float = 3.0) -> dict[str, Any]:
    received_ns = BEGIN_NS + (np.arange(round(rate_hz * seconds)) * (1e9 / rate_hz)).astype(np.int64)
    return {"stamps_ns": received_ns - round(age_s * 1e9), "received_ns": received_ns}


def robot(**changes: Any) -> RobotHeard:
    """A robot without a fault; "camera", "ee_pose" and "gripper" are changes of their stream."""
    by = (Endpoint(node="driver", type="x"),)
    camera = {
        "name": "camera wrist", "topic": "/camera/wrist/image_raw", "type": IMAGE, "camera": "wrist",
        "publishers": by, "sizes": ((480, 480),), "encodings": ("rgb8",), "contrast": 40.0, "frame_ids": ("wrist",),
        **times(30.0), **changes.pop("camera", {}),
    }  # fmt: skip
    of_pose = {"topic": "/ee_pose", "publishers": by, "frame_ids": ("base_link",), **times(125.0)}
    of_pose |= changes.pop("ee_pose", {})
    of_pose.setdefault("poses", np.tile([0.1, 0.6, 0.2, *DOWN], (len(of_pose["stamps_ns"]), 1)))
    of_gripper = {"topic": "/gripper/state", "publishers": by, "joints": ("gripper",), **times(30.0)}
    of_gripper |= {"openings": np.full(90, 1.0), **changes.pop("gripper", {})}
    commands = tuple(
        CommandTopic(name=name, topic=f"/{name}", type=kind, subscribers=by)
        for name, kind in (("command/ee_pose", POSE), ("command/gripper", JOINTS))
    )
    return RobotHeard(
        **{
            "listened_s": 3.0,
            "cameras": (CameraHeard(**camera),),
            "ee_pose": PoseHeard(name="ee_pose", type=POSE, **of_pose),
            "gripper": GripperHeard(name="gripper", type=JOINTS, **of_gripper),
            "commands": commands,
            **changes,
        }
    )


def faults(heard: RobotHeard, of: Expected | None = None) -> list[Finding]:
    return [each for each in judge(heard, of or expected()) if each.level is not Level.OK]


def only_fault(heard: RobotHeard, of: Expected | None = None) -> Finding:
    found = faults(heard, of)
    assert len(found) == 1, [each.line for each in found]
    assert found[0].remedy
    assert "\n" not in found[0].line
    return found[0]


def poses(position: Any, quat: Any = DOWN, count: int = 375) -> dict[str, Any]:
    return {"poses": np.tile([*position, *quat], (count, 1)).astype(float)}


NOTHING = {"stamps_ns": np.empty(0, np.int64), "received_ns": np.empty(0, np.int64)}


def test_a_robot_that_fits_has_no_fault_and_each_stream_a_line() -> None:
    found = judge(robot(), expected())
    assert {each.level for each in found} == {Level.OK}
    for where in ("camera wrist", "ee_pose", "gripper", "command/ee_pose", "command/gripper"):
        assert any(each.where.startswith(where) for each in found)


@pytest.mark.parametrize("position", [(100.0, 600.0, 200.0), (-150.0, 450.0, 60.0)])
def test_a_pose_in_millimetres_is_named(position: Any) -> None:
    fault = only_fault(robot(ee_pose=poses(position)))
    assert fault.level is Level.ERROR
    assert "is in millimetres" in fault.what
    assert "publish metres" in fault.remedy


def test_a_pose_in_centimetres_is_named() -> None:
    assert "is in centimetres" in only_fault(robot(ee_pose=poses((10.0, 60.0, 20.0)))).what


def test_millimetres_are_found_without_statistics_and_elsewhere_than_in_the_demonstrations() -> None:
    assert "millimetres" in only_fault(robot(ee_pose=poses((100, 600, 200))), expected(stats={})).what
    assert "millimetres" in only_fault(robot(ee_pose=poses((-700, -600, 900)))).what


def test_metres_in_another_base_frame_are_not_taken_for_another_unit() -> None:
    found = faults(robot(ee_pose=poses((1.4, -0.6, 0.2))))
    assert [each.level for each in found] == [Level.ERROR, Level.WARNING]
    assert "outside the workspace" in found[0].what
    assert "base frame" in found[1].remedy
    assert not any("metres" in each.what for each in found)


def test_a_camera_of_another_aspect_ratio_is_refused_with_the_ways_out() -> None:
    fault = only_fault(robot(camera={"sizes": ((480, 640),)}))
    assert fault.level is Level.ERROR
    assert "640x480 px, aspect 4:3, but 96x96 px, aspect 1:1" in fault.what
    assert "set the camera to 1:1" in fault.remedy
    assert "fit: crop" in fault.remedy


def test_a_camera_that_is_too_small_is_refused() -> None:
    assert "never enlarged" in only_fault(robot(camera={"sizes": ((48, 48),)})).what


@pytest.mark.parametrize("offset_s", [3.0, -3.0])
def test_a_clock_three_seconds_off_is_one_line_for_all_its_streams(offset_s: float) -> None:
    late = {
        "camera": times(30.0, offset_s),
        "ee_pose": times(125.0, offset_s),
        "gripper": times(30.0, offset_s),
    }
    fault = only_fault(robot(**late))
    assert fault.level is Level.ERROR
    assert "3.00 s in the past" in fault.what if offset_s > 0 else "3.00 s in the future" in fault.what
    assert ("3.00 s behind" in fault.what) == (offset_s > 0)
    assert "chrony" in fault.remedy
    for stream in ("camera wrist", "ee_pose", "gripper"):
        assert stream in fault.where


def test_one_stream_with_a_wrong_clock_is_told_from_the_others() -> None:
    fault = only_fault(robot(camera=times(30.0, 3.0)))
    assert fault.where == "camera wrist (/camera/wrist/image_raw)"


def test_a_simulations_stamps_may_be_a_tick_ahead_of_its_clock() -> None:
    ahead = robot(camera=times(30.0, -0.04))
    assert "0.04 s in the future" in only_fault(ahead).what
    assert not faults(dataclasses.replace(ahead, sim_time=True))


def test_a_slow_way_is_told_from_a_wrong_clock() -> None:
    slow = times(30.0)
    slow["stamps_ns"] = slow["received_ns"] - np.linspace(0.15e9, 0.9e9, 90).astype(np.int64)
    fault = only_fault(robot(camera=slow))
    assert "after its stamp" in fault.what
    assert "clock" not in fault.line


def test_stamps_of_zero_and_of_another_clock() -> None:
    zero = times(30.0)
    zero["stamps_ns"] = np.zeros(90, np.int64)
    assert "no stamp" in only_fault(robot(camera=zero)).what
    booted = times(30.0)
    booted["stamps_ns"] = booted["stamps_ns"] - BEGIN_NS + 10**12
    assert "another clock" in only_fault(robot(camera=booted)).what


def test_simulated_time_that_stands_still() -> None:
    found = faults(dataclasses.replace(robot(), without_time="no time on /clock: start the simulator"))
    assert any("no time on /clock" in each.what for each in found)


def test_rates_against_the_control_rate_and_the_oldest_observation() -> None:
    slow = only_fault(robot(camera=times(15.0)))
    assert (slow.level, slow.what[:7]) == (Level.WARNING, "15.0 Hz")
    stale = faults(robot(camera=times(5.0)))
    assert [each.level for each in stale] == [Level.ERROR]
    assert "max_obs_age_s (0.1 s)" in stale[0].what
    gap = times(30.0)
    gap = {name: np.delete(values, range(40, 50)) for name, values in gap.items()}
    assert "gap of 0.37 s" in only_fault(robot(camera=gap)).what
    once = {name: values[:1] for name, values in times(30.0).items()}
    assert only_fault(robot(camera=once)).level is Level.ERROR


def test_a_missing_topic_names_the_topics_of_its_type() -> None:
    heard = robot(camera={**NOTHING, "sizes": (), "contrast": None, "publishers": ()})
    heard = dataclasses.replace(heard, topics={"/cam/color": (IMAGE,), "/odom": ("nav_msgs/msg/Odometry",)})
    fault = only_fault(heard)
    assert "nobody publishes it (sensor_msgs/msg/Image)" in fault.what
    assert "/cam/color" in fault.remedy
    assert "/odom" not in fault.remedy


def test_a_silent_publisher_and_one_that_cannot_be_heard() -> None:
    silent = {**NOTHING, "sizes": (), "contrast": None}
    assert "no message came in 3 s" in only_fault(robot(camera=silent)).what
    apart = Endpoint(node="cam", type="x", apart="it has x, this node y: use one message type")
    fault = only_fault(robot(camera={**silent, "publishers": (apart,)}))
    assert (fault.what, fault.remedy) == ("nothing of cam arrives", apart.apart)


def test_several_publishers_of_one_sensor() -> None:
    two = (Endpoint(node="a", type="x"), Endpoint(node="b", type="x"))
    assert "(a, b)" in only_fault(robot(camera={"publishers": two})).what


def test_pictures_that_cannot_be_used_that_show_nothing_or_are_mixed() -> None:
    unusable = {"sizes": (), "contrast": None, "refused": 4, "why_refused": "image 'weird': publish rgb8"}
    assert "publish rgb8" in only_fault(robot(camera=unusable)).remedy
    assert "shows nothing" in only_fault(robot(camera={"contrast": 1.0})).what
    assert fails(faults(robot(camera={"contrast": float("nan")})))
    assert "several sizes" in only_fault(robot(camera={"sizes": ((96, 96), (192, 192))})).what
    assert "several frames" in only_fault(robot(camera={"frame_ids": ("a", "b")})).what


def test_frames_of_the_pose() -> None:
    assert "several frames (base, map)" in only_fault(robot(ee_pose={"frame_ids": ("base", "map")})).what
    assert "frame_id is empty" in only_fault(robot(ee_pose={"frame_ids": ("",)})).what


@pytest.mark.parametrize(
    ("quat", "said"),
    [((0, 0, 0, 0), "0, 0, 0, 0"), ((0, 1.1, 0, 0), "length 1.1"), ((0, np.nan, 0, 0), "length nan")],
)
def test_a_quaternion_that_is_not_of_length_one(quat: Any, said: str) -> None:
    fault = only_fault(robot(ee_pose=poses((0.1, 0.6, 0.2), quat)))
    assert fault.level is Level.ERROR
    assert said in fault.what


def test_positions_that_are_not_finite() -> None:
    assert "not finite" in only_fault(robot(ee_pose=poses((np.nan, 0.6, 0.2)))).what


def test_an_arm_outside_the_workspace_and_demonstrations_beyond_it() -> None:
    small = {"workspace_low_m": (-0.1, 0.5, 0.1), "workspace_high_m": (0.1, 0.7, 0.3)}
    found = faults(robot(ee_pose=poses((0.1, 0.6, 0.2))), expected(gate=small))
    assert [(each.level, each.where) for each in found] == [(Level.WARNING, "workspace")]
    assert "dp_ros limits" in found[0].remedy
    outside = faults(robot(ee_pose=poses((0.19, 0.6, 0.2))), expected(gate=small))
    assert "0.090 m outside the workspace" in outside[0].what


def test_a_gripper_of_a_smaller_range_or_turned_round() -> None:
    small = only_fault(robot(gripper={"openings": np.linspace(0.0, 0.08, 90)}))
    assert "gripper_range" in small.remedy
    narrow = {"state": {"low": [-0.2, 0.4, 0.05, 0.9], "high": [0.2, 0.8, 0.35, 1.0]}}
    turned = only_fault(robot(gripper={"openings": np.zeros(90)}), expected(stats=narrow))
    assert "0.90 to 1.00" in turned.what


def test_a_gripper_that_is_refused_or_of_other_joints() -> None:
    nothing = {**NOTHING, "openings": np.empty(0)}
    refused = {**nothing, "refused": 9, "why_refused": "position 40 is outside 0 to 1: give gripper_range"}
    assert "gripper_range" in only_fault(robot(gripper=refused)).remedy
    others = only_fault(robot(gripper={**nothing, "joints": ("a", "b")}))
    assert "they have a, b" in others.what
    assert "gripper_joint" in others.remedy


def test_other_publishers_and_missing_subscribers_of_commands() -> None:
    first, second = robot().commands
    other = (Endpoint(node="teleop_node", type=POSE),)
    changed = dataclasses.replace(first, publishers=other, messages=20)
    assert "teleop_node commands the arm now" in only_fault(robot(commands=(changed, second))).what
    waiting = dataclasses.replace(first, publishers=other)
    assert only_fault(robot(commands=(waiting, second))).level is Level.ERROR
    alone = only_fault(robot(commands=(first, dataclasses.replace(second, subscribers=()))))
    assert alone.level is Level.WARNING
    assert "nobody listens" in alone.what
    deaf = (Endpoint(node="driver", type="x", apart="it has x: use one message type"),)
    assert (
        only_fault(robot(commands=(dataclasses.replace(first, subscribers=deaf), second))).level
        is Level.ERROR
    )
