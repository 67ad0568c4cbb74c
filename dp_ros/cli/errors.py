"""An error that a user can act on becomes one line on stderr and an exit code; any other keeps its traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dp_ros.errors import FAILED, USAGE, UserError

INTERRUPTED = 130

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "USAGE",
    "CliError",
    "Interrupted",
    "describe",
    "on_interrupt",
    "one_line",
]


class CliError(UserError):
    """A command that cannot continue: one line, and the exit code (`USAGE` for a wrong option)."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = code


class Interrupted(Exception):
    """Ctrl-C in a command that can be resumed; the message says how."""


@contextmanager
def on_interrupt(hint: str) -> Iterator[None]:
    """Turn Ctrl-C into `Interrupted` with `hint`, which says what is kept and how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(hint) from None


def one_line(run: Callable[[], Any]) -> int:
    """The exit code of `run`, which may return one."""
    try:
        code = run()
    except Interrupted as hint:
        return _report(f"interrupted; {hint}", INTERRUPTED)
    except Exception as error:
        described = describe(error)
        if described is None:
            raise
        return _report(*described)
    if code == INTERRUPTED:  # typer's answer to Ctrl-C
        return _report("interrupted", INTERRUPTED)
    return code if isinstance(code, int) else 0


def describe(error: BaseException) -> tuple[str, int] | None:
    """(message, exit code) of an error that a user can act on; None for a bug."""
    if isinstance(error, UserError):
        return str(error), error.exit_code
    if hasattr(error, "format_message"):  # typer's: a wrong option or argument
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "dp_ros"
        return f"{error.format_message().rstrip('.')}; see `{command} --help`", USAGE
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}" if error.strerror else str(error), FAILED
    if type(error).__name__ == "OutOfMemoryError":  # torch's, on any GPU; torch may not be imported
        return "out of GPU memory: lower batch_size", FAILED
    if isinstance(error, MemoryError):
        return f"out of memory ({error})" if str(error) else "out of memory", FAILED
    return None


def _report(message: str, code: int) -> int:
    print(f"dp_ros: {' '.join(message.split())}", file=sys.stderr)
    return code
