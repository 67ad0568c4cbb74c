"""Log of messages that repeat."""

from __future__ import annotations

from dp_ros.ros.node.repeated import Repeated


def test_messages_that_repeat_for_an_hour_are_a_line_a_minute_with_a_count() -> None:
    """A policy that held 8,000 times in an hour wrote 2 MB."""
    repeated = Repeated()
    logged = [text for tick in range(8000) if (text := repeated("hold", "it holds", 0.45 * tick))]
    assert logged[:10] == ["it holds"] * 10
    assert len(logged) == 10 + 3600 // 60 - 1
    assert logged[10] == "it holds (133 more since the last such message)"


def test_another_kind_and_a_new_beginning_are_told_at_once() -> None:
    repeated = Repeated()
    for _ in range(11):
        last = repeated("hold", "it holds", 1.0)
    assert last == ""
    assert repeated("stale", "it is stale", 1.0) == "it is stale"
    repeated.clear()
    assert repeated("hold", "it holds", 1.0) == "it holds"
