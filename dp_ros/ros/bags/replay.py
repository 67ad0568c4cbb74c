"""Replay of a bag: the commands of a recorded policy, computed again from what it was given. Works without ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import OPEN_TO_CLOSED, to_range
from dp_ros.control.replay import LackingError, Replay
from dp_ros.control.safety import Command
from dp_ros.control.tick_log import TickError, TickRecord
from dp_ros.data.bags.reader import BagError, BagReader
from dp_ros.evaluation.replay import ReplayScore, tolerance
from dp_ros.inference.engine import choose_engine, load_engine
from dp_ros.inference.session import PolicySession, PolicySessionError, machine
from dp_ros.pictures import ImageSizeError
from dp_ros.policy.checkpoint_config import OOD, WEIGHTS, policy_config, read_config
from dp_ros.ros.bags.messages import decode
from dp_ros.ros.messages import conversions, images
from dp_ros.ros.messages.gripper_reader import GripperCommandReader, GripperReader
from dp_ros.schema import PolicyConfig, RuntimeConfig, TopicMap
from dp_ros.streams import Frame, Sample, Selection, to_frame

SESSION, TICKS = "policy/session", "policy/ticks"
_LATE_NS = 5_000_000_000  # a picture may be received this much after the tick that used it
HOW = (
    "record with `ros2 launch dp_ros record.launch.py`, which records all that a replay needs, and begin before the "
    "policy is activated or its episode begins"
)


def replay_bag(
    path: Path,
    checkpoint: Path,
    topics: TopicMap,
    changes: dict[str, Any],
    on_tick: Callable[[int, int], None] = lambda done, total: None,
) -> ReplayScore:
    """Compare the commands of a bag with those that `checkpoint` gives now.

    changes: settings of the engine in place of the recorded ones. on_tick(done, total) is told the progress.
    BagError, in one line, where the bag lacks what a replay needs, or is of other weights.
    """
    with BagReader(path) as bag:
        recorded = _Recorded(bag, topics)
    session = recorded.session
    _check_weights(path, session, checkpoint)
    policy = policy_config(checkpoint)
    runtime, _ = choose_engine(checkpoint, session.runtime.model_copy(update=changes))
    engine = load_engine(checkpoint, runtime)
    is_exact = runtime == session.runtime and machine() == session.machine
    allowed = (0.0, 0.0) if is_exact else tolerance(runtime.precision, session.runtime.precision)
    name = f"{runtime.engine} {runtime.precision}"
    score = ReplayScore(str(path), session.runtime.mode, name, is_exact, *allowed)
    source = _Frames(path, policy, session.runtime, topics, recorded)
    replay = Replay(policy, session.runtime, session.is_reset_by_time, engine)
    for done, (record, received_ns) in enumerate(recorded.ticks):
        source.received_ns = received_ns
        command = replay.apply(record, source.frame, source.pose)
        if replay.why_not:
            score.skip(replay.why_not)
        elif record.kind in ("tick", "between", "hold") and not (command is None and record.is_undecided):
            found = recorded.commands.get(record.stamp_ns, _Heard())
            is_after_end = record.stamp_ns > recorded.last_command_ns
            if command is not None:
                command = replace(command, gripper=recorded.as_sent(command.gripper))
            if command is not None or found.pose is not None:
                _compare(score, record, command, found, is_after_end)
        on_tick(done + 1, len(recorded.ticks))
    score.plans = replay.plans
    if not score.compared:
        why = next(iter(score.skipped), "no command was published")
        raise BagError(f"{path}: no command can be replayed ({why}): {HOW}")
    return score


def _check_weights(path: Path, session: PolicySession, checkpoint: Path) -> None:
    ours = read_config(checkpoint)["sha256"]
    is_needed = {**dict.fromkeys(session.sha256, True), OOD: bool(session.runtime.gate.max_ood_score)}
    differ = [n for n, digest in session.sha256.items() if is_needed[n] and ours.get(n) != digest]
    if differ:
        name = WEIGHTS if WEIGHTS in differ else differ[0]
        raise BagError(
            f"{path}: was recorded with {session.checkpoint}, {name} {session.sha256[name][:12]}; {checkpoint} has "
            f"{str(ours.get(name, 'none'))[:12]}: give the checkpoint that was served, with --checkpoint"
        )


@dataclass
class _Heard:
    """The messages of one command's stamp."""

    pose: NDArray[np.float64] | None = None  # (7,)
    gripper: float | None = None


def _compare(
    score: ReplayScore, record: TickRecord, command: Command | None, found: _Heard, is_after_end: bool
) -> None:
    if command is None:
        score.differ(record.stamp_ns, "the bag has a command, the replay gives none")
    elif found.pose is None:
        if not is_after_end:
            score.differ(record.stamp_ns, "the replay gives a command, the bag has none")
    else:
        pose = np.concatenate([command.position_m, command.orientation])
        score.compare(record.stamp_ns, found.pose, pose, found.gripper, command.gripper)


class _Recorded:
    """All of a bag but its pictures."""

    def __init__(self, bag: BagReader, topics: TopicMap) -> None:
        self._path, self._info = bag.path, bag.info
        field, self._range = topics.command_gripper_field, topics.command_gripper_range
        self._grippers = GripperCommandReader(topics.command_gripper_joint, field, self._range)
        names = {name: topics.absolute(topic) for name, topic in _needed(topics).items()}
        for name, topic in names.items():
            if not self._info.topics.get(topic, ("", 0))[1] and name != "command/gripper":
                raise BagError(f"{bag.path}: has no messages on {topic} ({_PURPOSE[name]}): {HOW}")
        self.ticks: list[tuple[TickRecord, int]] = []  # with the time of receipt
        self.poses: dict[int, NDArray[np.float64]] = {}  # stamp -> (7,) measured
        self.openings: dict[int, Any] = {}  # stamp -> message
        self.commands: dict[int, _Heard] = {}
        sessions: list[tuple[int, PolicySession]] = []  # with the number of ticks before
        kinds = {topic: name for name, topic in names.items()}
        for topic, received_ns, data in bag.messages(names.values()):
            msg = decode(data, self._info.topics[topic][0], topic, bag.path)
            name = kinds[topic]
            try:
                if name == SESSION:
                    sessions.append((len(self.ticks), PolicySession.from_json(msg.data)))
                elif name == TICKS:
                    self.ticks.append((TickRecord.from_json(msg.data), received_ns))
                else:
                    self._put(name, msg)
            except (TickError, PolicySessionError) as error:
                raise BagError(f"{bag.path}: {topic}: {error}") from None
        self.session = self._only(sessions)
        self.last_command_ns = max(self.commands, default=0)

    def _put(self, name: str, msg: Any) -> None:
        stamp_ns = conversions.stamp_to_ns(msg.header.stamp)
        if name == "ee_pose":
            try:
                self.poses[stamp_ns] = conversions.pose_to_vector(msg)
            except conversions.ConversionError:  # the node refused it, too
                return
        elif name == "gripper/state":
            self.openings[stamp_ns] = msg
        elif name == "command/ee_pose":
            q = msg.pose.orientation
            pose = [*conversions.pose_to_position(msg), q.x, q.y, q.z, q.w]
            self.commands.setdefault(stamp_ns, _Heard()).pose = np.array(pose)
        elif self._grippers.is_of_gripper(msg) and (value := self._grippers.read(msg)) is not None:
            self.commands.setdefault(stamp_ns, _Heard()).gripper = value

    def as_sent(self, gripper: float | None) -> float | None:
        """A gripper command after its way to the robot's range and back, with the same rounding as a recorded one."""
        if gripper is None:
            return None
        sent = float(to_range(gripper, OPEN_TO_CLOSED, self._range))
        return float(to_range(sent, self._range, OPEN_TO_CLOSED))

    def _only(self, sessions: list[tuple[int, PolicySession]]) -> PolicySession:
        """The session of the ticks. Latched messages from before the first tick are ignored."""
        before = [session for ticks, session in sessions if not ticks]
        during = [session for ticks, session in sessions if ticks]
        if before:
            during.insert(0, before[-1])
        if any(session != during[0] for session in during):
            raise BagError(
                f"{self._path}: the policy was configured again within the bag: record one bag for each configuration"
            )
        return during[0]


_PURPOSE = {
    SESSION: "checkpoint, engine and seed of the policy",
    TICKS: "when the policy planned, and from which samples",
    "ee_pose": "measured pose",
    "gripper/state": "measured gripper",
    "command/ee_pose": "commands",
    "command/gripper": "commands of the gripper",
}


def _needed(topics: TopicMap) -> dict[str, str]:
    """Topic by our name -> topic of this map."""
    mapped = {
        "ee_pose": topics.ee_pose,
        "gripper/state": topics.gripper,
        "command/ee_pose": topics.command_pose,
        "command/gripper": topics.command_gripper,
    }
    return {name: mapped.get(name, name) for name in _PURPOSE}


class _Frames:
    """Frames of the ticks. Pictures are read once, in the order of the bag; those that a later tick needs are kept."""

    def __init__(
        self, path: Path, policy: PolicyConfig, runtime: RuntimeConfig, topics: TopicMap, recorded: _Recorded
    ) -> None:
        self._path, self._encoder, self._runtime, self._recorded = path, policy.encoder, runtime, recorded
        self.received_ns = 0  # of the tick that is replayed
        suffix = "/compressed" if runtime.image_transport == "compressed" else ""
        default = f"camera/{{}}/image_raw{suffix}"
        self._topics = {
            topics.absolute(topics.cameras.get(camera, default.format(camera))): camera
            for camera in policy.encoder.cameras
        }
        self._last_use: dict[tuple[str, int], int] = {}  # (camera, stamp) -> number of the last tick
        for record, _ in recorded.ticks:
            for camera in policy.encoder.cameras if record.samples_ns else ():
                stamp_ns = (record.samples_ns or {}).get(f"camera {camera}")
                if stamp_ns is not None:
                    self._last_use[camera, stamp_ns] = record.number
        self._pictures: dict[tuple[str, int], NDArray[np.uint8]] = {}
        self._messages = self._read()
        self._next: tuple[str, int, Any, int] | None = None

    def pose(self, stamp_ns: int) -> NDArray[np.float64]:
        """The measured pose (7,). LackingError."""
        if stamp_ns not in self._recorded.poses:
            raise LackingError(
                f"a pose that the policy knew is not in the bag (stamp {stamp_ns / 1e9:.3f} s)"
            )
        return self._recorded.poses[stamp_ns]

    def frame(self, record: TickRecord) -> Frame | None:
        """The frame that was observed; None where none was. LackingError."""
        stamps = record.samples_ns
        if stamps is None:
            return None
        times_ns = {name: record.time_ns(stamp_ns, name) for name, stamp_ns in stamps.items()}
        pictures = [
            Sample(times_ns[f"camera {camera}"], self._picture(camera, stamps[f"camera {camera}"]))
            for camera in self._encoder.cameras
        ]
        pose = Sample(times_ns["ee_pose"], self.pose(stamps["ee_pose"]))
        opening = Sample(times_ns["gripper"], self._opening(stamps["gripper"]))
        used = [key for key in self._pictures if self._last_use[key] <= record.number]
        for key in used:
            del self._pictures[key]
        time_ns = record.time_ns(record.stamp_ns)
        return to_frame(Selection(time_ns, tuple(pictures), pose, opening))

    def _opening(self, stamp_ns: int) -> float:
        msg = self._recorded.openings.get(stamp_ns)
        reader = GripperReader(self._runtime.gripper_joint, self._runtime.gripper_range)
        opening = reader.read(msg) if msg is not None else None
        if opening is None:
            raise LackingError("a gripper state that the policy knew is not in the bag")
        return opening

    def _picture(self, camera: str, stamp_ns: int) -> NDArray[np.uint8]:
        while (camera, stamp_ns) not in self._pictures:
            self._next = self._next or next(self._messages, None)
            if self._next is None or self._next[3] > self.received_ns + _LATE_NS:
                raise LackingError(
                    f"a picture of camera {camera} that the policy knew is not in the bag (stamp "
                    f"{stamp_ns / 1e9:.3f} s)"
                )
            found, found_ns, msg, _ = self._next
            self._next = None
            if (found, found_ns) in self._last_use:
                try:
                    target = self._encoder.target(found)
                    self._pictures[found, found_ns] = images.to_picture(msg, found, target)
                except (conversions.ConversionError, ImageSizeError):  # the node refused it, too
                    continue
        return self._pictures[camera, stamp_ns]

    def _read(self) -> Iterator[tuple[str, int, Any, int]]:
        """(camera, stamp, message, time of receipt) of all pictures."""
        with BagReader(self._path) as bag:
            for topic in self._topics:
                if topic not in bag.info.topics:
                    raise BagError(f"{self._path}: has no messages on {topic} (pictures): {HOW}")
            for topic, received_ns, data in bag.messages(self._topics):
                msg = decode(data, bag.info.topics[topic][0], topic, self._path)
                yield self._topics[topic], conversions.stamp_to_ns(msg.header.stamp), msg, received_ns
