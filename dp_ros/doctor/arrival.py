"""Judgement of how messages arrive: publishers, types, QoS, rates, ages and clocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from dp_ros.doctor.findings import Finding, error, ok, warning
from dp_ros.doctor.measurements import Expected, GripperHeard, Heard, RobotHeard

_NAMED_TOPICS = 6
_SLOW = 0.95  # of the control rate: less, and frames repeat samples
_STEADY_S = 0.1  # a wrong clock shifts all ages by the same time, to this much
_OFFSET_S = 0.5  # a delay that is longer and steady is a wrong clock
_OTHER_CLOCK_S = 60.0
_AHEAD_S = 0.01  # two clocks that are synchronised differ by less


def usual_period_s(stream: Heard) -> float | None:
    """Median time between two messages, by their stamps where those differ, else by their receipt."""
    for times in (np.unique(stream.stamps_ns), stream.received_ns):
        if len(times) > 1:
            return float(np.median(np.diff(times))) / 1e9
    return None


def presence(heard: RobotHeard) -> list[Finding]:
    """Streams of which no usable message came, with the reason."""
    return [finding for stream in heard.streams for finding in _absence(stream, heard)]


def _absence(stream: Heard, heard: RobotHeard) -> list[Finding]:
    found = [
        error(stream.where, f"nothing of {each.node} arrives", each.apart)
        for each in stream.publishers
        if each.apart
    ]
    if found or len(stream.stamps_ns):
        return found
    if stream.refused:
        return [error(stream.where, f"none of its {stream.refused} messages can be used", stream.why_refused)]
    if isinstance(stream, GripperHeard) and stream.joints:
        return [
            error(
                stream.where,
                f"no message has the gripper's joint; they have {', '.join(stream.joints)}",
                "name it with gripper_joint",
            )
        ]
    if not stream.publishers:
        return [
            error(stream.where, f"nobody publishes it ({stream.type})", _instead(stream.type, heard.topics))
        ]
    who = ", ".join(sorted({each.node for each in stream.publishers}))
    return [
        error(
            stream.where,
            f"{who} publishes it, and no message came in {heard.listened_s:g} s",
            "start the sensor, or look at its log",
        )
    ]


def _instead(kind: str, topics: Mapping[str, tuple[str, ...]]) -> str:
    """Remedy for a topic without a publisher: others of its type."""
    others = sorted(name for name, kinds in topics.items() if kind in kinds)
    if not others:
        return f"start its driver; no topic of type {kind} is published (same ROS_DOMAIN_ID?)"
    more = f" and {len(others) - _NAMED_TOPICS} more" if len(others) > _NAMED_TOPICS else ""
    named = f"{', '.join(others[:_NAMED_TOPICS])}{more}"
    return f"start its driver, or map one of {named} (--topics-file here, topics_file when served)"


def refusals(heard: RobotHeard) -> list[Finding]:
    """Streams of which the policy node would refuse some of the messages."""
    return [
        warning(stream.where, "some of its messages would be refused", stream.why_refused)
        for stream in heard.streams
        if stream.refused and len(stream.stamps_ns) and getattr(stream, "sizes", True)
    ]


def single_publishers(heard: RobotHeard) -> list[Finding]:
    """Cameras and `ee_pose` of which several publishers mix their messages."""
    return [
        error(
            stream.where,
            f"{len(stream.publishers)} publishers mix their messages ({_who(stream)})",
            "stop all but one",
        )
        for stream in (*heard.cameras, heard.ee_pose)
        if len(stream.publishers) > 1
    ]  # fmt: skip


def _who(stream: Heard) -> str:
    return ", ".join(sorted({each.node for each in stream.publishers}))


def rates(heard: RobotHeard, expected: Expected) -> list[Finding]:
    """Rates against the control rate, and gaps against the oldest observation that the gate allows."""
    found = []
    wanted_hz, max_age_s = expected.policy.rate_hz, expected.runtime.gate.max_obs_age_s
    for stream in heard.streams:
        period_s = usual_period_s(stream)
        if period_s is None or not period_s > 0:
            if len(stream.stamps_ns):
                found.append(
                    error(stream.where, f"one message in {heard.listened_s:g} s", f"publish it at {wanted_hz:g} Hz")
                )  # fmt: skip
            continue
        rate_hz, gap_s = 1.0 / period_s, float(np.diff(np.unique(stream.received_ns)).max(initial=0)) / 1e9
        if period_s > max_age_s:
            found.append(
                error(
                    stream.where,
                    f"{rate_hz:.1f} Hz, so its newest message is often older than max_obs_age_s ({max_age_s:g} s)",
                    f"raise its rate to the policy's {wanted_hz:g} Hz, or raise gate.max_obs_age_s",
                )
            )
        elif rate_hz < _SLOW * wanted_hz:
            found.append(
                warning(
                    stream.where,
                    f"{rate_hz:.1f} Hz, and the policy has {wanted_hz:g} Hz, so its frames repeat messages",
                    f"raise its rate to {wanted_hz:g} Hz, or train at the rate of this robot (convert --rate)",
                )
            )
        elif gap_s > max_age_s:
            found.append(
                warning(
                    stream.where,
                    f"{rate_hz:.1f} Hz with a gap of {gap_s:.2f} s, longer than max_obs_age_s ({max_age_s:g} s)",
                    "the arm holds in such gaps: look for a busy processor, network or USB bus",
                )
            )
        else:
            age_s = float(np.median(stream.ages_s))
            age = f", {age_s * 1e3:.0f} ms old when it arrives" if 0.0 <= age_s <= max_age_s else ""
            found.append(ok(stream.where, f"{rate_hz:.1f} Hz{age}"))
    return found


def clocks(heard: RobotHeard, expected: Expected) -> list[Finding]:
    """Stamps that are missing, of another clock, of a clock that is off, or late. One line for equal offsets."""
    if heard.without_time:
        return [error("clock", heard.without_time, "or serve without use_sim_time")]
    found: list[Finding] = []
    offsets: list[tuple[float, Heard]] = []
    max_age_s = expected.runtime.gate.max_obs_age_s
    # A simulation sends its observation before the time on /clock.
    ahead_s = _AHEAD_S + (1.0 / expected.policy.rate_hz if heard.sim_time else 0.0)
    for stream in heard.streams:
        if not len(stream.stamps_ns):
            continue
        ages_s = stream.ages_s
        least_s, usual_s, late_s = (float(np.percentile(ages_s, share)) for share in (1, 50, 95))
        spread_s = late_s - least_s
        if not stream.stamps_ns.any():
            found.append(
                error(stream.where, "its messages have no stamp (0)", "its publisher must stamp them")
            )
        elif abs(usual_s) > _OTHER_CLOCK_S:
            found.append(
                error(
                    stream.where,
                    f"its stamps are {abs(usual_s):.0f} s {_side(usual_s)}, by another clock than this machine's",
                    "stamp by ROS time, or give --sim-time for a simulated robot",
                )
            )
        elif least_s < -ahead_s or (least_s > _OFFSET_S and spread_s < _STEADY_S):
            offsets.append((least_s, stream))
        elif usual_s > max_age_s:
            found.append(
                error(
                    stream.where,
                    f"arrives {usual_s:.2f} s after its stamp, later than max_obs_age_s ({max_age_s:g} s)",
                    "shorten the way (compression, wired network, fewer queued messages), or raise gate.max_obs_age_s",
                )
            )
        elif late_s > max_age_s:
            found.append(
                warning(
                    stream.where,
                    f"one in twenty arrives {late_s:.2f} s after its stamp or later (max_obs_age_s {max_age_s:g} s)",
                    "the arm holds then: look for a busy processor, network or USB bus",
                )
            )
    return found + _offset_findings(offsets, max_age_s)


def _offset_findings(offsets: Sequence[tuple[float, Heard]], max_age_s: float) -> list[Finding]:
    found = []
    for group in _of_one_clock(offsets):
        offset_s = float(np.median([offset for offset, _ in group]))
        where = ", ".join(stream.where for _, stream in group)
        behind = "behind" if offset_s > 0 else "ahead of"
        make = error if abs(offset_s) > max_age_s else warning
        found.append(
            make(
                where,
                f"stamped {abs(offset_s):.2f} s {_side(offset_s)}, steadily: the clock that stamps is "
                f"{abs(offset_s):.2f} s {behind} this machine's",
                "synchronise both clocks (chrony or ptp), or let the driver stamp by this machine's time"
                + (", or shorten the way if it is a delay" if offset_s > 0 else ""),
            )
        )
    return found


def _of_one_clock(offsets: Iterable[tuple[float, Heard]]) -> list[list[tuple[float, Heard]]]:
    """Streams whose clocks are off by about the same time."""
    groups: list[list[tuple[float, Heard]]] = []
    for offset, stream in sorted(offsets, key=lambda each: each[0]):
        if groups and offset - groups[-1][-1][0] < _STEADY_S:
            groups[-1].append((offset, stream))
        else:
            groups.append([(offset, stream)])
    return groups


def _side(age_s: float) -> str:
    return "in the past" if age_s > 0 else "in the future"
