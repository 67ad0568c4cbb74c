"""Deadman of a policy's process: when its heartbeat ends another process takes over, and when it hands back."""

from __future__ import annotations

from enum import StrEnum

from dp_ros.schema import WatchdogConfig

_LATE_S = 0.02  # by more than this the watchdog itself was late, and beats may wait to be read


class Guard(StrEnum):
    """State of the watchdog."""

    WAITING = "waiting"  # no policy is active
    WATCHING = "watching"  # an active policy beats
    HOLDING = "holding"  # the heartbeat of an active policy ended: the watchdog commands


class Heartbeat:
    """Heartbeat of one policy: `beat` with each message, `expire` when none came for `timeout_s`.

    Times are of a steady clock, in seconds. A policy that says that it is inactive may be silent.
    """

    def __init__(self, config: WatchdogConfig) -> None:
        self._config = config
        self.guard = Guard.WAITING
        self.beaten_s: float | None = None  # time of the newest beat
        self._is_active = False  # according to the newest beat
        self._back_s: float | None = (
            None  # time since which it beats without a gap while the watchdog commands
        )
        self._waits = False  # for beats that may not have been read yet

    def beat(self, now_s: float, is_active: bool) -> bool:
        """Take a beat; whether the watchdog must hand back now."""
        gap_s = now_s - self.beaten_s if self.beaten_s is not None else 0.0
        self.beaten_s, self._is_active, self._waits = now_s, is_active, False
        if self.guard is not Guard.HOLDING:
            self.guard = Guard.WATCHING if is_active else Guard.WAITING
            return False
        if not is_active or self._back_s is None or gap_s > self._config.timeout_s:
            self._back_s = now_s if is_active else None
        is_back = self._back_s is not None and now_s - self._back_s >= self._config.recover_s
        if self._config.recovery != "automatic" or not is_back:
            return False
        self._hand_back()
        return True

    def expire(self, now_s: float) -> float:
        """Called `timeout_s` after the newest beat: 0 where the watchdog must take over now, else when to call again.

        Where the call itself is late, beats may have arrived that nobody has read: they get a moment.
        """
        timeout_s = self._config.timeout_s
        if self.guard is not Guard.WATCHING or self.beaten_s is None:
            return timeout_s
        silent_s = now_s - self.beaten_s
        if silent_s < timeout_s:
            return timeout_s - silent_s
        if silent_s > timeout_s + _LATE_S and not self._waits:
            self._waits = True
            return _LATE_S / 2
        self.guard, self._back_s, self._waits = Guard.HOLDING, None, False
        return 0.0

    def release(self, now_s: float) -> str:
        """Hand back because a person asks for it. Why that is refused; empty where it was done."""
        if self.guard is not Guard.HOLDING:
            return "the watchdog does not command"
        if self._is_active and not self.is_beating(now_s):
            return "the policy has no heartbeat: start and activate it first, or end the watchdog"
        self._hand_back()
        return ""

    def is_beating(self, now_s: float) -> bool:
        return self.beaten_s is not None and now_s - self.beaten_s <= self._config.timeout_s

    def _hand_back(self) -> None:
        self.guard = Guard.WATCHING if self._is_active else Guard.WAITING
