"""Which samples make the frames and actions of a recorded episode: decided by the assembler of the live node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import join
from dp_ros.data.bags.audit import OTHER_CLOCK_S
from dp_ros.data.bags.reader import BagError
from dp_ros.poses import position_of
from dp_ros.ros.bags.episode import COMMANDS, EXPERT, BagEpisode, Track
from dp_ros.schema import ConvertConfig
from dp_ros.streams import FrameAssembler, Selection, Stream

_SPLIT_PERIODS = 1.5  # ticks further apart than this are not neighbours: no window may span the hole
_NAMED_REASONS = 3


@dataclass(frozen=True)
class Ticks:
    """The ticks of an episode at which all is there; row n of every array is the same tick."""

    stamps_ns: NDArray[np.int64]  # (N,)
    pictures: dict[str, NDArray[np.int64]]  # camera -> (N,) which of its topic's messages the picture is
    ee_pose: NDArray[np.float64]  # (N, 3) measured [m]
    gripper: NDArray[np.float64]  # (N,)
    action: NDArray[np.float64]  # (N, 4) the clean answer
    command: NDArray[np.float64]  # (N, 4) what moved the arm
    segment_ends: NDArray[np.int64]  # (S,): where a hole, or the end, follows

    def __len__(self) -> int:
        return len(self.stamps_ns)


def frames_of(episode: BagEpisode, config: ConvertConfig) -> Ticks:
    """The episode at the control rate. BagError where no tick has every stream.

    While a policy drove, its node said what each of its frames held: those frames are made again. All others are
    made by stamp.
    """
    assembler = _Assembler(episode, config)
    rows: list[tuple[Selection, NDArray[np.float64], NDArray[np.float64]]] = []
    lacking: Counter[str] = Counter()
    for stamp_ns, selection in assembler.selections():
        command = assembler.action(COMMANDS, stamp_ns)
        action = assembler.action(EXPERT, stamp_ns) if EXPERT[0] in episode.actions else command
        if selection is None:
            lacking.update(problem.partition(":")[0] for problem in assembler.frames.missing(stamp_ns))
        elif command is None or action is None:
            lacking["command" if command is None else "expert"] += 1
        else:
            rows.append((selection, action, command))
    if not rows:
        names = ", ".join(f"{name} at {count}" for name, count in lacking.most_common(_NAMED_REASONS))
        raise BagError(f"{episode.info.path}: no tick has every stream (missing: {names or 'all'})")
    selections = [selection for selection, _, _ in rows]
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
            np.stack([action for _, action, _ in rows]),
            np.stack([command for _, _, command in rows]),
            np.append(holes, len(rows)),
        ),
        max(2, round(config.audit.min_duration_s * 1e9 / assembler.dt_ns)),
        episode,
    )


class _Assembler:
    """The live assembler over a bag's tracks; a picture is represented by its number among its messages."""

    def __init__(self, episode: BagEpisode, config: ConvertConfig) -> None:
        self._episode, self._config, self._tracks = episode, config, episode.tracks
        self.dt_ns = round(1e9 / config.rate_hz)
        self._max_age_ns = 0 if episode.is_lockstep else round(config.max_age_s * 1e9)
        self.frames = FrameAssembler(tuple(episode.cameras), self._max_age_ns, capacity=None)
        self._streams: dict[str, Stream[NDArray[np.float64]]] = {
            name: Stream(None) for name in episode.actions
        }
        self._paired = {names: self._come_in_pairs(names) for names in (COMMANDS, EXPERT)}
        self._arrivals = self._in_order_of_arrival() if config.as_arrived else []
        self._arrived = 0
        if not config.as_arrived:
            for name, track in self._tracks.items():
                for index in range(len(track.stamps_ns)):
                    self._put(name, track, index)

    def selections(self) -> Iterator[tuple[int, Selection | None]]:
        """Every tick that may have all streams, with its samples or None."""
        said = {} if self._config.as_arrived else dict(self._episode.ages)
        said_ns = np.array(sorted(said), dtype=np.int64)
        if len(said_ns) > 1:
            self._check_rate(float(np.median(np.diff(said_ns))))
        grid_ns = self._grid_ns()
        if len(said_ns):
            after = np.searchsorted(said_ns, grid_ns)
            nearest = np.minimum(
                np.abs(said_ns[after.clip(0, len(said_ns) - 1)] - grid_ns),
                np.abs(grid_ns - said_ns[(after - 1).clip(0)]),
            )
            grid_ns = grid_ns[nearest >= self.dt_ns]
        for stamp_ns in np.sort(np.concatenate([grid_ns, said_ns])).tolist():
            if stamp_ns in said:
                yield stamp_ns, self._exactly(stamp_ns, said[stamp_ns])
            else:
                self._receive_until(stamp_ns)
                yield stamp_ns, self.frames.select(stamp_ns)

    def _grid_ns(self) -> NDArray[np.int64]:
        """The ticks, one period apart, at which the first camera has a picture that is not too old.

        Not every tick from first to last: a clock that was set may put years between them.
        """
        tracks = self._tracks.values()
        first = max(int(track.stamps_ns.min()) for track in tracks)
        last = min(int(track.stamps_ns.max()) for track in tracks)
        stamps = np.unique(next(iter(self._tracks.values())).stamps_ns)
        from_k = -((first - stamps) // self.dt_ns)  # rounded up
        to_k = (stamps + self._max_age_ns - first) // self.dt_ns
        ks = [np.arange(max(a, 0), b + 1) for a, b in zip(from_k, to_k, strict=True) if b >= max(a, 0)]
        grid = first + np.unique(np.concatenate([np.empty(0, np.int64), *ks])) * self.dt_ns
        return grid[grid <= last]

    def _check_rate(self, period_ns: float) -> None:
        if not abs(period_ns - self.dt_ns) < 0.1 * self.dt_ns:
            raise BagError(
                f"{self._episode.info.path}: the policy ran at {1e9 / period_ns:.1f} Hz, not at "
                f"{self._config.rate_hz:g}: give --rate"
            )

    def action(self, names: tuple[str, str], stamp_ns: int) -> NDArray[np.float64] | None:
        """(4,): the newest position and gripper command not after `stamp_ns`, neither too old; else None."""
        position, effort = (self._streams[name].at(stamp_ns) for name in names)
        if position is None or effort is None:
            return None
        if self._paired[names] and position.stamp_ns != effort.stamp_ns:  # one of the two was lost
            return None
        oldest_ns = min(position.stamp_ns, effort.stamp_ns)
        holds = self._config.hold_commands or stamp_ns - oldest_ns <= self._max_age_ns
        action = join(position.value, effort.value)
        return action if holds and np.isfinite(action).all() else None

    def _come_in_pairs(self, names: tuple[str, str]) -> bool:
        """Whether position and gripper of a command bear one stamp, as ours do."""
        if not set(names) <= self._tracks.keys():
            return False
        position, gripper = (np.unique(self._tracks[name].stamps_ns) for name in names)
        return len(np.intersect1d(position, gripper)) > 0.5 * max(len(position), len(gripper))

    def _put(self, name: str, track: Track, index: int) -> None:
        stamp_ns = int(track.stamps_ns[index])
        if name in self._streams:
            self._streams[name].put(stamp_ns, track.values[index])
        else:
            self.frames.streams()[name].put(stamp_ns, track.values[index])

    def _exactly(self, tick_ns: int, stamps: dict[str, int]) -> Selection | None:
        """The very samples that the node's frame held; None where one of them is not in the bag.

        Of a stream that the policy did not look at, the sample by stamp.
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
        """(received [ns], name of the track, index in it) of all messages."""
        for name, track in self._tracks.items():
            latency_s = float(np.median(track.received_ns - track.stamps_ns)) / 1e9
            if not abs(latency_s) < OTHER_CLOCK_S:
                raise BagError(
                    f"{self._episode.info.path}: {name} is stamped by another clock than it was received by, so what "
                    "had arrived when is not known: leave --as-arrived out"
                )
        return sorted(
            (int(received_ns), name, index)
            for name, track in self._tracks.items()
            for index, received_ns in enumerate(track.received_ns)
        )

    def _receive_until(self, stamp_ns: int) -> None:
        while self._arrived < len(self._arrivals) and self._arrivals[self._arrived][0] <= stamp_ns:
            _, name, index = self._arrivals[self._arrived]
            self._put(name, self._tracks[name], index)
            self._arrived += 1


def _without_short(ticks: Ticks, at_least: int, episode: BagEpisode) -> Ticks:
    """Without the pieces between two holes that are too short to learn from."""
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
        np.cumsum(lengths[lengths >= at_least]),
    )
