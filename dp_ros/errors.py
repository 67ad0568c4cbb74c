"""Base of the errors a user can act on. Their message is one line: what is wrong, where, and what to do.

A command prints that line and exits with `exit_code`; a node prints it and ends. Any other exception is a bug and
keeps its traceback.
"""

from __future__ import annotations

from typing import ClassVar

FAILED, USAGE = 1, 2


class UserError(Exception):
    """Bad input or an environment that lacks something. Subclass it where the error belongs."""

    exit_code: ClassVar[int] = FAILED
