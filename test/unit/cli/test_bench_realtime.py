"""Numbers of `dp_ros bench realtime`; test/ros runs the command."""

from __future__ import annotations

import pytest

from dp_ros.cli.bench.realtime_report import summary


def test_overhead_is_without_the_plan_and_with_the_transport() -> None:
    """Stamp and arrival of two commands in ns, the rest in s; the second is the first one from a plan of 20 ms."""
    plain = {"stamp_ns": 1_000_000_000, "received_ns": 1_003_000_000, "picture_ns": 995_000_000}
    first = {"stamp_ns": 2_000_000_000, "received_ns": 2_004_000_000, "picture_ns": None}
    noted = {
        "commands": [
            {**plain, "late": 0.0005, "sent": 0.001},
            {**first, "late": 0.0, "sent": 0.001, "plan": 0.020, "request": 0.027, "wait": 0.005},
        ],
        "verdicts": ["pass", "hold_no_plan", "pass", "limited_step"],
        "processes": {},
    }
    data = summary(noted, rate_hz=5.0, seconds=1.0)
    assert data["held_share"] == 0.25
    assert data["missed_ticks"] == 1
    samples = {name: row["samples"] for name, row in data["ms"].items()}
    assert samples["transport"] == pytest.approx([2.0, 3.0])
    assert samples["overhead"] == pytest.approx([3.5, 5.0])
    assert samples["overhead_of_plans"] == pytest.approx([5.0])
    assert samples["request"] == pytest.approx([30.0])
    assert samples["picture"] == pytest.approx([8.0])
    assert data["ms"]["overhead"]["max"] == pytest.approx(5.0)


def test_a_node_that_never_planned_has_no_times_of_plans() -> None:
    held = {"stamp_ns": 0, "received_ns": 1_000_000, "picture_ns": None, "late": 0.0, "sent": 0.0}
    data = summary({"commands": [held], "verdicts": ["hold_no_plan"], "processes": {}}, 80.0, 1.0)
    assert data["held_share"] == 1.0
    assert data["ms"].keys() == {"overhead", "late", "sent", "transport"}
