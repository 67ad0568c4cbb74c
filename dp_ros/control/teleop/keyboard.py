"""Keyboard of a terminal as a gamepad: stream of keys to axes and buttons.

Terminals send no key-up. A key counts as held for `first_hold_s` after it came, which must be longer than the
terminal's delay before the first repetition, and for `repeat_hold_s` after each repetition.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dp_ros.schema import KeyboardConfig

KEY_MAP = """\
  w s  or  up down           +y -y      forward, back
  d a  or  right left        +x -x      right, left
  r f  or  page up, down     +z -z      up, down
  c o                        gripper closes, opens
  + -                        faster, slower
  space                      stop at once
  enter                      an episode starts
  y n                        it ends with success, with failure
  backspace                  it is discarded
  ctrl-c                     end"""

_GRIPPER, _EPISODE = 3, 4  # groups beside the axes 0, 1, 2; of each group one key is held at a time
_KEYS: dict[str, tuple[int, int | str]] = {
    **dict.fromkeys(("d", "\x1b[C", "\x1bOC"), (0, 1)),
    **dict.fromkeys(("a", "\x1b[D", "\x1bOD"), (0, -1)),
    **dict.fromkeys(("w", "\x1b[A", "\x1bOA"), (1, 1)),
    **dict.fromkeys(("s", "\x1b[B", "\x1bOB"), (1, -1)),
    **dict.fromkeys(("r", "\x1b[5~"), (2, 1)),
    **dict.fromkeys(("f", "\x1b[6~"), (2, -1)),
    "c": (_GRIPPER, "close"),
    "o": (_GRIPPER, "open"),
    **dict.fromkeys(("\r", "\n"), (_EPISODE, "start")),
    "y": (_EPISODE, "success"),
    "n": (_EPISODE, "failure"),
    **dict.fromkeys(("\x7f", "\x08"), (_EPISODE, "discard")),
}
_STEPS = (0.2, 0.4, 0.7, 1.0)  # deflections of the stick by a key
_FIRST_STEP = 1  # slow, because a tap counts as held for first_hold_s
# One key of a terminal. A control sequence is one key, so that its letters do not count as keys.
_KEY = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
_UNFINISHED = re.compile(r"\x1b(?:[\[O][0-9;]*)?\Z")


@dataclass(frozen=True)
class _Held:
    value: int | str
    until_s: float


class Keyboard:
    """State of the keys: takes keys with the time of their arrival, gives the axes and buttons of a gamepad."""

    def __init__(self, config: KeyboardConfig) -> None:
        self._config = config
        self._held: dict[int, _Held] = {}
        self._unfinished = ""
        self._step = _FIRST_STEP

    def read(self, text: str, now_s: float) -> None:
        """Take the text that the terminal sent since the last call; keys without a meaning are ignored."""
        text = self._unfinished + text
        tail = _UNFINISHED.search(text)
        self._unfinished = tail.group() if tail else ""
        for key in _KEY.findall(text[: tail.start()] if tail else text):
            self._press(key, now_s)

    def _press(self, key: str, now_s: float) -> None:
        if key == " ":
            self._held = {group: held for group, held in self._held.items() if group == _EPISODE}
        elif key in "+=":
            self._step = min(self._step + 1, len(_STEPS) - 1)
        elif key == "-":
            self._step = max(self._step - 1, 0)
        elif key in _KEYS:
            group, value = _KEYS[key]
            repeats = self._value(group, now_s) == value
            hold_s = self._config.repeat_hold_s if repeats else self._config.first_hold_s
            self._held[group] = _Held(value, now_s + hold_s)

    def _value(self, group: int, now_s: float) -> int | str | None:
        """Value of the group's key that is held now; None where none is."""
        held = self._held.get(group)
        return held.value if held is not None and now_s < held.until_s else None

    @property
    def stick(self) -> float:
        """Deflection of the stick by a key, (0, 1]."""
        return _STEPS[self._step]

    def joy(self, now_s: float) -> tuple[list[float], list[int]]:
        """Axes and buttons of a Joy message for now."""
        layout = self._config.layout
        axes, buttons = [0.0] * layout.n_axes, [0] * layout.n_buttons
        for index, rest in zip(layout.used_axes, layout.rest, strict=True):
            axes[index] = rest
        for group, (index, direction) in enumerate(zip(layout.axes, layout.directions, strict=True)):
            value = self._value(group, now_s)
            if isinstance(value, int):
                deflected = axes[index] + value * direction * self.stick * (1.0 + abs(axes[index]))
                axes[index] = min(max(deflected, -1.0), 1.0)
        for group in (_GRIPPER, _EPISODE):
            value = self._value(group, now_s)
            if value is not None:
                buttons[layout.used_buttons[f"{value}_button"]] = 1
        driven = any(self._value(group, now_s) is not None for group in (0, 1, 2, _GRIPPER))
        buttons[layout.deadman_button] = int(driven)
        return axes, buttons

    def describe(self, now_s: float) -> str:
        """Keys that are held, in a line of constant length."""
        signs = {1: "+", -1: "-", None: " "}
        motion = " ".join(f"{signs[self._sign(group, now_s)]}{axis}" for group, axis in enumerate("xyz"))
        gripper, episode = (self._value(group, now_s) or "" for group in (_GRIPPER, _EPISODE))
        return f"{motion}  gripper {gripper:5}  speed {self.stick:4.0%}  {episode:7}"

    def _sign(self, group: int, now_s: float) -> int | None:
        value = self._value(group, now_s)
        return value if isinstance(value, int) else None
