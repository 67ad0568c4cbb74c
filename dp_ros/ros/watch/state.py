"""Newest state of a robot and its policy, as the page shows it. Safe to use from several threads; works without ROS."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dp_ros.ros.messages.plan_picture import View, draw_view
from dp_ros.ros.messages.trace import Trace

Array = NDArray[np.float64]
WINDOW_S = 10.0  # of the shares and rates
_PLANS = 500
_JUMP_NS = 1_000_000_000  # of the stamps of poses; a longer step begins a new path
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 85)


@dataclass(frozen=True)
class Chunk:
    """A predicted chunk: positions (T_p, 3) [m] in the frame of `ee_pose`, each with the stamp it is for."""

    positions_m: Array
    stamps_ns: tuple[int, ...]
    frame_id: str

    def sent(self, stamp_ns: int) -> int:
        """Number of actions whose time has come at `stamp_ns`, that of the newest command."""
        return sum(each <= stamp_ns for each in self.stamps_ns)


@dataclass(frozen=True)
class _Shown:
    number: int  # of the pictures of its camera, counted from 1
    arrived_s: float
    view: View


class WatchState:
    """Newest messages. Times are those of arrival, because simulated time may stand still."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds of a steady clock."""
        self._clock, self._lock = clock, threading.Lock()
        self._facts: dict[str, Any] = {}
        self._pictures: dict[str, _Shown] = {}
        self._encoded: dict[str, tuple[int, bytes]] = {}  # camera -> number and JPEG of its last picture
        self._verdicts: deque[tuple[float, bool]] = deque()  # (arrival, whether the arm held)
        self._plans_s: deque[float] = deque(maxlen=_PLANS)
        self._episodes: list[bool] = []
        self._measured, self._commanded = Trace(), Trace()
        self._pose_ns: int | None = None
        self.chunk: Chunk | None = None
        self.tool_m: Array | None = None
        self.command_m: Array | None = None
        self.command_ns = 0

    # ---- what is heard -----------------------------------------------------------------------------------

    def tell(self, **facts: Any) -> None:
        """Keep named facts for the page: text, numbers, or None."""
        with self._lock:
            self._facts |= facts

    def add_verdict(self, verdict: str) -> None:
        now_s = self._clock()
        with self._lock:
            self._facts |= {"verdict": verdict}
            self._verdicts.append((now_s, verdict.startswith("hold")))
            self._forget_verdicts(now_s)

    def add_plan(self, duration_s: float) -> None:
        with self._lock:
            self._plans_s.append(duration_s)

    def add_episode(self, is_success: bool) -> None:
        with self._lock:
            self._episodes.append(is_success)

    def add_pose(self, stamp_ns: int, position_m: Array) -> None:
        """A measured position (3,) of the tool."""
        with self._lock:
            if self._pose_ns is None or not 0 <= stamp_ns - self._pose_ns < _JUMP_NS:
                self._measured.clear()
                self._commanded.clear()
                self.chunk = self.command_m = None
            self._pose_ns, self.tool_m = stamp_ns, position_m
            self._measured.add(position_m)

    def add_command(self, stamp_ns: int, position_m: Array) -> None:
        """A commanded position (3,)."""
        with self._lock:
            self.command_ns, self.command_m = stamp_ns, position_m
            self._commanded.add(position_m)

    def add_chunk(self, chunk: Chunk) -> None:
        with self._lock:
            self.chunk = chunk

    def add_picture(self, view: View) -> None:
        """The newest picture of the camera `view.name`, with what is to be drawn in."""
        with self._lock:
            before = self._pictures.get(view.name)
            number = before.number + 1 if before else 1
            self._pictures[view.name] = _Shown(number, self._clock(), view)

    # ---- what is shown -----------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        """Everything but the pixels, for JSON. Positions are metres; shares are of the last `WINDOW_S`."""
        now_s = self._clock()
        with self._lock:
            self._forget_verdicts(now_s)
            ticks = len(self._verdicts)
            plans_ms = np.array(self._plans_s) * 1e3
            chunk = self.chunk
            return {
                **self._facts,
                "cameras": [
                    {"name": name, "number": shown.number, "age_s": round(now_s - shown.arrived_s, 3)}
                    for name, shown in sorted(self._pictures.items())
                ],
                "held_share": sum(held for _, held in self._verdicts) / ticks if ticks else None,
                "ticks_per_s": self._rate(now_s),
                "plan_ms": _percentiles(plans_ms),
                "episodes": len(self._episodes),
                "successes": sum(self._episodes),
                "measured_m": _rounded(self._measured.points_m),
                "commanded_m": _rounded(self._commanded.points_m),
                "chunk_m": _rounded(chunk.positions_m) if chunk else [],
                "chunk_sent": chunk.sent(self.command_ns) if chunk else 0,
            }

    def jpeg(self, camera: str) -> bytes | None:
        """The newest picture of a camera; None where there is none. Drawn once, by the first thread that asks."""
        with self._lock:
            shown, encoded = self._pictures.get(camera), self._encoded.get(camera)
        if shown is None:
            return None
        if encoded is not None and encoded[0] == shown.number:
            return encoded[1]
        done, data = cv2.imencode(".jpg", draw_view(shown.view, named=False)[..., ::-1], _JPEG)
        if not done:
            return None
        jpeg: bytes = data.tobytes()
        with self._lock:
            self._encoded[camera] = shown.number, jpeg
        return jpeg

    def _forget_verdicts(self, now_s: float) -> None:
        while self._verdicts and now_s - self._verdicts[0][0] > WINDOW_S:
            self._verdicts.popleft()

    def _rate(self, now_s: float) -> float | None:
        if len(self._verdicts) < 2:
            return None
        return round(len(self._verdicts) / max(now_s - self._verdicts[0][0], 1e-3), 1)


def _percentiles(plans_ms: Array) -> dict[str, float] | None:
    if not len(plans_ms):
        return None
    p50, p99 = np.percentile(plans_ms, (50, 99))
    values = {"newest": plans_ms[-1], "p50": p50, "p99": p99}
    return {name: round(float(value), 1) for name, value in values.items()}


def _rounded(points_m: Array) -> list[list[float]]:
    """Points (n, 3) to 0.1 mm, without those that are not finite, which JSON does not know."""
    finite = points_m[np.isfinite(points_m).all(axis=1)] if len(points_m) else points_m
    rounded: list[list[float]] = np.round(finite, 4).tolist()
    return rounded
