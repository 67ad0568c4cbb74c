"""Frames and actions of a recorded episode at the control rate, chosen by the live node's `FrameAssembler`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import join, opening_to_command
from dp_ros.data.bags.audit import BEGIN_LATE, OTHER_CLOCK_S
from dp_ros.data.bags.pose_audit import frame_faults
from dp_ros.data.bags.reader import BagError
from dp_ros.data.bags.still import rows_to_keep
from dp_ros.poses import position_of
from dp_ros.ros.bags.check import recorded_poses
from dp_ros.ros.bags.episode import COMMANDS, EXPERT, BagEpisode
from dp_ros.ros.bags.rate import recorded_rate
from dp_ros.schema import ConvertConfig
from dp_ros.streams import FrameAssembler, Selection, Stream

_SPLIT_PERIODS = 1.5  # ticks further apart than this are not neighbours: no window may span the hole
_NAMED_REASONS = 3


@dataclass(frozen=True)
class Ticks:
    """The ticks of an episode at which every stream has a sample; row n of every array is the same tick."""

    stamps_ns: NDArray[np.int64]  # (N,)
    pictures: dict[str, NDArray[np.int64]]  # camera -> (N,) number of the picture among its topic's messages
    ee_pose: NDArray[np.float64]  # (N, 3) measured position [m]
    gripper: NDArray[np.float64]  # (N,) measured opening
    action: NDArray[np.float64]  # (N, ACTION_DIM) labels
    command: NDArray[np.float64]  # (N, ACTION_DIM) executed commands
    label_ns: NDArray[np.int64]  # (N,) stamp of the commanded position that is the label
    segment_ends: NDArray[np.int64]  # (S,) rows after which a hole, or the end, follows
    trimmed: int = 0  # ticks of standing still that were left out

    def __len__(self) -> int:
        return len(self.stamps_ns)

    @property
    def repeats(self) -> dict[str, float]:
        """Stream -> share of the ticks that hold the same sample as the tick before."""
        samples = {f"camera {camera}": numbers for camera, numbers in self.pictures.items()}
        samples["action"] = self.label_ns
        return {
            name: float(np.mean(np.diff(each) == 0)) if len(self) > 1 else 0.0
            for name, each in samples.items()
        }


def frames_of(episode: BagEpisode, config: ConvertConfig) -> Ticks:
    """The episode at the control rate. BagError where no tick has every stream, or where poses are in several frames.

    Without a rate in the configuration, the episode's own rate is taken.
    While a policy drove, its node published which samples each of its frames held: these frames are rebuilt from the
    same samples. All other frames are selected by stamp.
    """
    if faults := frame_faults(recorded_poses(episode)):
        raise BagError(f"{episode.info.path}: {'; '.join(faults)}: record all poses in one frame")
    rate_hz = config.rate_hz or recorded_rate(episode, config.hold_commands).hz
    assembler = _Assembler(episode, config.model_copy(update={"rate_hz": rate_hz}))
    label = EXPERT if EXPERT[0] in episode.actions else COMMANDS
    rows: list[tuple[Selection, NDArray[np.float64], NDArray[np.float64], int]] = []
    lacking: Counter[str] = Counter()
    for stamp_ns, selection in assembler.selections():
        if selection is None:
            lacking.update(problem.partition(":")[0] for problem in assembler.frames.missing(stamp_ns))
            continue
        command = assembler.action(COMMANDS, selection)
        action = assembler.action(EXPERT, selection) if label == EXPERT else command
        if command is None or action is None:
            lacking["command" if command is None else "expert"] += 1
        else:
            rows.append((selection, action, command, assembler.commanded_ns(label, selection)))
    if not rows:
        names = ", ".join(f"{name} at {count}" for name, count in lacking.most_common(_NAMED_REASONS))
        raise BagError(f"{episode.info.path}: no tick has every stream (missing: {names or 'all'})")
    found = len(rows)
    if config.trim_still_s:
        measured = [join(position_of(s.ee_pose.value), s.gripper.value) for s, *_ in rows]
        labels = [action for _, action, *_ in rows]
        kept = rows_to_keep(
            np.concatenate([measured, labels], axis=1), max(1, round(config.trim_still_s * rate_hz))
        )
        rows = [row for row, keep in zip(rows, kept, strict=True) if keep]
    selections = [selection for selection, *_ in rows]
    stamps_ns = np.array([selection.stamp_ns for selection in selections], dtype=np.int64)
    holes = np.flatnonzero(np.diff(stamps_ns) > _SPLIT_PERIODS * assembler.dt_ns) + 1
    return _without_short(
        Ticks(
            stamps_ns,
            {
                camera: np.array([s.pictures[view].value for s in selections], dtype=np.int64)
                for view, camera in enumerate(episode.cameras)
            },
            np.stack([position_of(s.ee_pose.value) for s in selections]),
            np.array([s.gripper.value for s in selections]),
            np.stack([action for _, action, _, _ in rows]),
            np.stack([command for _, _, command, _ in rows]),
            np.array([label_ns for *_, label_ns in rows], dtype=np.int64),
            np.append(holes, len(rows)),
            found - len(rows),
        ),
        max(2, round(config.audit.min_duration_s * 1e9 / assembler.dt_ns)),
        episode,
    )


class _Assembler:
    """The live assembler on recorded streams; a picture is represented by its number."""

    def __init__(self, episode: BagEpisode, config: ConvertConfig) -> None:
        self._path, self._config = episode.info.path, config
        self._node_stamps = {} if config.as_arrived else episode.node_stamps
        self._recorded = {name: stream for name, stream in episode.streams.items() if len(stream)}
        self.dt_ns = round(1e9 / config.rate_hz)
        self._max_age_ns = 0 if episode.is_lockstep else round(config.max_age_s * 1e9)
        self.frames = FrameAssembler(tuple(episode.cameras), self._max_age_ns, capacity=None)
        self._actions: dict[str, Stream[NDArray[np.float64] | float | None]] = {
            name: Stream(None) for name in episode.actions
        }
        # Without the messages that do not command the gripper.
        self._gripper_commands: dict[str, Stream[float]] = {
            gripper: Stream(None) for _, gripper in (COMMANDS, EXPERT) if gripper in episode.actions
        }
        self._begins_ns = {name: int(s.stamps_ns.min()) for name, s in self._recorded.items()}
        self._paired = {names: self._come_in_pairs(*names) for names in (COMMANDS, EXPERT)}
        self._arrivals = self._in_order_of_arrival() if config.as_arrived else []
        self._arrived = 0
        if not config.as_arrived:
            for name, stream in self._recorded.items():
                for index in range(len(stream)):
                    self._put(name, index)

    def selections(self) -> Iterator[tuple[int, Selection | None]]:
        """Every tick that may have all streams, with its samples or None."""
        node_ns = np.array(sorted(self._node_stamps), dtype=np.int64)
        if len(node_ns) > 1:
            self._check_rate(float(np.median(np.diff(node_ns))))
        grid_ns = self._grid_ns()
        if len(node_ns):
            after = np.searchsorted(node_ns, grid_ns)
            nearest = np.minimum(
                np.abs(node_ns[after.clip(0, len(node_ns) - 1)] - grid_ns),
                np.abs(grid_ns - node_ns[(after - 1).clip(0)]),
            )
            grid_ns = grid_ns[nearest >= self.dt_ns]
        for stamp_ns in np.sort(np.concatenate([grid_ns, node_ns])).tolist():
            if stamp_ns in self._node_stamps:
                yield stamp_ns, self._exactly(stamp_ns, self._node_stamps[stamp_ns])
            else:
                self._receive_until(stamp_ns)
                yield stamp_ns, self.frames.select(stamp_ns)

    def _grid_ns(self) -> NDArray[np.int64]:
        """The ticks, one period apart, at which the first camera has a picture that is not too old.

        Not every tick from first to last: a clock that was set may put years between them.
        """
        streams = self._recorded
        first = max(begin_ns for name, begin_ns in self._begins_ns.items() if name not in BEGIN_LATE)
        last = min(int(stream.stamps_ns.max()) for stream in streams.values())
        stamps = np.unique(next(iter(streams.values())).stamps_ns)
        from_k = -((first - stamps) // self.dt_ns)  # rounded up
        to_k = (stamps + self._max_age_ns - first) // self.dt_ns
        ks = [np.arange(max(a, 0), b + 1) for a, b in zip(from_k, to_k, strict=True) if b >= max(a, 0)]
        grid = first + np.unique(np.concatenate([np.empty(0, np.int64), *ks])) * self.dt_ns
        return grid[grid <= last]

    def _check_rate(self, period_ns: float) -> None:
        if not abs(period_ns - self.dt_ns) < 0.1 * self.dt_ns:
            raise BagError(
                f"{self._path}: the policy ran at {1e9 / period_ns:.1f} Hz, not at {self._config.rate_hz:g}: "
                "give --rate"
            )

    def action(self, names: tuple[str, str], selection: Selection) -> NDArray[np.float64] | None:
        """(ACTION_DIM,): the newest commanded position and gripper at the frame's tick; None where one is too old.

        A gripper that is not commanded keeps its last command. Before its first command, its measured opening is taken.
        """
        pose, gripper = (self._actions[name].at(selection.stamp_ns) for name in names)
        if pose is None:
            return None
        oldest_ns = pose.stamp_ns
        if gripper is not None:
            if self._paired[names] and pose.stamp_ns != gripper.stamp_ns:  # one of the two was lost
                return None
            oldest_ns = min(oldest_ns, gripper.stamp_ns)
        elif oldest_ns >= self._begins_ns.get(names[1], oldest_ns + 1):  # its message has not arrived yet
            return None
        if not (self._config.hold_commands or selection.stamp_ns - oldest_ns <= self._max_age_ns):
            return None
        commanded = self._gripper_commands[names[1]].at(selection.stamp_ns)
        closing = commanded.value if commanded else opening_to_command(selection.gripper.value)
        action = join(position_of(pose.value), closing)
        return action if np.isfinite(action).all() else None

    def commanded_ns(self, names: tuple[str, str], selection: Selection) -> int:
        """Stamp of the commanded position at the frame's tick, where `action` has found one."""
        pose = self._actions[names[0]].at(selection.stamp_ns)
        assert pose is not None
        return pose.stamp_ns

    def _come_in_pairs(self, pose: str, gripper: str) -> bool:
        """Whether position and gripper of a command have one stamp, as ours have; from the first gripper command on."""
        if not {pose, gripper} <= self._recorded.keys():
            return False
        poses_ns, grippers_ns = (np.unique(self._recorded[name].stamps_ns) for name in (pose, gripper))
        poses_ns = poses_ns[poses_ns >= grippers_ns[0]]
        return len(np.intersect1d(poses_ns, grippers_ns)) > 0.5 * max(len(poses_ns), len(grippers_ns))

    def _put(self, name: str, index: int) -> None:
        stamp_ns, value = int(self._recorded[name].stamps_ns[index]), self._recorded[name].values[index]
        if name not in self._actions:
            self.frames.streams()[name].put(stamp_ns, value)
            return
        self._actions[name].put(stamp_ns, value)
        if name in self._gripper_commands and value is not None:
            self._gripper_commands[name].put(stamp_ns, value)

    def _exactly(self, tick_ns: int, stamps: dict[str, int]) -> Selection | None:
        """The samples that the node's frame held; None where the bag lacks one of them.

        A stream that the policy does not observe gives its sample by stamp.
        """
        samples = []
        for name, stream in self.frames.streams().items():
            sample = stream.at(stamps.get(name, tick_ns))
            oldest_ns = stamps.get(name, tick_ns - self._max_age_ns)
            if sample is None or sample.stamp_ns < oldest_ns or not np.isfinite(sample.value).all():
                return None
            samples.append(sample)
        *pictures, pose, gripper = samples
        return Selection(tick_ns, tuple(pictures), pose, gripper)

    def _in_order_of_arrival(self) -> list[tuple[int, str, int]]:
        """(received [ns], stream, index in it) of all messages."""
        for name, stream in self._recorded.items():
            latency_s = float(np.median(stream.received_ns - stream.stamps_ns)) / 1e9
            if not abs(latency_s) < OTHER_CLOCK_S:
                raise BagError(
                    f"{self._path}: {name} is stamped by another clock than the recorder's, so the order of arrival is "
                    "not known: leave --as-arrived out"
                )
        return sorted(
            (int(received_ns), name, index)
            for name, stream in self._recorded.items()
            for index, received_ns in enumerate(stream.received_ns)
        )

    def _receive_until(self, stamp_ns: int) -> None:
        while self._arrived < len(self._arrivals) and self._arrivals[self._arrived][0] <= stamp_ns:
            _, name, index = self._arrivals[self._arrived]
            self._put(name, index)
            self._arrived += 1


def _without_short(ticks: Ticks, at_least: int, episode: BagEpisode) -> Ticks:
    """Without the segments between two holes that are too short to learn from."""
    starts = np.concatenate([[0], ticks.segment_ends[:-1]])
    lengths = ticks.segment_ends - starts
    kept = np.repeat(lengths >= at_least, lengths)
    if kept.all():
        return ticks
    if not kept.any():
        raise BagError(
            f"{episode.info.path}: no {at_least} ticks in a row have every stream; see `dp_ros bag check`"
        )
    return Ticks(
        ticks.stamps_ns[kept],
        {camera: rows[kept] for camera, rows in ticks.pictures.items()},
        ticks.ee_pose[kept],
        ticks.gripper[kept],
        ticks.action[kept],
        ticks.command[kept],
        ticks.label_ns[kept],
        np.cumsum(lengths[lengths >= at_least]),
        ticks.trimmed,
    )
