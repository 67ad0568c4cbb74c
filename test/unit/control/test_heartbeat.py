"""Heartbeat of a policy: when the watchdog takes over, and when it hands back."""

import pytest

from dp_ros.control.heartbeat import Guard, Heartbeat
from dp_ros.schema import WatchdogConfig

TIMEOUT_S, RECOVER_S, BEAT_S = 0.07, 0.5, 0.02


def heartbeat(recovery: str = "explicit") -> Heartbeat:
    return Heartbeat(WatchdogConfig(timeout_s=TIMEOUT_S, recover_s=RECOVER_S, recovery=recovery))


def dead(recovery: str = "explicit") -> Heartbeat:
    """The heartbeat of an active policy that ended at 10.0 s and expired at once when it was due."""
    one = heartbeat(recovery)
    one.beat(10.0, True)
    assert one.expire(10.0 + TIMEOUT_S) == 0.0
    assert one.guard is Guard.HOLDING
    return one


def beats(one: Heartbeat, begin_s: float, seconds: float) -> list[float]:
    """Beat for so long; the times at which it handed back."""
    times = [begin_s + i * BEAT_S for i in range(round(seconds / BEAT_S) + 1)]
    return [now_s for now_s in times if one.beat(now_s, True)]


def test_it_watches_an_active_policy_only():
    one = heartbeat()
    assert one.guard is Guard.WAITING
    assert one.expire(100.0) > 0
    one.beat(101.0, True)
    assert one.guard is Guard.WATCHING
    one.beat(101.02, False)
    assert one.guard is Guard.WAITING
    assert one.expire(200.0) > 0
    assert one.guard is Guard.WAITING


def test_it_takes_over_when_no_beat_came_for_the_timeout_and_not_before():
    one = heartbeat()
    one.beat(1.0, True)
    assert one.expire(1.0 + TIMEOUT_S - 0.01) == pytest.approx(0.01)
    assert one.guard is Guard.WATCHING
    assert one.expire(1.0 + TIMEOUT_S + 1e-9) == 0.0
    assert one.guard is Guard.HOLDING


def test_where_the_watchdog_itself_was_late_unread_beats_get_a_moment_once():
    one = heartbeat()
    one.beat(1.0, True)
    wait_s = one.expire(1.5)  # 0.43 s late: stopped, or starved
    assert 0 < wait_s <= 0.02
    one.beat(1.501, True)
    assert one.expire(1.501 + TIMEOUT_S / 2) > 0
    assert one.guard is Guard.WATCHING

    assert one.expire(2.5) > 0
    assert one.expire(2.51) == 0.0
    assert one.guard is Guard.HOLDING


def test_explicit_recovery_hands_back_only_when_asked_and_with_a_heartbeat():
    one = dead()
    assert "no heartbeat" in one.release(11.0)
    assert beats(one, 12.0, 10 * RECOVER_S) == []
    assert one.guard is Guard.HOLDING
    end_s = 12.0 + 10 * RECOVER_S
    assert "no heartbeat" in one.release(end_s + 2 * TIMEOUT_S)
    assert one.release(end_s + TIMEOUT_S / 2) == ""
    assert one.guard is Guard.WATCHING
    assert "does not command" in one.release(end_s + TIMEOUT_S / 2)


def test_explicit_recovery_may_be_asked_for_once_the_policy_says_it_is_inactive():
    one = dead()
    one.beat(11.0, False)
    assert one.guard is Guard.HOLDING
    assert one.release(20.0) == ""
    assert one.guard is Guard.WAITING


def test_automatic_recovery_needs_a_heartbeat_without_gaps():
    one = dead("automatic")
    assert beats(one, 11.0, RECOVER_S - 0.1) == []
    assert beats(one, 11.0 + RECOVER_S, RECOVER_S - 0.1) == []  # a gap of 0.1 s before it
    (back_s,) = beats(dead("automatic"), 11.0, RECOVER_S)
    assert back_s == pytest.approx(11.0 + RECOVER_S, abs=BEAT_S)


def test_automatic_recovery_never_hands_back_to_an_inactive_policy():
    one = dead("automatic")
    for i in range(100):
        assert not one.beat(11.0 + i * BEAT_S, False)
    assert one.guard is Guard.HOLDING


def test_it_takes_over_again_after_it_handed_back():
    one = dead("automatic")
    (back_s,) = beats(one, 11.0, RECOVER_S)
    assert one.guard is Guard.WATCHING
    assert one.expire(back_s + TIMEOUT_S) == 0.0
    assert one.guard is Guard.HOLDING
