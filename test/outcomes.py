"""Inputs that somebody has damaged or forged, and what becomes of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
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


def damaged_versions(content: bytes, count: int, seed: int = 0, within: int = 0) -> Iterator[bytes]:
    """`count` damaged versions of a file. within: flips are in so many first bytes, where formats keep their header."""
    rng = random.Random(seed)
    for i in range(count):
        spoilt = bytearray(content)
        kind = i % 8
        if kind < 6:
            for _ in range(1 + 2 * (kind == 5)):
                end = min(within or len(spoilt), len(spoilt)) if kind % 2 else len(spoilt)
                spoilt[rng.randrange(end)] ^= 1 << rng.randrange(8)
        elif kind == 6:
            del spoilt[rng.randrange(len(spoilt)) :]
        else:
            at = rng.randrange(len(spoilt))
            spoilt[at:at] = rng.randbytes(rng.randrange(1, 9))
        yield bytes(spoilt)
