"""Audit of what sensors show: black, frozen and tiny pictures, and a measured pose that never changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp_ros.data.bags.pose_audit import MEASURED, RecordedPoses
from dp_ros.schema import AuditConfig

_SMALLEST_PX = 16  # no policy takes smaller pictures
_MOVES_M = 0.02  # the arm moves: more than noise and settling


@dataclass(frozen=True)
class RecordedPictures:
    """The usable pictures of one camera, in the order of arrival."""

    size: tuple[int, int]  # (height, width) [px]
    stamps_ns: NDArray[np.int64]  # (N,)
    contrasts: Sequence[float]  # (N,) see `streams.contrast`
    digests: Sequence[int]  # (N,) equal for equal pictures
    frame_ids: tuple[str, ...] = ()  # every header.frame_id


def picture_audit(
    cameras: Mapping[str, RecordedPictures], poses: Mapping[str, RecordedPoses], limits: AuditConfig
) -> tuple[list[str], list[str]]:
    """(reasons, notes), one line for each fault of a camera."""
    reasons: list[str] = []
    notes: list[str] = []
    for name, camera in cameras.items():
        height, width = camera.size
        if min(height, width) < _SMALLEST_PX:
            reasons.append(
                f"{name}: its pictures are {width}x{height} px, a policy needs {_SMALLEST_PX}x{_SMALLEST_PX}"
            )
            continue
        if len(camera.frame_ids) > 1:
            named = " and ".join(f"'{frame_id}'" for frame_id in camera.frame_ids)
            reasons.append(
                f"{name}: its pictures are in frames {named}: do several cameras publish on its topic?"
            )
        covered = sum(not contrast >= limits.min_contrast for contrast in camera.contrasts)
        if covered:
            fault = (
                f"{name}: {covered} of {len(camera.contrasts)} pictures show nothing (contrast below min_contrast "
                f"{limits.min_contrast:g}): was it covered?"
            )
            (reasons if covered > limits.max_missing * len(camera.contrasts) else notes).append(fault)
        digests = np.reshape(np.array(camera.digests, dtype=np.int64), (-1, 1))
        if fault := _frozen(camera.stamps_ns, digests, poses[MEASURED], limits):
            reasons.append(f"{name}: shows the same picture {fault}")
    return reasons, notes


def frozen_pose_faults(poses: Mapping[str, RecordedPoses], limits: AuditConfig) -> list[str]:
    """One line where the measured pose stays the same, to the bit, while the commands move."""
    measured = poses[MEASURED]
    values = np.concatenate([measured.positions, measured.orientations], axis=1)
    for name, commanded in poses.items():
        if name != MEASURED and (fault := _frozen(measured.stamps_ns, values, commanded, limits)):
            return [f"{MEASURED}: stays the same {fault.replace('the arm moves', f'{name} moves')}"]
    return []


def _frozen(
    stamps_ns: NDArray[np.int64], values: NDArray[np.generic], moving: RecordedPoses, limits: AuditConfig
) -> str:
    """For how long the rows of `values` (N, D) stay equal while the positions of `moving` change; empty for never."""
    if not len(values):
        return ""
    changes = np.flatnonzero((values[1:] != values[:-1]).any(axis=1)) + 1
    for begin, end in zip([0, *changes], [*changes, len(values)], strict=True):
        first_ns, last_ns = int(stamps_ns[begin]), int(stamps_ns[end - 1])
        if last_ns - first_ns <= limits.max_frozen_s * 1e9:
            continue
        positions = moving.positions[(moving.stamps_ns >= first_ns) & (moving.stamps_ns <= last_ns)]
        moved_m = float(np.linalg.norm(np.ptp(positions, axis=0))) if len(positions) else 0.0
        if moved_m > _MOVES_M:
            return f"for {(last_ns - first_ns) / 1e9:.2f} s while the arm moves by {moved_m:.2g} m"
    return ""
