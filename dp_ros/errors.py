"""Base of the errors a user can act on. Their message is one line: what is wrong, where, and what to do.

A command prints that line and exits with `exit_code`; a node prints it and ends. Any other exception is a bug and
keeps its traceback.
"""

from __future__ import annotations

FAILED, USAGE = 1, 2


class UserError(Exception):
    """Bad input or an environment that lacks something. Subclass it where the error belongs."""

    exit_code: int = FAILED


def message_of(error: BaseException) -> str | None:
    """The one line that tells a user of `error`: a UserError, or an OSError that names its file. None for a bug."""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return None


def shown(text: object, letters: int = 60) -> str:
    """A text of others as a part of a message: printable, in one line, and not long."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in str(text))
    return plain if len(plain) <= letters else f"{plain[:letters]}..."
