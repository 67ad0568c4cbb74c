"""Verdict of the soak test: a leak is found however slow it is, noise is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dp_ros.evaluation.soak import Plan, Sample, Soak, latency_table, levels, process_table

HOUR_S = 3600.0


def an_hour(seed: int = 0) -> Soak:
    """A process that stays as it is, with the noise of a busy computer, and grows only while it warms up."""
    rng = np.random.default_rng(seed)
    soak = Soak(duration_s=HOUR_S, episodes=900, successes=899)
    times_s = np.arange(0.0, HOUR_S, 5.0)
    soak.samples["policy_node"] = [
        Sample(
            time_s,
            rss_mb=float(300.0 + 40.0 * min(time_s / 300.0, 1.0) + rng.normal(scale=3.0)),
            handles=27 + int(rng.random() < 0.05),  # a file that is open for a moment
            threads=25,
            segments=12,
            logs_mb=0.001 + 1e-4 * time_s / 60,
        )
        for time_s in times_s
    ]
    plans_s = 0.015 + rng.gamma(2.0, 0.002, size=20_000)
    overheads_s = rng.gamma(2.0, 0.0005, size=20_000)
    at_s = np.linspace(0.0, HOUR_S, 20_000, endpoint=False)
    soak.plans = [
        Plan(*each) for each in zip(at_s.tolist(), plans_s.tolist(), overheads_s.tolist(), strict=True)
    ]
    soak.ticks = [(time_s, i % 50 == 0) for i, time_s in enumerate(at_s.tolist())]
    return soak


def changed(soak: Soak, what: str, per_hour: float) -> Soak:
    """The same with a steady growth of one figure."""
    soak.samples["policy_node"] = [
        replace(
            each, **{what: type(getattr(each, what))(getattr(each, what) + per_hour * each.time_s / HOUR_S)}
        )
        for each in soak.samples["policy_node"]
    ]
    return soak


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_warm_up_are_no_leak(seed: int) -> None:
    assert an_hour(seed).problems == []


@pytest.mark.parametrize(
    ("what", "per_hour", "named"),
    [
        ("rss_mb", 10.0, "resident memory grew by 2."),  # 3 kB a second
        ("handles", 3.0, "handles grew from 27 to 29"),
        ("threads", 3.0, "threads grew from 25 to 27"),
        ("segments", 2.0, "segments grew from 12 to 13"),
        ("logs_mb", 2.0, "logs grew by 1."),
    ],
)
def test_a_slow_leak_is_found(what: str, per_hour: float, named: str) -> None:
    (problem,) = changed(an_hour(), what, per_hour).problems
    assert problem.startswith(f"policy_node: {named}")


def test_memory_that_is_given_back_is_no_fault() -> None:
    assert changed(an_hour(), "rss_mb", -20.0).problems == []


def test_slower_plans_are_found_and_faster_ones_are_no_fault() -> None:
    soak = an_hour()
    soak.plans = [
        replace(plan, plan_s=plan.plan_s * (1.0 + 0.25 * plan.time_s / HOUR_S)) for plan in soak.plans
    ]
    (problem,) = soak.problems
    assert problem.startswith("latency: p99 grew by ")
    soak.plans = [replace(plan, time_s=HOUR_S - plan.time_s) for plan in soak.plans]
    assert soak.problems == []


def test_an_overhead_that_grows_alone_is_found() -> None:
    soak = an_hour()
    soak.plans = [
        replace(plan, overhead_s=plan.overhead_s + 0.005 * plan.time_s / HOUR_S) for plan in soak.plans
    ]
    assert [problem.partition(":")[0] for problem in soak.problems] == ["latency"]


def test_what_is_too_short_to_tell_is_no_success() -> None:
    soak = an_hour()
    soak.samples["policy_node"] = soak.samples["policy_node"][:3]
    soak.plans = soak.plans[-10:]
    short, few = soak.problems
    assert "samples after the warm-up" in short
    assert "0 plans in part 1 of 6" in few
    assert Soak().as_dict()["ok"] is False


def test_levels_are_medians_of_both_ends() -> None:
    assert levels([1.0, 1.0, 9.0, 5.0, 5.0, 5.0, 2.0, 9.0, 2.0]) == (1.0, 2.0)
    assert levels([3.0]) == (3.0, 3.0)


def test_tables_have_each_process_and_each_part_of_the_time() -> None:
    score = changed(an_hour(), "rss_mb", 20.0).as_dict()
    assert score["ok"] is False
    assert score["held_share"] == 0.02
    (row,) = process_table(score)[1]
    assert row[0] == "policy_node"
    assert row[-1].startswith("no: resident memory grew")
    rows = latency_table(score)[1]
    assert [row[0] for row in rows] == ["600", "1200", "1800", "2400", "3000", "3600"]
    assert {row[-1] for row in rows} == {"1.98%", "2.01%"}
    assert process_table(Soak().as_dict())[1] == []
