"""History of the last T_o frames, spaced by their stamps: complete, or none."""

from __future__ import annotations

from collections import deque

from dp_ros.schema import Horizons
from dp_ros.streams import Frame


class FrameHistory:
    """Frames of the current episode. A frame that is far in time from the one before it begins a new episode."""

    def __init__(self, horizons: Horizons, dt_ns: int, episode_gap_ns: int) -> None:
        self._T_o, self._dt_ns, self._gap_ns = horizons.T_o, dt_ns, episode_gap_ns
        self._frames: deque[Frame] = deque(maxlen=4 * horizons.T_o + 4)
        self._first: Frame | None = None
        self.newest_ns: int | None = None  # the newest stamp, also of lost frames

    def would_begin(self, frame: Frame) -> bool:
        """Whether a frame begins an episode: the first one, or one further than the gap from the newest stamp."""
        return self.newest_ns is None or abs(frame.stamp_ns - self.newest_ns) > self._gap_ns

    def lose(self, frame: Frame) -> bool:
        """Count a frame as lost: it leaves a hole, but its episode continues or begins. Whether it is newer."""
        if self.would_begin(frame):
            self.clear()
        if self.newest_ns is not None and frame.stamp_ns <= self.newest_ns:
            return False
        self.newest_ns = frame.stamp_ns
        return True

    def push(self, frame: Frame) -> bool:
        """Add a frame; True when it begins an episode. Frames not newer than the newest are ignored."""
        newest, begins = self.newest, self.would_begin(frame)
        if begins or newest is None:
            self._frames.clear()
            self._first = frame
        if begins or newest is None or frame.stamp_ns > newest.stamp_ns:
            self._frames.append(frame)
            lost_ns = None if begins else self.newest_ns
            self.newest_ns = max(frame.stamp_ns, lost_ns or frame.stamp_ns)
        return begins

    @property
    def newest(self) -> Frame | None:
        return self._frames[-1] if self._frames else None

    def window(self) -> list[Frame] | None:
        """T_o frames, oldest first, one control period apart, each within half a period of its due time.

        Frames due before the episode began repeat its first frame, as in training. None where a frame is missing: the
        policy was not trained on windows with holes.
        """
        if self.newest is None or self._first is None:
            return None
        window = []
        for back in reversed(range(self._T_o)):
            due_ns = self.newest.stamp_ns - back * self._dt_ns
            nearest = min(self._frames, key=lambda frame: abs(frame.stamp_ns - due_ns))
            if due_ns < self._first.stamp_ns:
                nearest = self._first
            elif not abs(nearest.stamp_ns - due_ns) <= self._dt_ns // 2:
                return None
            window.append(nearest)
        return window

    def clear(self) -> None:
        self._frames.clear()
        self._first = self.newest_ns = None
