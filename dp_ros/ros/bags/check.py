"""Audit of one bag."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from dp_ros.actions import join
from dp_ros.data.bags.audit import EpisodeAudit, audit_episode
from dp_ros.data.bags.picture_audit import RecordedPictures, frozen_pose_faults, picture_audit
from dp_ros.data.bags.pose_audit import RecordedPoses
from dp_ros.data.bags.still import NOTED_S, still_runs
from dp_ros.poses import POSE_DIM, orientation_of, position_of
from dp_ros.ros.bags.episode import COMMANDS, EXPERT, BagEpisode
from dp_ros.ros.bags.messages import json_object
from dp_ros.schema import AuditConfig

_MUCH_STILL = 0.1  # of the commanded time, from which stops are noted


def check(episode: BagEpisode, limits: AuditConfig) -> EpisodeAudit:
    """The audit of one bag, with what its recorder counted and its simulator published."""
    lost: Counter[str] = Counter()
    for key in ("dropped", "lost"):
        lost.update(json_object(episode.info.custom.get(key, "{}")))
    used = {stream.topic for stream in episode.streams.values()}
    unused = [
        f"{topic}: the recorder lost {count}, which training does not use"
        for topic, count in lost.items()
        if count and topic not in used
    ]
    poses = recorded_poses(episode)
    steps = episode.result.get("steps") if episode.is_lockstep else None
    # Without a gripper command that never came; in lockstep every step has one.
    streams = {name: stream for name, stream in episode.streams.items() if len(stream) or episode.is_lockstep}
    audit = audit_episode(
        {name: (stream.stamps_ns, stream.received_ns) for name, stream in streams.items()},
        limits,
        dropped={topic: count for topic, count in lost.items() if topic in used},
        unreadable={name: stream.unreadable for name, stream in episode.streams.items()},
        why={name: stream.why for name, stream in episode.streams.items()},
        poses=poses,
        lockstep=episode.is_lockstep,
        result_steps=steps if isinstance(steps, int) else None,
    )
    faults, looks = picture_audit(_recorded_pictures(episode), poses, limits)
    reasons = (*audit.reasons, *faults, *frozen_pose_faults(poses, limits))
    notes = (
        *looks,
        *unused,
        *_notes_on_publishers(episode),
        *_notes_on_the_gripper(episode, limits),
        *_notes_on_stops(episode, limits),
    )
    return replace(audit, reasons=reasons, notes=(*audit.notes, *notes))


def _notes_on_publishers(episode: BagEpisode) -> list[str]:
    """Sensors that had several publishers; the joints of a robot may have, as those of a gripper."""
    sensors = {f"camera {camera}": stream.topic for camera, stream in episode.cameras.items()}
    counts = {name: episode.info.publishers.get(topic, 0) for name, topic in sensors.items()}
    counts["ee_pose"] = episode.info.publishers.get(episode.ee_pose.topic, 0)
    return [
        f"{name} had {count} publishers when it was recorded: their messages are mixed"
        for name, count in counts.items()
        if count > 1
    ]


def _recorded_pictures(episode: BagEpisode) -> dict[str, RecordedPictures]:
    found = {}
    for camera, stream in episode.cameras.items():
        contrasts, digests = zip(*episode.looks[camera], strict=True)
        found[f"camera {camera}"] = RecordedPictures(
            episode.sizes[camera], stream.stamps_ns, contrasts, digests, stream.frame_ids
        )
    return found


def recorded_poses(episode: BagEpisode) -> dict[str, RecordedPoses]:
    """Measured and commanded poses by the name of their stream."""
    streams = {name: stream for name, stream in episode.streams.items() if name.endswith("pose")}
    values = {
        name: np.reshape(np.array(s.values, dtype=np.float64), (-1, POSE_DIM)) for name, s in streams.items()
    }
    return {
        name: RecordedPoses(
            stream.topic,
            stream.frame_ids,
            stream.stamps_ns,
            position_of(values[name]),
            orientation_of(values[name]),
        )
        for name, stream in streams.items()
    }


def _notes_on_the_gripper(episode: BagEpisode, limits: AuditConfig) -> list[str]:
    """Notes on a gripper that is commanded later than the position, or never."""
    notes = []
    for pose, gripper in (COMMANDS, EXPERT):
        if pose not in episode.actions:
            continue
        stream = episode.actions[gripper]
        commanded_ns = [
            int(at) for at, value in zip(stream.stamps_ns, stream.values, strict=True) if value is not None
        ]
        late_s = (min(commanded_ns, default=0) - int(episode.actions[pose].stamps_ns.min())) / 1e9
        if not commanded_ns:
            notes.append(f"{gripper} never commands the gripper: the label is its measured opening")
        elif late_s > limits.max_gap_s:
            notes.append(
                f"{gripper} commands the gripper {late_s:.2f} s after the first position: until then the label is its "
                "measured opening"
            )
    return notes


def _notes_on_stops(episode: BagEpisode, limits: AuditConfig) -> list[str]:
    """Whether the commands stand still for more than a tenth of the episode, in stops of NOTED_S or more."""
    pose, gripper = (episode.actions[name] for name in (EXPERT if EXPERT[0] in episode.actions else COMMANDS))
    order = np.argsort(pose.stamps_ns, kind="stable")
    stamps_ns = pose.stamps_ns[order]
    if len(stamps_ns) < 2:
        return []
    positions = position_of(np.array(pose.values, dtype=np.float64)[order])
    commanded = [
        (int(at), value)
        for at, value in zip(gripper.stamps_ns, gripper.values, strict=True)
        if value is not None
    ]
    grippers = np.array([0.0, *(value for _, value in sorted(commanded))])
    held = np.searchsorted(
        np.array(sorted(at for at, _ in commanded), dtype=np.int64), stamps_ns, side="right"
    )
    intervals_s = np.diff(stamps_ns) / 1e9
    intervals_s[intervals_s > limits.max_gap_s] = 0.0  # nothing was commanded
    stops_s = [
        float(intervals_s[run.begin : run.end - 1].sum())
        for run in still_runs(join(positions, grippers[held]))
    ]
    still_s, whole_s = sum(s for s in stops_s if s >= NOTED_S), float(intervals_s.sum())
    if not still_s > _MUCH_STILL * whole_s:
        return []
    return [
        f"{still_s / whole_s:.0%} of the commands stand still ({still_s:.1f} of {whole_s:.1f} s): "
        "--set trim_still_s=0.5 keeps half a second of each stop"
    ]
