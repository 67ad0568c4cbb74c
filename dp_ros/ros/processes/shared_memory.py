"""Shared memory that killed processes left behind: Fast DDS's segments in /dev/shm, which take memory for ever."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

FOLDER = Path("/dev/shm")
_SEGMENTS = ("fastrtps_", "fastdds_")  # of participants, in Jazzy and in Kilted
_LOCK = "_el"  # the file beside it that a participant locks while it lives


def clear_shared_memory(folder: Path = FOLDER) -> int:
    """Remove this user's segments whose participant has ended; the bytes that were freed.

    A participant that lives holds an exclusive lock; the segments of others are left alone.
    """
    freed = 0
    for lock in (path for name in _SEGMENTS for path in folder.glob(f"{name}*{_LOCK}")):
        segment = lock.with_name(lock.name.removesuffix(_LOCK))
        try:
            if lock.stat().st_uid != os.getuid():
                continue
            with lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if segment.exists():
                    freed += segment.stat().st_size
                    segment.unlink()
                lock.unlink()
        except OSError:  # it is locked, or another process clears it, too
            continue
    return freed
