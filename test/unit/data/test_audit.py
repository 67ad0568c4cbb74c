"""Audit of an episode: each fault that a real bag can have is counted, and decides the verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dp_ros.data.bags.audit import EpisodeAudit, audit_episode
from dp_ros.schema import AuditConfig

MS = 1_000_000
PERIOD_MS = 10.0


def streams(**changes: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """100 Hz for a second, received 2 ms later; `changes` replaces (stamps, received) in ms by stream."""
    stamps = np.arange(101) * PERIOD_MS
    given = {"camera left": stamps, "ee_pose": stamps, "gripper": stamps, "command_pose": stamps} | changes
    both = {name: v if isinstance(v, tuple) else (v, v + 2) for name, v in given.items()}
    return {name: tuple((np.asarray(v) * MS).astype(np.int64) for v in pair) for name, pair in both.items()}


def verdict(
    limits: dict[str, float] | None = None, facts: dict[str, Any] | None = None, **changes: Any
) -> EpisodeAudit:
    return audit_episode(streams(**changes), AuditConfig(**(limits or {})), **(facts or {}))


def test_an_episode_without_faults_passes() -> None:
    audit = verdict()
    assert audit.passed
    assert audit.duration_s == pytest.approx(1.0)
    camera = audit.streams["camera left"]
    assert (camera.messages, camera.missing, camera.out_of_order, camera.duplicates) == (101, 0, 0, 0)
    assert camera.rate_hz == pytest.approx(100.0)
    assert camera.max_gap_s == pytest.approx(0.01)
    assert camera.latency_p50_s == pytest.approx(0.002)
    assert audit.skew_max_s == 0.0


@pytest.mark.parametrize("lost", [1, 2, 5, 9])
def test_missing_samples_are_counted_and_make_a_gap(lost: int) -> None:
    at = np.arange(101) * PERIOD_MS
    audit = verdict(**{"camera left": np.delete(at, range(40, 40 + lost))})
    assert audit.streams["camera left"].missing == lost
    assert audit.streams["camera left"].max_gap_s == pytest.approx(0.01 * (lost + 1))
    assert audit.passed == (lost <= 2)  # 2 %
    if lost > 2:
        assert audit.reasons[0].startswith(f"camera left: {lost} samples missing")


def test_a_gap_longer_than_a_frame_may_hold_fails() -> None:
    at = np.arange(101) * PERIOD_MS
    audit = verdict({"max_missing": 1.0}, ee_pose=np.delete(at, range(40, 51)))
    assert audit.reasons == ("ee_pose: a gap of 120 ms", "a picture is 60 ms from the nearest pose")


def test_samples_out_of_order_and_twice_are_counted() -> None:
    at = np.arange(101) * PERIOD_MS
    late = at.copy()
    late[[10, 11, 30, 31, 60, 61]] = late[[11, 10, 31, 30, 61, 60]]
    audit = verdict(gripper=(late, np.arange(101) * PERIOD_MS + 2))
    assert audit.streams["gripper"].out_of_order == 3
    assert audit.reasons == ("gripper: 3 samples out of order (3.0%)",)
    audit = verdict(gripper=np.sort(np.append(at, at[[5, 6, 7, 8]])))
    assert audit.streams["gripper"].duplicates == 4
    assert audit.reasons == ("gripper: 4 samples with a stamp twice (3.8%)",)


def test_jitter_is_the_distance_from_the_usual_interval() -> None:
    rng = np.random.default_rng(0)
    jittered = np.arange(101) * PERIOD_MS + rng.choice([-1.0, 1.0], 101)
    assert verdict(**{"camera left": jittered}).streams["camera left"].jitter_s == pytest.approx(
        0.002, rel=0.1
    )


def test_skew_is_from_a_picture_to_the_nearest_pose() -> None:
    at = np.arange(101) * PERIOD_MS
    audit = verdict(**{"camera left": at + 4.0})
    assert (audit.skew_p50_s, audit.skew_max_s) == (pytest.approx(0.004), pytest.approx(0.004))
    assert verdict({"max_skew_s": 0.003}, **{"camera left": at + 4.0}).reasons == (
        "a picture is 4 ms from the nearest pose",
    )


def test_streams_that_do_not_overlap_fail() -> None:
    at = np.arange(101) * PERIOD_MS
    assert verdict(command_pose=at + 2000.0).reasons == ("all streams together cover 0.00 s",)
    assert "gripper: 0 messages" in verdict(gripper=np.array([])).reasons


def test_messages_that_the_recorder_lost_fail_whatever_the_stamps_are() -> None:
    audit = verdict(facts={"dropped": {"/joint_states": 3}})
    assert audit.reasons == ("/joint_states: the recorder lost 3",)


def test_in_lockstep_nothing_may_be_missing() -> None:
    at = np.arange(101) * PERIOD_MS
    audit = verdict(facts={"lockstep": True}, **{"camera left": np.delete(at, 50)})
    assert audit.reasons == ("camera left: 1 samples missing (1.0%)",)
    assert verdict(**{"camera left": np.delete(at, 50)}).passed


def test_in_lockstep_a_lost_end_shows_by_the_number_of_steps() -> None:
    """An episode of 100 steps has 101 observations and 100 commands; a repeated observation counts once."""
    at = np.arange(101) * PERIOD_MS
    whole = {"command_pose": at[:-1], "camera left": np.insert(at, 0, 0.0)}
    facts = {"lockstep": True, "result_steps": 100}
    assert verdict(facts=facts, **whole).passed
    assert verdict(facts=facts, **whole, ee_pose=at[:-1]).reasons == (
        "ee_pose: 100 samples where the episode had 101",
    )


def test_latency_of_another_clock_is_not_told() -> None:
    """A simulation's stamps begin at zero; receipt times are of the wall clock."""
    at = np.arange(101) * PERIOD_MS
    audit = verdict(**{"camera left": (at, at + 1e12)})
    assert audit.passed
    assert audit.streams["camera left"].latency_p50_s is None


def test_latency_that_a_frame_would_show_is_noted() -> None:
    at = np.arange(101) * PERIOD_MS
    audit = verdict(**{"camera left": (at, at + 40)})
    assert audit.passed
    assert audit.notes[0].startswith("camera left arrives 40 ms after its stamp: --as-arrived")


def test_a_camera_that_dies_before_the_others_fails() -> None:
    at = np.arange(101) * PERIOD_MS
    assert verdict(**{"camera left": at[:60]}).reasons == ("camera left: ends 0.41 s before the others",)
    assert verdict(**{"camera left": at[50:]}).reasons == ("camera left: begins 0.50 s after the others",)


@pytest.mark.parametrize(("latency_ms", "passes"), [(-300, False), (-20, True), (400, True), (3000, False)])
def test_a_clock_that_is_ahead_or_far_too_late_fails(latency_ms: float, passes: bool) -> None:
    """The live node refuses samples from the future, and holds for samples that are too old."""
    at = np.arange(101) * PERIOD_MS
    audit = verdict(**{"camera left": (at, at + latency_ms)})
    assert audit.passed == passes
    if not passes:
        assert audit.reasons == (f"camera left: arrives {latency_ms} ms after its stamp",)


def test_a_clock_that_is_set_back_fails_though_few_samples_are_out_of_order() -> None:
    at = np.arange(3000) * PERIOD_MS
    back = np.where(np.arange(3000) >= 1500, at - 300.0, at)
    others = dict.fromkeys(("ee_pose", "gripper", "command_pose"), at)
    audit = verdict(**others, **{"camera left": (back, at + 2)})
    assert audit.streams["camera left"].out_of_order / 3000 < 0.02
    assert "camera left: its clock was set back" in audit.reasons


def test_commands_may_pause_and_come_at_any_rate() -> None:
    """People pause and planners have no fixed rate; conversion tells how many ticks are lost."""
    at = np.arange(101) * PERIOD_MS
    assert verdict(command_pose=np.delete(at, range(30, 80))).passed
    assert "pauses for up to 0.51 s" in verdict(command_pose=np.delete(at, range(30, 80))).notes[0]
    rng = np.random.default_rng(0)
    assert verdict(command_pose=np.cumsum(rng.choice([10.0, 20.0, 30.0], 50))).passed


def test_messages_that_cannot_be_used_are_counted() -> None:
    assert verdict(facts={"unreadable": {"gripper": 1}}).passed
    assert verdict(facts={"unreadable": {"gripper": 5}}).reasons == ("gripper: 5 messages cannot be used",)


def test_in_lockstep_the_first_observation_may_be_repeated() -> None:
    at = np.arange(101) * PERIOD_MS
    assert verdict(facts={"lockstep": True}, **{"camera left": np.concatenate([np.zeros(6), at])}).passed


@pytest.mark.parametrize(("kind", "within"), [("normal", 0), ("alternating", 0), ("skewed", 8), ("even", 8)])
def test_jitter_is_not_taken_for_missing_samples(kind: str, within: int) -> None:
    """A camera at 30 Hz for 14 s; every interval is right on average. Then 402 messages where 417 were due."""
    rng = np.random.default_rng(3)
    count, period_ms = 417, 33.3
    noise_ms = {
        "normal": rng.normal(0.0, 0.1 * period_ms, count),
        "even": rng.uniform(-0.9, 0.9, count) * period_ms / 2,
        "skewed": rng.exponential(0.3 * period_ms, count),
        "alternating": np.where(np.arange(count) % 2, 0.4 * period_ms, 0.0),
    }[kind]
    at = np.sort(np.arange(count) * period_ms + noise_ms)
    limits = {"max_gap_s": 0.3, "max_skew_s": 0.1}
    camera = verdict(limits, **{"camera left": at}).streams["camera left"]
    assert camera.missing <= 0.01 * count
    assert camera.rate_hz == pytest.approx(30.0, rel=0.01)
    assert camera.jitter_s > 0.004
    lost = np.delete(at, rng.choice(np.arange(1, count - 1), 15, replace=False))
    few = verdict(limits, **{"camera left": lost})
    assert few.streams["camera left"].missing == pytest.approx(15, abs=within)


DAY_MS = 86_400_000.0


def on_clock(offset_ms: float) -> tuple[np.ndarray, np.ndarray]:
    """The usual stream, its stamps by a clock that is `offset_ms` behind."""
    at = np.arange(101) * PERIOD_MS + 2 * DAY_MS
    return at - offset_ms, at + 2


ONE_CLOCK = {
    "camera left": on_clock(0),
    "ee_pose": on_clock(0),
    "gripper": on_clock(0),
    "command_pose": on_clock(0),
}


@pytest.mark.parametrize("name", ["camera left", "ee_pose", "gripper", "command_pose"])
@pytest.mark.parametrize(("offset_ms", "apart"), [(DAY_MS, "86399 s before"), (-DAY_MS, "86399 s after")])
def test_a_stream_of_another_clock_is_named_once(name: str, offset_ms: float, apart: str) -> None:
    """Its driver stamps with the time since the start of the machine, say."""
    audit = verdict(**{**ONE_CLOCK, name: on_clock(offset_ms)})
    (reason,) = audit.reasons
    assert (
        reason
        == f"{name}: is stamped by another clock, {apart} the other streams: set its driver to ROS time"
    )


@pytest.mark.parametrize("name", ["camera left", "ee_pose", "gripper", "command_pose"])
def test_a_stream_without_stamps_is_named_once(name: str) -> None:
    at = ONE_CLOCK[name][1]
    audit = verdict(**{**ONE_CLOCK, name: (0 * at, at)})
    assert audit.reasons == (f"{name}: its messages have no stamp (0): its publisher must stamp them",)


@pytest.mark.parametrize("speed", [1.0, 0.1])
def test_one_clock_for_all_streams_passes_whatever_it_shows(speed: float) -> None:
    """A simulation at a tenth of real time; its gripper was commanded at the beginning and at the end."""
    stamps = np.arange(3001) * PERIOD_MS
    stream = stamps, 2 * DAY_MS + stamps / speed
    ends = tuple(values[[0, -1]] for values in stream)
    audit = verdict(**dict.fromkeys(ONE_CLOCK, stream), command_gripper=ends)
    assert audit.passed
