"""The terminal, key by key: without echo, without waiting for Enter, and as it was before when it is over."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty

from dp_ros.errors import UserError

_DISABLED = b"\x00"


class TerminalError(UserError):
    """No terminal, or none any more; one line that says what to do."""


class Terminal:
    """Standard input in cbreak mode until `restore`. Ctrl-C still interrupts; Ctrl-Z and Ctrl-\\ do nothing.

    Both would leave the shell with our settings.
    """

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno()
        if not os.isatty(self._fd):
            raise TerminalError(
                "standard input is no terminal: run it in a terminal of its own, not from a launch file or a pipe"
            )
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        settings = termios.tcgetattr(self._fd)
        for key in (termios.VSUSP, termios.VQUIT):
            settings[6][key] = _DISABLED
        termios.tcsetattr(self._fd, termios.TCSANOW, settings)

    def read(self) -> str:
        """What was typed since the last call, one character a byte; TerminalError when the terminal is gone."""
        if not select.select([self._fd], [], [], 0.0)[0]:
            return ""
        try:
            typed = os.read(self._fd, 1024)
        except OSError:
            typed = b""
        if not typed:
            raise TerminalError("the terminal is gone")
        return typed.decode("latin-1")

    def restore(self) -> None:
        """As it was; safe to call twice, and when the terminal is gone."""
        try:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        except termios.error:
            return
