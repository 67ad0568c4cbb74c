"""The pace of a simulated clock, and the measurement of what share of real time it reaches."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("mujoco")

from dp_ros.sim.realtime import WAITING, WINDOW_S, Pace, RealtimeMeter

DT_S = 0.0125


def run(took_s: list[float]) -> np.ndarray:
    """When each tick begins, if tick i takes `took_s[i]`."""
    pace, now_s, begins = Pace(DT_S, 0.0), 0.0, []
    for took in took_s:
        now_s = max(now_s, pace.next_s)
        begins.append(now_s)
        pace.begin(now_s)
        now_s += took
    return np.array(begins)


def test_ticks_keep_to_the_schedule_without_drift() -> None:
    rng = np.random.default_rng(0)
    begins = run(list(rng.uniform(0.0, 0.9 * DT_S, 800)))
    np.testing.assert_allclose(begins, DT_S * np.arange(800), atol=1e-9)


@pytest.mark.parametrize("delay_ticks", [1, 5, 15])
def test_a_delay_is_made_up_for_without_a_burst(delay_ticks: int) -> None:
    begins = run([0.001] * 10 + [DT_S * delay_ticks] + [0.001] * 100)
    assert begins[-1] == pytest.approx(DT_S * 110)
    gaps = np.diff(begins)
    assert gaps.min() >= 0.75 * DT_S - 1e-9
    caught_up = 11 + 4 * delay_ticks
    np.testing.assert_allclose(begins[caught_up:], DT_S * np.arange(caught_up, 111), atol=1e-9)


def test_a_long_delay_is_given_up_except_for_its_last_quarter_of_a_second() -> None:
    begins = run([0.001] * 10 + [3.0] + [0.001] * 400)
    behind_s = begins[-1] - DT_S * 410
    assert behind_s == pytest.approx(3.0 - DT_S - 0.25, abs=DT_S)
    assert np.diff(begins)[11:].min() >= 0.75 * DT_S - 1e-9


def test_time_between_episodes_puts_the_schedule_off_and_a_delay_before_it_is_still_made_up_for() -> None:
    pace = Pace(DT_S, 0.0)
    pace.begin(2 * DT_S)  # late by two ticks
    pace.exclude(1.0, 2 * DT_S + 1.0)
    begins = []
    for _ in range(20):
        begins.append(pace.next_s)
        pace.begin(pace.next_s)
    assert begins[0] == pytest.approx(2 * DT_S + 1.0 + 0.75 * DT_S)
    assert begins[-1] == pytest.approx(1.0 + 20 * DT_S)
    assert np.diff(begins).min() >= 0.75 * DT_S - 1e-9


def test_a_clock_that_cannot_keep_up_ticks_as_fast_as_it_can() -> None:
    np.testing.assert_allclose(np.diff(run([2 * DT_S] * 100)), 2 * DT_S)


def measured(period_s: float, seconds: float, late_s: float = 0.0) -> tuple[RealtimeMeter, float]:
    meter, now_s = RealtimeMeter(DT_S, 0.0), 0.0
    while now_s < seconds:
        with meter.tick(late_s, now_s):
            meter.add("physics", 0.001)
            meter.add("the picture of eye", 0.004)
            meter.add("the picture of eye", 0.002)
        now_s += period_s
    return meter, now_s


@pytest.mark.parametrize("factor", [1.0, 0.97, 0.5])
def test_factor_is_that_of_the_last_seconds(factor: float) -> None:
    meter, now_s = measured(DT_S / factor, 20.0)
    assert meter.factor(now_s) == pytest.approx(factor, abs=0.01)
    assert bool(meter.problem(now_s)) == (factor < 0.95)
    assert meter.factor(now_s + WINDOW_S) == 0.0
    assert "no tick in 5 s" in meter.problem(now_s + WINDOW_S)


def test_reason_is_the_part_that_takes_most_of_the_time() -> None:
    meter, now_s = measured(2 * DT_S, 6.0)
    assert meter.problem(now_s) == (
        "real-time factor 0.50: a tick is 12.5 ms; most of it goes to the picture of eye, 6.0 ms"
    )
    meter, now_s = measured(2 * DT_S, 6.0, late_s=0.02)
    assert "most of it goes to waiting for the processor, 20." in meter.problem(now_s)
    assert list(meter.parts_ms()) == [WAITING, "the picture of eye", "physics"]


def test_too_little_says_nothing() -> None:
    meter, now_s = measured(0.1, 0.5)
    assert meter.factor(now_s) is None
    assert meter.problem(now_s) == ""


def test_time_between_episodes_is_left_out() -> None:
    meter, now_s = measured(DT_S, 4.0)
    meter.exclude(0.9)
    assert meter.factor(now_s + 0.9) == pytest.approx(1.0, abs=0.01)


def test_parts_are_measured_in_cpu_time_and_the_rest_of_a_tick_is_waiting() -> None:
    meter = RealtimeMeter(DT_S, 0.0)
    with meter.part("nothing"):  # between ticks
        pass
    with meter.tick(0.0, 0.0):
        outside_s = time.thread_time()
        with meter.part("work"):
            inside_s = time.thread_time()
            while time.thread_time() < inside_s + 0.02:
                pass
            inside_s = time.thread_time() - inside_s
        outside_s = time.thread_time() - outside_s
        time.sleep(0.03)
    parts_ms = meter.parts_ms()
    assert parts_ms.keys() == {"work", WAITING}
    assert inside_s >= 0.02 - 1e-9
    assert 1e3 * inside_s - 1e-6 <= parts_ms["work"] <= 1e3 * outside_s + 1e-6
    assert parts_ms[WAITING] >= 29.0
