"""Health of a policy's inputs over the last seconds: rate and age of each stream, refused messages, ticks without a
frame, and warnings before the arm holds."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

import numpy as np

from dp_ros.streams import Selection

WINDOW_S = 5.0
_LEAST_S = 1.0  # in less, nothing is judged
OLD_SHARE = 0.8  # of the oldest observation that is allowed: an age above it is warned of
LOST_SHARE = 0.02  # of the ticks without a frame
LATE_SHARE = 0.8  # of the time that a chunk reaches


class InputHealth:
    """Counters of one policy node. Streams have the names of `FrameAssembler.streams`."""

    def __init__(self, streams: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        """clock: a steady one [s]."""
        self._clock = clock
        self._streams = tuple(streams)
        self.refused: Counter[str] = Counter()  # messages that could not be used, since the start
        self.clear()

    def clear(self) -> None:
        """Forget the last seconds."""
        self._began_s = self._clock()
        self._arrived: dict[str, deque[float]] = {name: deque() for name in self._streams}
        self._refused: deque[tuple[float, str]] = deque()
        self._ticks: deque[tuple[float, tuple[float, ...] | None]] = deque()  # ages [s], None without a frame

    def arrive(self, stream: str) -> None:
        """Count a message that can be used."""
        self._arrived[stream].append(self._clock())

    def refuse(self, stream: str) -> None:
        """Count a message that cannot be used."""
        self.refused[stream] += 1
        self._refused.append((self._clock(), stream))

    def tick(self, selection: Selection | None) -> None:
        """Note the samples of a tick's frame; None where a stream had none that is fresh enough."""
        ages_s = None
        if selection is not None:
            ages_s = tuple((selection.stamp_ns - sample.stamp_ns) / 1e9 for sample in selection.samples)
        self._ticks.append((self._clock(), ages_s))
        self._drop_old()

    def values(self) -> dict[str, str]:
        """For diagnostics."""
        self._drop_old()
        window_s = max(self._passed_s, 1e-9)
        found = self._ages_ms()
        values = {}
        for i, name in enumerate(self._streams):
            values[f"{name} rate_hz"] = f"{len(self._arrived[name]) / window_s:.1f}"
            p50, p99 = np.percentile(found[:, i], (50, 99)) if len(found) else (np.nan, np.nan)
            values |= {f"{name} age_ms_p50": f"{p50:.1f}", f"{name} age_ms_p99": f"{p99:.1f}"}
            values[f"{name} refused"] = str(self.refused[name])
        return values | {"ticks_without_frame": f"{self._lost} of {len(self._ticks)}"}

    def warnings(self, max_age_s: float) -> list[str]:
        """Streams that will soon make the arm hold, one line each. max_age_s: oldest observation allowed; 0: any."""
        self._drop_old()
        lines = [
            f"{name}: {count} messages in {WINDOW_S:g} s could not be used"
            for name, count in sorted(Counter(name for _, name in self._refused).items())
        ]
        if self._passed_s < _LEAST_S:
            return lines
        if self._lost > LOST_SHARE * len(self._ticks):
            lines.append(f"{self._lost} of {len(self._ticks)} ticks found no complete, fresh frame")
        ages_ms = self._ages_ms()
        for i, name in enumerate(self._streams if max_age_s and len(ages_ms) else ()):
            p99 = float(np.percentile(ages_ms[:, i], 99))
            if p99 > OLD_SHARE * max_age_s * 1e3:
                lines.append(
                    f"{name}: {p99:.0f} ms old (p99), and the arm holds at {max_age_s * 1e3:.0f}: raise its rate, or "
                    "gate.max_obs_age_s"
                )
        return lines

    @property
    def _passed_s(self) -> float:
        return min(self._clock() - self._began_s, WINDOW_S)

    @property
    def _lost(self) -> int:
        return sum(ages_s is None for _, ages_s in self._ticks)

    def _ages_ms(self) -> np.ndarray:
        """(N, streams) of the ticks with a frame."""
        found = [ages_s for _, ages_s in self._ticks if ages_s is not None]
        return 1e3 * np.array(found).reshape(-1, len(self._streams))

    def _drop_old(self) -> None:
        since_s = self._clock() - WINDOW_S
        for arrived in self._arrived.values():
            while arrived and arrived[0] < since_s:
                arrived.popleft()
        for timed in (self._refused, self._ticks):
            while timed and timed[0][0] < since_s:
                timed.popleft()


def late_plans(p99_s: float, reach_s: float) -> str:
    """Warning that the slowest plans use up most of the time that a chunk reaches; empty where they do not."""
    if not p99_s > LATE_SHARE * reach_s:
        return ""
    return (
        f"plans take {p99_s * 1e3:.0f} ms (p99), and a chunk reaches {reach_s * 1e3:.0f}: lower sampler_iterations, or "
        "free the processor"
    )
