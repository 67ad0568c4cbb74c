"""What becomes of an input that somebody has damaged or forged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dp_ros.cli.errors import describe


def outcome(use: Callable[[Path], object], path: Path, letters: int = 3000) -> str:
    """The line with which the input is refused, of fewer letters than that; empty where it can be used.

    Anything else fails the test.
    """
    said = ""
    try:
        use(path)
    except Exception as error:
        described = describe(error)
        if described is None:
            raise
        said = described[0]
    assert "\n" not in said
    assert len(said) < letters, said
    return said
