"""Real-time priority of one thread: granted or refused with the reason, and not inherited."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dp_ros.ros.node.scheduling import set_priority


def in_thread(work: Callable[[], Any]) -> Any:
    """The result of `work` in a thread of its own, which ends with its priority."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def policy() -> int:
    return os.sched_getscheduler(threading.get_native_id()) & ~os.SCHED_RESET_ON_FORK


def test_a_thread_gets_the_priority_or_the_reason_why_not() -> None:
    def work() -> tuple[str, int, int, int]:
        why = set_priority(1)
        mine, of_child = policy(), in_thread(policy)
        set_priority(0)
        return why, mine, of_child, policy()

    why, mine, of_child, after = in_thread(work)
    assert mine == (os.SCHED_OTHER if why else os.SCHED_RR)
    assert of_child == after == os.SCHED_OTHER


def test_threads_inherit_it_where_asked() -> None:
    def work() -> tuple[str, int]:
        return set_priority(1, inherited=True), in_thread(policy)

    why, of_child = in_thread(work)
    assert of_child == (os.SCHED_OTHER if why else os.SCHED_RR)


def test_a_refusal_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert (
        set_priority(1)
        == "Operation not permitted: raise the user's rtprio limit, or give the container SYS_NICE"
    )


def test_an_ordinary_user_gets_rid_of_the_priority_again() -> None:
    """Whom the limit `rtprio` allows real time may not clear the flag that keeps children from it."""
    script = """
import os, resource
if os.getuid() == 0:
    try:
        resource.setrlimit(resource.RLIMIT_RTPRIO, (20, 20))
    except (OSError, ValueError):
        raise SystemExit(77)
    os.setuid(65534)
from dp_ros.ros.node.scheduling import set_priority
if set_priority(10):
    raise SystemExit(77)
why = set_priority(0)
assert not why and os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER, why
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    if done.returncode == 77:
        pytest.skip("real-time priority cannot be had here")
    assert done.returncode == 0, done.stderr
