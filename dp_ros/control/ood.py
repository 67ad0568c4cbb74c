"""Alarm of pictures unlike those of the training (out of distribution), from the scores of an engine.

A score of 1 is that of the most unusual pictures of the demonstrations: see `dp_ros.policy.ood`.
"""

from __future__ import annotations

import math

from dp_ros.control.safety import Array

TIMES = 2  # scores in a row on the other side of the limit, after which an alarm begins or ends
_LESS = 0.9  # share of the limit below which it ends


class Alarm:
    """Alarm with hysteresis: one unusual frame does not begin it, and one ordinary frame does not end it."""

    def __init__(self) -> None:
        self.is_on = False
        self._count = 0

    def see(self, score: float, limit: float) -> None:
        """Take the newest score; NaN counts as higher than any limit. limit 0: no alarm."""
        is_ordinary = score <= limit * (_LESS if self.is_on else 1.0)
        self._count = self._count + 1 if is_ordinary == self.is_on else 0
        if self._count >= TIMES:
            self.is_on, self._count = not self.is_on, 0
        if not limit:
            self.is_on, self._count = False, 0


class OodWatch:
    """The newest score of each camera, and the alarms: one that warns and one that holds the arm."""

    def __init__(self, cameras: tuple[str, ...], warning: float) -> None:
        """warning: score above which it warns; 0: never."""
        self._cameras, self._warns_at = cameras, warning
        self.clear()

    def clear(self) -> None:
        self.score: float | None = None  # of the camera with the highest; None where there is none
        self._camera = ""
        self._warning, self._hold = Alarm(), Alarm()
        self._is_unknown = False  # whether the newest plan came without scores

    def see(self, scores: Array | None, limit: float) -> None:
        """Take the scores (V,) of the newest plan's newest frame, None where there are none. limit: of the hold."""
        self._is_unknown, self.score = scores is None, None
        if scores is None:
            return
        worst = max(range(len(scores)), key=lambda v: math.inf if math.isnan(scores[v]) else scores[v])
        self.score, self._camera = float(scores[worst]), self._cameras[worst]
        self._warning.see(self.score, self._warns_at)
        self._hold.see(self.score, limit)

    @property
    def warning(self) -> str:
        """Message about pictures unlike those of the training; empty while there is none."""
        return self._message("more than ood_warning", self._warns_at) if self._warning.is_on else ""

    def why_hold(self, limit: float) -> str:
        """Why the arm must hold; empty where it may move. A limit without scores holds it: nothing can be checked."""
        if limit and self._is_unknown:
            return (
                f"gate.max_ood_score is {limit:g}, but the checkpoint has no statistics of its training pictures: make "
                "them with `dp_ros ood-stats`, or set it to 0"
            )
        return self._message("more than gate.max_ood_score", limit) if limit and self._hold.is_on else ""

    def _message(self, than: str, limit: float) -> str:
        return (
            f"the pictures of camera {self._camera} are unlike those of the training: score {self.score:.2f}, {than} "
            f"{limit:g}: is it covered, moved, or another scene?"
        )
