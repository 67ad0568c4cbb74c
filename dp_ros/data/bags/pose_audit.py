"""Audit of recorded poses: one frame for all of them, and a valid orientation in each command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp_ros.poses import angle_rad, is_unit

MEASURED = "ee_pose"


@dataclass(frozen=True)
class RecordedPoses:
    """The poses of one topic, in the order of arrival."""

    topic: str
    frame_ids: tuple[str, ...]  # every header.frame_id, in the order of first use
    stamps_ns: NDArray[np.int64]  # (N,)
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
    measured = poses[MEASURED]
    order = np.argsort(measured.stamps_ns, kind="stable")
    stamps_ns, orientations = measured.stamps_ns[order], measured.orientations[order]
    turns = {}
    for name, stream in poses.items():
        if name == MEASURED:
            continue
        newest = np.searchsorted(stamps_ns, stream.stamps_ns, side="right") - 1
        turns[name] = max(
            (
                angle_rad(orientations[at], commanded)
                for at, commanded in zip(newest, stream.orientations, strict=True)
                if at >= 0 and is_unit(commanded)
            ),
            default=0.0,
        )
    return turns
