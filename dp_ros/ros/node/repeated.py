"""Log of messages that repeat: bounded, however long a node runs."""

from __future__ import annotations

from collections import Counter

_EACH = 10  # messages of a kind that are all logged
_PERIOD_S = 60.0  # then one in this time


class Repeated:
    """Choice of the messages of each kind that are logged: the first ten, then at most one a minute, with a count."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._told: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._last_s: dict[str, float] = {}

    def __call__(self, kind: str, text: str, now_s: float) -> str:
        """The text to be logged, with the number of those left out; empty where it is not to be logged."""
        if self._told[kind] >= _EACH and now_s - self._last_s[kind] < _PERIOD_S:
            self._left_out[kind] += 1
            return ""
        self._told[kind] += 1
        self._last_s[kind] = now_s
        left_out = self._left_out.pop(kind, 0)
        return f"{text} ({left_out} more since the last such message)" if left_out else text
