"""Content of a bag for its page: pictures of each camera, motion, gripper, verdicts, audit. Works without ROS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dp_ros.data.bags.audit import EpisodeAudit
from dp_ros.data.bags.reader import BagReader
from dp_ros.evaluation.report.bag_page import BagPage, Series, StreamRow
from dp_ros.poses import position_of
from dp_ros.ros.bags.check import check
from dp_ros.ros.bags.episode import BagEpisode, RecordedStream
from dp_ros.ros.bags.episode_reader import read_episode
from dp_ros.ros.bags.messages import decode
from dp_ros.schema import AuditConfig, Target, TopicMap

_VERDICT, _STRING = "policy/verdict", "std_msgs/msg/String"


def bag_page(path: Path, topics: TopicMap, limits: AuditConfig, pictures: int) -> BagPage:
    """The page of one bag, with so many pictures of each camera. BagError as in `read_episode`."""
    episode = read_episode(path, topics)
    audit = check(episode, limits)
    begin_ns = min(int(stream.stamps_ns.min()) for stream in episode.streams.values() if len(stream))
    commands, gripper = episode.actions.get("command_pose"), episode.actions.get("command_gripper")
    return BagPage(
        title=f"Bag {episode.info.name}",
        facts=_facts(episode, audit),
        reasons=audit.reasons,
        notes=audit.notes,
        cameras=_sheets(episode, begin_ns, pictures),
        measured_m=_positions(episode.ee_pose, begin_ns),
        commanded_m=_positions(commands, begin_ns) if commands else None,
        opening=_series(episode.gripper, begin_ns),
        gripper_command=_series(gripper, begin_ns) if gripper and _commanded(gripper) else None,
        verdicts=_verdicts(path, topics, begin_ns, _clock_offset_ns(episode)),
        streams=_rows(episode, audit),
        intervals={
            name: ((stream.stamps_ns[1:] - begin_ns) / 1e9, np.diff(stream.stamps_ns) / 1e6)
            for name, stream in episode.streams.items()
            if len(stream) > 1
        },
    )


def _facts(episode: BagEpisode, audit: EpisodeAudit) -> list[tuple[str, str]]:
    info = episode.info
    facts = [
        ("outcome", info.outcome or "unknown: label it with `dp_ros bag label`"),
        ("duration", f"{audit.duration_s:.2f} s that all streams cover"),
        ("messages", str(info.messages)),
        ("frame", ", ".join(episode.ee_pose.frame_ids)),
        *(
            (f"camera {camera}", f"{width}x{height} px")
            for camera, (height, width) in sorted(episode.sizes.items())
        ),
    ]
    return facts + [(key, value) for key, value in sorted(info.custom.items()) if key != "outcome" and value]


def _sheets(
    episode: BagEpisode, begin_ns: int, count: int
) -> dict[str, list[tuple[float, NDArray[np.uint8]]]]:
    """Pictures of each camera, evenly spread over its recording, as recorded."""
    chosen: dict[str, dict[int, float]] = {}
    for camera, stream in episode.cameras.items():
        rows = np.unique(np.linspace(0, len(stream) - 1, count).round().astype(int))
        chosen[camera] = {stream.values[row]: (int(stream.stamps_ns[row]) - begin_ns) / 1e9 for row in rows}
    targets = {camera: Target(*size) for camera, size in episode.sizes.items()}
    sheets: dict[str, list[tuple[float, NDArray[np.uint8]]]] = {camera: [] for camera in episode.cameras}
    for camera, number, rgb in episode.pictures.read(
        lambda camera, number: number in chosen[camera], targets
    ):
        sheets[camera].append((chosen[camera][number], rgb))
    return sheets


def _positions(stream: RecordedStream, begin_ns: int) -> Series:
    order = np.argsort(stream.stamps_ns, kind="stable")
    values = position_of(np.array(stream.values, dtype=np.float64)[order])
    return (stream.stamps_ns[order] - begin_ns) / 1e9, values


def _commanded(stream: RecordedStream) -> bool:
    return any(value is not None for value in stream.values)


def _series(stream: RecordedStream, begin_ns: int) -> Series:
    """Without the messages that hold no value."""
    rows = sorted(
        (int(at), value)
        for at, value in zip(stream.stamps_ns, stream.values, strict=True)
        if value is not None
    )
    at_ns, values = (
        np.array([at for at, _ in rows], dtype=np.int64),
        np.array([value for _, value in rows], float),
    )
    return (at_ns - begin_ns) / 1e9, values


def _clock_offset_ns(episode: BagEpisode) -> int:
    """From the stamps to the times of receipt: a verdict has no stamp, and a simulation has another clock."""
    return int(np.median(episode.ee_pose.received_ns - episode.ee_pose.stamps_ns))


def _verdicts(path: Path, topics: TopicMap, begin_ns: int, offset_ns: int) -> list[tuple[float, str]]:
    """(time [s] of the stamps' clock, verdict) of the policy node; empty where a person drove."""
    topic = topics.absolute(_VERDICT)
    with BagReader(path) as bag:
        if bag.info.topics.get(topic, ("", 0))[0] != _STRING:
            return []
        return [
            ((received_ns - offset_ns - begin_ns) / 1e9, str(decode(data, _STRING, topic, path).data))
            for _, received_ns, data in bag.messages([topic])
        ]


def _rows(episode: BagEpisode, audit: EpisodeAudit) -> list[StreamRow]:
    return [
        StreamRow(
            name=name,
            topic=episode.streams[name].topic,
            messages=stream.messages,
            rate=f"{stream.rate_hz:.1f} Hz",
            longest_gap=f"{stream.max_gap_s * 1e3:.1f} ms",
            jitter=f"{stream.jitter_s * 1e3:.1f} ms",
            missing=stream.missing,
            latency="other clock" if stream.latency_p50_s is None else f"{stream.latency_p50_s * 1e3:.1f} ms",
        )
        for name, stream in audit.streams.items()
    ]
