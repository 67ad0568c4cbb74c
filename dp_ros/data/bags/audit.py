"""Audit of an episode: whether it is fit to learn from.

It judges rate, gaps, jitter, order and skew of the streams from their stamps alone, and the poses by `pose_audit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.data.bags.pose_audit import (
    MEASURED,
    RecordedPoses,
    distance_faults,
    frame_faults,
    largest_turns_rad,
    leaps,
    orientation_faults,
)
from dp_ros.schema import AuditConfig

Stamps = NDArray[np.int64]
_STEP_SAMPLES = 5
_PERIOD_STEPS = 4  # few, so that a lost sample is in few of the spans
OTHER_CLOCK_S = 60.0  # stamps further from the time of receipt are of another clock (a simulation's, say)
BEGIN_LATE = ("command_gripper", "expert_gripper")  # a gripper is not commanded before it has to move


@dataclass(frozen=True)
class StreamAudit:
    """Figures of one stream. Intervals are between successive distinct stamps."""

    messages: int
    rate_hz: float  # see `usual_period_s`
    max_gap_s: float
    jitter_s: float  # 95th percentile of an interval's distance from the median
    missing: int  # samples that the stream's own rate implies over its whole span, beyond those it has
    out_of_order: int
    duplicates: int
    latency_p50_s: float | None  # from stamp to receipt; None where they are of different clocks
    latency_p99_s: float | None


@dataclass(frozen=True)
class EpisodeAudit:
    """The verdict on one episode: it passes when `reasons` is empty."""

    streams: Mapping[str, StreamAudit]
    duration_s: float  # that all streams cover
    sensed_s: float  # that all sensors cover, whatever was commanded
    skew_p50_s: float  # from a picture to the nearest measured pose
    skew_max_s: float
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    turn_max_rad: float = 0.0  # largest angle from the measured orientation to the commanded one

    @property
    def passed(self) -> bool:
        return not self.reasons

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and a dataset's attributes."""
        return {
            **asdict(self),
            "passed": self.passed,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
        }


def audit_episode(
    streams: Mapping[str, tuple[Stamps, Stamps]],
    limits: AuditConfig,
    *,
    dropped: Mapping[str, int] | None = None,
    unreadable: Mapping[str, int] | None = None,
    why: Mapping[str, str] | None = None,
    poses: Mapping[str, RecordedPoses] | None = None,
    result_steps: int | None = None,
    lockstep: bool = False,
) -> EpisodeAudit:
    """Audit `streams`: name -> (stamps, receive times) [ns] in the order of arrival.

    Names that begin with "camera" are pictures; "ee_pose" must be among the others.
    dropped: topic -> messages that the recorder dropped or lost. unreadable: stream -> messages that cannot be used;
    why: stream -> reason for the first of them.
    poses: measured and commanded poses by stream. lockstep: no sample may be missing; `result_steps`, the number of
    steps such an episode had, shows a lost end.
    """
    audits = {name: _audit(stamps, received) for name, (stamps, received) in streams.items()}
    turns_rad = largest_turns_rad(poses) if poses else {}
    reasons = [f"{topic}: the recorder lost {count}" for topic, count in (dropped or {}).items() if count]
    foreign = foreign_clocks(streams)
    reasons += foreign.values()
    compared = {name: stream for name, stream in streams.items() if name not in foreign}
    duration_s, skew_s = _overlap_s(compared), _skews_s(compared)
    notes = []
    for name, count in (unreadable or {}).items():
        total = (audits[name].messages if name in audits else 0) + count
        reason = (why or {}).get(name, "")
        # A pose is unreadable for one reason only.
        fault = f"{count} of {total} without a valid orientation" if name == MEASURED else ""
        fault = fault or f"{count} messages cannot be used{f' ({reason})' if reason else ''}"
        if count > limits.max_missing * total:
            reasons.append(f"{name}: {fault}")
        elif count:
            notes.append(f"{name}: {fault}")
    if poses:
        reasons += frame_faults(poses) + orientation_faults(poses) + distance_faults(poses, limits)
        notes += leaps(poses, limits)
    reasons += _uncovered(compared, limits)
    for name, (stamps, _) in streams.items():
        audit = audits[name]
        if name in compared or stamps.any():
            reasons += _reasons(name, audit, limits, lockstep)
        if result_steps is not None:
            expected = result_steps + (not _is_command(name))
            found = len(np.unique(stamps))
            if found != expected:
                reasons.append(f"{name}: {found} samples where the episode had {expected}")
        latency_s = audit.latency_p50_s
        if latency_s is not None and not -limits.max_skew_s <= latency_s <= limits.max_latency_s:
            reasons.append(f"{name}: arrives {latency_s * 1e3:.0f} ms after its stamp")
        elif latency_s is not None and not _is_command(name) and latency_s > 0.5 / max(audit.rate_hz, 1e-9):
            notes.append(
                f"{name} arrives {latency_s * 1e3:.0f} ms after its stamp: --as-arrived converts what a node would "
                "have seen"
            )
        if _is_command(name) and audit.max_gap_s > limits.max_gap_s:
            notes.append(
                f"{name} pauses for up to {audit.max_gap_s:.2f} s (--set hold_commands=true holds it)"
            )
        if turns_rad.get(name, 0.0) > limits.max_turn_rad:
            notes.append(
                f"{name} commands an orientation up to {turns_rad[name]:.2f} rad from the measured one (max_turn_rad "
                f"{limits.max_turn_rad:g})"
            )
        if _went_back(stamps):
            reasons.append(f"{name}: its clock was set back")
    if not foreign and not duration_s >= limits.min_duration_s:
        reasons.append(f"all streams together cover {max(duration_s, 0.0):.2f} s")
    if len(skew_s) and not skew_s.max() <= limits.max_skew_s:
        reasons.append(f"a picture is {skew_s.max() * 1e3:.0f} ms from the nearest pose")
    return EpisodeAudit(
        audits,
        duration_s,
        _overlap_s({name: stream for name, stream in compared.items() if not _is_command(name)}),
        float(np.median(skew_s)) if len(skew_s) else 0.0,
        float(skew_s.max()) if len(skew_s) else 0.0,
        tuple(reasons),
        tuple(notes),
        max(turns_rad.values(), default=0.0),
    )


def usual_period_s(stamps: Stamps) -> float:
    """Time from sample to sample of a stream: 0 for fewer than two distinct stamps.

    From the spans over several intervals at once, in which jitter averages out, without those that have a gap.
    """
    distinct = np.unique(stamps)
    steps = _PERIOD_STEPS if len(distinct) > 2 * _PERIOD_STEPS else 1
    spans = distinct[steps:] - distinct[:-steps]
    if not len(spans):
        return 0.0
    median = float(np.median(spans))
    whole = spans[np.abs(spans - median) < 0.5 * median / steps]
    return float(np.mean(whole)) / steps / 1e9 if len(whole) else median / steps / 1e9


def _audit(stamps: Stamps, received: Stamps) -> StreamAudit:
    distinct = np.unique(stamps)
    intervals = np.diff(distinct) / 1e9
    median = float(np.median(intervals)) if len(intervals) else 0.0
    period_s = usual_period_s(stamps)
    due = round((distinct[-1] - distinct[0]) / 1e9 / period_s) + 1 if period_s > 0 else len(distinct)
    newest_before = np.maximum.accumulate(stamps)[:-1] if len(stamps) else stamps
    latency_s = (received - stamps) / 1e9
    same_clock = bool(len(latency_s)) and abs(float(np.median(latency_s))) < OTHER_CLOCK_S
    return StreamAudit(
        messages=len(stamps),
        rate_hz=1.0 / period_s if period_s > 0 else 0.0,
        max_gap_s=float(intervals.max()) if len(intervals) else 0.0,
        jitter_s=float(np.percentile(np.abs(intervals - median), 95)) if len(intervals) else 0.0,
        missing=max(0, int(due) - len(distinct)),
        out_of_order=int((stamps[1:] < newest_before).sum()) if len(stamps) else 0,
        duplicates=len(stamps) - len(distinct),
        latency_p50_s=float(np.median(latency_s)) if same_clock else None,
        latency_p99_s=float(np.percentile(latency_s, 99)) if same_clock else None,
    )


def _reasons(name: str, audit: StreamAudit, limits: AuditConfig, lockstep: bool) -> list[str]:
    if audit.messages < (1 if name in BEGIN_LATE else 2):
        return [f"{name}: {audit.messages} messages"]
    reasons = []
    # People and planners command at no fixed rate. The share of ticks with a command is what matters; convert tells it.
    if lockstep or not _is_command(name):
        if not audit.max_gap_s <= limits.max_gap_s:
            reasons.append(f"{name}: a gap of {audit.max_gap_s * 1e3:.0f} ms")
        share = audit.missing / (audit.messages + audit.missing)
        if share > (0.0 if lockstep else limits.max_missing):
            reasons.append(f"{name}: {audit.missing} samples missing ({share:.1%})")
    faults = {"out of order": audit.out_of_order}
    if not lockstep:  # there the first observation is repeated until a command answers it
        faults["with a stamp twice"] = audit.duplicates
    for fault, count in faults.items():
        if count > max(1, limits.max_late * audit.messages):
            reasons.append(f"{name}: {count} samples {fault} ({count / audit.messages:.1%})")
    return reasons


def _is_command(name: str) -> bool:
    return name.startswith(("command", "expert"))


def foreign_clocks(streams: Mapping[str, tuple[Stamps, Stamps]]) -> dict[str, str]:
    """Streams whose stamps cannot be compared with those of the others -> a line that says why.

    Drivers stamp with the time since the machine or the camera was started, or not at all. One clock for all streams is
    none of these, whatever it shows: a simulation has its own.
    """
    reasons: dict[str, str] = {}
    spans_s, lags_s = {}, {}
    for name, (stamps, received) in streams.items():
        if len(stamps) > 1 and not stamps.any():  # a simulation may begin at 0
            reasons[name] = f"{name}: its messages have no stamp (0): its publisher must stamp them"
        elif len(stamps):
            spans_s[name] = stamps.min() / 1e9, stamps.max() / 1e9
            lag_s = (received - stamps) / 1e9
            lags_s[name] = float(lag_s.min()), float(lag_s.max())
    if not lags_s:
        return reasons
    usual = sorted(lags_s, key=lambda name: sum(lags_s[name]))[(len(lags_s) - 1) // 2]
    for name in lags_s:
        apart_s = _apart(spans_s[usual], spans_s[name])
        if min(abs(apart_s), abs(_apart(lags_s[name], lags_s[usual]))) > OTHER_CLOCK_S:
            side = "before" if apart_s > 0 else "after"
            reasons[name] = (
                f"{name}: is stamped by another clock, {abs(apart_s):.0f} s {side} the other streams: set its driver "
                "to ROS time"
            )
    return reasons


def _apart(one: tuple[float, float], other: tuple[float, float]) -> float:
    """By how much the range `one` lies above `other`; below 0 where it lies below, 0 where they overlap."""
    return max(one[0] - other[1], 0.0) + min(one[1] - other[0], 0.0)


def _uncovered(streams: Mapping[str, tuple[Stamps, Stamps]], limits: AuditConfig) -> list[str]:
    """One line for each sensor that begins after the others, or ends before them."""
    sensors = {name: s for name, (s, _) in streams.items() if len(s) and not _is_command(name)}
    if not sensors:
        return []
    first, last = min(int(s.min()) for s in sensors.values()), max(int(s.max()) for s in sensors.values())
    reasons = []
    for name, stamps in sensors.items():
        late_s, early_s = (int(stamps.min()) - first) / 1e9, (last - int(stamps.max())) / 1e9
        if late_s > limits.max_gap_s:
            reasons.append(f"{name}: begins {late_s:.2f} s after the others")
        if early_s > limits.max_gap_s:
            reasons.append(f"{name}: ends {early_s:.2f} s before the others")
    return reasons


def _went_back(stamps: Stamps) -> bool:
    """Whether the clock was set back: several stamps in a row are older than the newest. A late message is only one."""
    if len(stamps) < _STEP_SAMPLES + 1:
        return False
    is_older = stamps[1:] < np.maximum.accumulate(stamps)[:-1]
    runs = np.convolve(is_older, np.ones(_STEP_SAMPLES), mode="valid")
    return bool(len(runs)) and bool(runs.max() >= _STEP_SAMPLES)


def _overlap_s(streams: Mapping[str, tuple[Stamps, Stamps]]) -> float:
    """The time from the last stream's begin to the first one's end; a gripper command may begin later."""
    if not streams.keys() - set(BEGIN_LATE) or any(len(stamps) == 0 for stamps, _ in streams.values()):
        return 0.0
    first = max(int(stamps.min()) for name, (stamps, _) in streams.items() if name not in BEGIN_LATE)
    last = min(int(stamps.max()) for stamps, _ in streams.values())
    return (last - first) / 1e9


def _skews_s(streams: Mapping[str, tuple[Stamps, Stamps]]) -> NDArray[np.float64]:
    """Time to the nearest pose of each picture between the first and the last pose."""
    poses = np.unique(streams[MEASURED][0]) if MEASURED in streams else np.empty(0)
    if len(poses) == 0:
        return np.empty(0)
    skews = [np.empty(0)]
    for name, (stamps, _) in streams.items():
        if name.startswith("camera"):
            inside = stamps[(stamps >= poses[0]) & (stamps <= poses[-1])]
            after = np.searchsorted(poses, inside).clip(0, len(poses) - 1)
            before = (after - 1).clip(0)
            skews.append(np.minimum(np.abs(poses[after] - inside), np.abs(inside - poses[before])) / 1e9)
    return np.concatenate(skews)
