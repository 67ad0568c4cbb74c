"""Stream of Joy messages to the motion that a person asks for now. A broken stream releases everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.schema import TeleopConfig

Array = NDArray[np.float64]
_ODD_STAMPS = 10  # in a row mean a wrong clock; fewer were in flight when an episode put time forward


class EpisodeEvent(StrEnum):
    """Event of an episode, by a button."""

    START = "start"
    SUCCESS = "success"
    FAILURE = "failure"
    DISCARD = "discard"


class TeleopHold(StrEnum):
    """Reason why no motion is asked for; published in place of the gate's verdict."""

    RELEASED = "hold_released"  # the deadman button is up
    PRESS_AGAIN = "hold_press_again"  # it has been down since before a fault: release it first
    JOY_STALE = "hold_joy_stale"  # no message, or too old a one
    JOY_FROZEN = "hold_joy_frozen"  # motion is asked for, and nothing has changed for too long
    NOT_AT_REST = "hold_not_at_rest"  # an axis has not been seen at rest: its value may be wrong
    JOY_REFUSED = "hold_joy_refused"  # the newest message is invalid
    OUTSIDE = "hold_outside"  # the arm is measured where it may not begin

    @property
    def is_trouble(self) -> bool:
        """Whether the person should be told; a released button is normal."""
        return self is not TeleopHold.RELEASED


@dataclass(frozen=True)
class TeleopCommand:
    """Motion that the person asks for, after dead zone and signs; 1 is the largest allowed speed."""

    direction: Array  # (3,) along x, y, z of the base frame, each in [-1, 1]
    gripper: float  # [-1, 1], + closes


class Joystick:
    """Axes, buttons and their stamps to a TeleopCommand and to the events of the episode.

    The deadman button must be seen to go down while all is well. A button that is already down in the first message,
    after silence, or after a refused message, counts only after it was released. The same holds for the buttons of the
    episode.
    """

    def __init__(self, config: TeleopConfig) -> None:
        self._config, self._layout = config, config.layout
        self._timeout_ns = round(config.joy_timeout_s * 1e9)
        self.clear()

    def clear(self) -> None:
        """Return to the state before the first message."""
        self._stamp_ns: int | None = None
        self._axes: Array = np.zeros(0)  # values of the used axes
        self._unrested = set(self._layout.used_axes)  # axes that have not been seen at rest
        self._seen: tuple[Any, ...] = ()  # axes and buttons of the newest message
        self._seen_ns = 0  # when they last changed
        self._frozen = False
        self._buttons: dict[str, bool] | None = None  # of the last message; None where it was invalid
        self._changed_ns: dict[str, int] = {}
        self._armed = False
        self._refused = self._clock_problem = ""
        self._odd_stamps = 0  # in a row

    def disarm(self) -> None:
        """Ask for nothing until the deadman button is pressed again."""
        self._armed = False

    def read(
        self, stamp_ns: int, axes: Sequence[float], buttons: Sequence[int], now_ns: int
    ) -> list[EpisodeEvent]:
        """Take a message that arrives `now_ns`; its events of the episode. Late messages are ignored."""
        if not abs(now_ns - stamp_ns) <= self._timeout_ns:
            self._note_clock(stamp_ns, now_ns)
            return []
        stamp_ns = min(stamp_ns, now_ns)  # a clock that is a little ahead must not make it count for longer
        if self._stamp_ns is not None and stamp_ns < self._stamp_ns:
            return []
        silent = self._stamp_ns is None or stamp_ns - self._stamp_ns > self._timeout_ns
        self._stamp_ns, self._clock_problem, self._odd_stamps = stamp_ns, "", 0
        self._refused = self._problem(axes, buttons)
        if self._refused:
            self._buttons, self._armed = None, False
            return []
        before = None if silent else self._buttons
        now = {name: bool(buttons[index]) for name, index in self._layout.used_buttons.items()}
        self._axes, self._buttons = np.array([axes[index] for index in self._layout.used_axes]), now
        self._note_change((*self._axes.tolist(), *now.values()), stamp_ns)
        self._note_rest(begins=before is None)
        if before is None or not now["deadman_button"]:
            self._armed = False
        elif not before["deadman_button"]:
            self._armed = True
        return [] if before is None else self._events(before, now, stamp_ns)

    def command(self, now_ns: int) -> TeleopCommand | TeleopHold:
        """The motion asked for now, or the reason why there is none."""
        if self._stamp_ns is None or not now_ns - self._stamp_ns <= self._timeout_ns:
            return TeleopHold.JOY_STALE
        if self._buttons is None:
            return TeleopHold.JOY_REFUSED
        if not self._armed:
            return TeleopHold.PRESS_AGAIN if self._buttons["deadman_button"] else TeleopHold.RELEASED
        if self._unrested:
            return TeleopHold.NOT_AT_REST
        moves = self._without_dead_zone(self._deflections()) * np.array(self._layout.signs)
        gripper = float(self._buttons["close_button"]) - float(self._buttons["open_button"])
        gripper = min(max(gripper + float(moves[3:].sum()), -1.0), 1.0)
        asks = bool(moves.any()) or gripper != 0.0
        self._frozen |= asks and now_ns - self._seen_ns > self._config.joy_frozen_s * 1e9
        return TeleopHold.JOY_FROZEN if self._frozen else TeleopCommand(moves[:3], gripper)

    def why(self, pause: TeleopHold) -> str:
        """Advice for people; constant while the cause is."""
        if pause is TeleopHold.JOY_STALE:
            return self._clock_problem or (
                f"no Joy message within {self._config.joy_timeout_s:g} s: start the joystick's node with an "
                f"autorepeat_rate above {1 / self._config.joy_timeout_s:g} Hz, and check the gamepad's connection"
            )
        if pause is TeleopHold.JOY_REFUSED:
            return self._refused
        if pause is TeleopHold.JOY_FROZEN:
            return (
                f"Joy has not changed for {self._config.joy_frozen_s:g} s while it asks for motion: move a stick or "
                "release the deadman button; if that does not help, the gamepad lost its connection"
            )
        if pause is TeleopHold.NOT_AT_REST:
            axis = min(self._unrested)
            rest = self._layout.rest[self._layout.used_axes.index(axis)]
            return (
                f"axis {axis} of joy has not been seen at rest ({rest:g}), so its value may be wrong: move it and "
                "release it; for a trigger, set its rest value in layout"
            )
        return "release the deadman button and press it again" if pause is TeleopHold.PRESS_AGAIN else ""

    def _deflections(self) -> Array:
        """Used axes, from rest 0 to the end of their range: [-1, 1]."""
        rest: Array = np.array(self._layout.rest)
        deflections: Array = (self._axes - rest) / (1.0 + np.abs(rest))
        return deflections

    def _note_change(self, seen: tuple[Any, ...], stamp_ns: int) -> None:
        if seen != self._seen:
            self._seen, self._seen_ns, self._frozen = seen, stamp_ns, False

    def _note_rest(self, begins: bool) -> None:
        """Note the axes at rest. Until it was touched, a driver may report any value for an axis."""
        if begins:
            self._unrested = {
                axis for axis, sign in zip(self._layout.used_axes, self._layout.signs, strict=True) if sign
            }
        at_rest = np.abs(self._deflections()) <= self._config.dead_zone
        self._unrested -= {axis for axis, rests in zip(self._layout.used_axes, at_rest, strict=True) if rests}

    def _without_dead_zone(self, values: Array) -> Array:
        """[-1, 1] -> [-1, 1]: 0 inside the dead zone, continuous at its border."""
        size = np.clip(np.abs(values), 0.0, 1.0)
        dead = self._config.dead_zone
        return np.sign(values) * np.maximum(size - dead, 0.0) / (1.0 - dead)

    def _events(self, before: dict[str, bool], now: dict[str, bool], stamp_ns: int) -> list[EpisodeEvent]:
        """Events of the buttons that went down, without bounces."""
        events = []
        for event in EpisodeEvent:
            name = f"{event.value}_button"
            if now[name] == before[name]:
                continue
            changed_ns = self._changed_ns.get(name)
            self._changed_ns[name] = stamp_ns
            bounces = changed_ns is not None and stamp_ns - changed_ns < self._config.debounce_s * 1e9
            if now[name] and not bounces:
                events.append(event)
        return events

    def _problem(self, axes: Sequence[float], buttons: Sequence[int]) -> str:
        """Why a message is invalid; empty when it is valid."""
        layout = self._layout
        if len(axes) < layout.n_axes or len(buttons) < layout.n_buttons:
            return (
                f"joy has {len(axes)} axes and {len(buttons)} buttons, layout needs {layout.n_axes} and "
                f"{layout.n_buttons}: set layout for this gamepad"
            )
        if not np.isfinite(axes).all():
            return f"axis {int(np.argmin(np.isfinite(axes)))} of joy is not a finite number: check its driver"
        return ""

    def _note_clock(self, stamp_ns: int, now_ns: int) -> None:
        self._odd_stamps += 1
        if self._odd_stamps == _ODD_STAMPS:  # only once, because its numbers change with every message
            side = "after" if stamp_ns > now_ns else "before"
            self._clock_problem = (
                f"joy is stamped {abs(stamp_ns - now_ns) / 1e9:.3g} s {side} this node's time: give use_sim_time "
                "to both nodes or to none, or set the clocks of both machines"
            )
            if stamp_ns == 0:
                self._clock_problem = (
                    "joy has no stamp (0): its publisher must stamp each message with the time"
                )
