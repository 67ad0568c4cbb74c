"""Terminal input key by key, without echo and without Enter; its settings are restored at the end."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty

from dp_ros.errors import UserError

_DISABLED = b"\x00"


class TerminalError(UserError):
    """Standard input is no terminal, or the terminal was closed; one line."""


class Terminal:
    """Standard input in cbreak mode until `restore`. Ctrl-C interrupts as usual.

    Ctrl-Z and Ctrl-\\ are disabled, because both would leave the shell with our settings.
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
        """The input since the last call, one character per byte; TerminalError when the terminal is closed."""
        if not select.select([self._fd], [], [], 0.0)[0]:
            return ""
        try:
            typed = os.read(self._fd, 1024)
        except OSError:
            typed = b""
        if not typed:
            raise TerminalError("the terminal was closed")
        return typed.decode("latin-1")

    def restore(self) -> None:
        """Restore the settings; may be called twice, and when the terminal is closed."""
        try:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        except termios.error:
            return
