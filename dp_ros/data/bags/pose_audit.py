"""Audit of recorded poses: one frame, plausible positions, and a valid orientation in each command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp_ros.poses import angle_rad, is_unit
from dp_ros.schema import AuditConfig

MEASURED = "ee_pose"
_LARGEST_EXTENT_M = 10.0  # of the positions of one episode
_LEAP = 10.0  # a leap is so many times longer than the usual step
_LEAPS = " leaps by "


@dataclass(frozen=True)
class RecordedPoses:
    """The poses of one topic, in the order of arrival."""

    topic: str
    frame_ids: tuple[str, ...]  # every header.frame_id, in the order of first use
    stamps_ns: NDArray[np.int64]  # (N,)
    positions: NDArray[np.float64]  # (N, 3) [m]
    orientations: NDArray[np.float64]  # (N, 4) quaternions x, y, z, w, as sent


def frame_faults(poses: Mapping[str, RecordedPoses]) -> list[str]:
    """One line for each stream with poses in another frame than the first one of `ee_pose`."""
    first = poses[MEASURED].frame_ids[:1]
    faults = []
    for name, stream in poses.items():
        others = [frame_id for frame_id in stream.frame_ids if (frame_id,) != first]
        if first and others:
            named = " and ".join(f"'{frame_id}'" for frame_id in others)
            faults.append(
                f"{name}: {stream.topic} has poses in frame {named}, the first of {MEASURED} is in '{first[0]}'"
            )
    return faults


def orientation_faults(poses: Mapping[str, RecordedPoses]) -> list[str]:
    """One line for each stream with orientations that are not unit quaternions."""
    faults = []
    for name, stream in poses.items():
        invalid = sum(not is_unit(orientation) for orientation in stream.orientations)
        if invalid:
            faults.append(f"{name}: {invalid} of {len(stream.orientations)} without a valid orientation")
    return faults


def largest_turns_rad(poses: Mapping[str, RecordedPoses]) -> dict[str, float]:
    """Commanded stream -> largest angle from the measured orientation to the commanded one.

    Measured is the newest `ee_pose` at the command's stamp. Commands before the first one, and invalid orientations,
    are left out.
    """
    orientations = poses[MEASURED].orientations
    turns = {}
    for name, stream in poses.items():
        if name == MEASURED:
            continue
        turns[name] = max(
            (
                angle_rad(orientations[at], commanded)
                for at, commanded in zip(_measured_at(poses, stream), stream.orientations, strict=True)
                if at >= 0 and is_unit(commanded)
            ),
            default=0.0,
        )
    return turns


def distance_faults(poses: Mapping[str, RecordedPoses], limits: AuditConfig) -> list[str]:
    """One line for each stream with positions that no arm has: of another unit, or relative ones."""
    faults = []
    measured = poses[MEASURED].positions
    if len(measured) and (extent_m := float(np.ptp(measured, axis=0).max())) > _LARGEST_EXTENT_M:
        faults.append(
            f"{MEASURED}: {poses[MEASURED].topic} moves over {extent_m:.4g} m: is it in millimetres? Record metres"
        )
    for name, stream in poses.items():
        if name == MEASURED:
            continue
        at = _measured_at(poses, stream)
        commanded = stream.positions[at >= 0]
        distances_m = np.linalg.norm(commanded - measured[at[at >= 0]], axis=1)
        far = ~(distances_m <= limits.max_offset_m)  # NaN is far
        if far.sum() > limits.max_missing * len(far):
            faults.append(
                f"{name}: {far.sum()} of {len(far)} positions on {stream.topic} are more than "
                f"{limits.max_offset_m:g} m from the measured one, usually {np.median(distances_m):.4g} m "
                "(max_offset_m): record absolute positions in metres, in the frame of the measured ones"
            )
    return faults


def leaps(poses: Mapping[str, RecordedPoses], limits: AuditConfig) -> list[str]:
    """One line for each stream with steps far longer than its usual ones: the first of them, and how many there are."""
    notes = []
    for name, stream in poses.items():
        order = np.argsort(stream.stamps_ns, kind="stable")
        steps_m = np.linalg.norm(np.diff(stream.positions[order], axis=0), axis=1)
        found = leap_steps(steps_m, limits.max_leap_m)
        if len(found):
            at_s = (stream.stamps_ns[order][found[0] + 1] - stream.stamps_ns.min()) / 1e9
            more = f", and {len(found) - 1} times more" if len(found) > 1 else ""
            notes.append(
                f"{name}{_LEAPS}{steps_m[found[0]]:.3g} m at {at_s:.2f} s{more} (max_leap_m "
                f"{limits.max_leap_m:g}): one wrong position stretches the range of all labels"
            )
    return notes


def leap_steps(steps_m: NDArray[np.float64], max_leap_m: float) -> NDArray[np.int64]:
    """Indices of the steps, lengths (N,), that are longer than `max_leap_m` and far longer than the usual one."""
    if not len(steps_m):
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(~(steps_m <= max(max_leap_m, _LEAP * float(np.median(steps_m)))))  # NaN is a leap


def is_leap(note: str) -> bool:
    """Whether a note of the audit is one of `leaps`."""
    return _LEAPS in note


def _measured_at(poses: Mapping[str, RecordedPoses], stream: RecordedPoses) -> NDArray[np.int64]:
    """(N,) for each pose of `stream`: index of the newest measured pose at its stamp; -1 before the first one."""
    measured_ns = poses[MEASURED].stamps_ns
    if not len(measured_ns):
        return np.full(len(stream.stamps_ns), -1)
    order = np.argsort(measured_ns, kind="stable")
    newest = np.searchsorted(measured_ns[order], stream.stamps_ns, side="right") - 1
    return np.where(newest >= 0, order[newest.clip(0)], -1)
