"""Priority of a thread that sends commands, and of a process that only shows them, where the system allows it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_NICE = 10  # a tenth of the time of an ordinary process, where all cores are busy


def set_priority(priority: int, inherited: bool = False) -> str:
    """Schedule the calling thread as SCHED_RR with a priority of 1 to 99; 0: as an ordinary thread.

    The reason where the system refuses it, else empty. Threads and processes that it starts are ordinary ones, unless
    `inherited`.

    A thread with such a priority runs as soon as it has something to do. Without it, a tick waits some milliseconds for
    a core wherever plans, cameras or other programs keep all cores busy.
    """
    try:
        if priority:
            policy = os.SCHED_RR | (0 if inherited else os.SCHED_RESET_ON_FORK)
            os.sched_setscheduler(0, policy, os.sched_param(priority))
        else:  # the flag stays: only a privileged thread may clear it
            flag = os.sched_getscheduler(0) & os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, os.SCHED_OTHER | flag, os.sched_param(0))
    except AttributeError:  # not Linux
        return "this system has no SCHED_RR"
    except OSError as error:
        return f"{error.strerror}: raise the user's rtprio limit, or give the container SYS_NICE"
    return ""


def lower_priority() -> None:
    """Let other processes go first: of the session, and where Linux divides the processor among sessions, of all."""
    os.nice(_NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_NICE))
