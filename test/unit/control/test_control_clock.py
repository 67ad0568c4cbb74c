"""Time of a control loop: no step of the clock that stamps messages changes an interval."""

from __future__ import annotations

import pytest

from dp_ros.control.control_clock import ControlClock

S, MS = 1_000_000_000, 1_000_000
BEGIN = 1_700_000_000 * S


class Machine:
    """A computer whose clock can be set; each reading of a clock takes `reading_ns`."""

    def __init__(self, is_steady: bool = True) -> None:
        self.steady, self.ahead, self.reading_ns = 5 * S, BEGIN - 5 * S, 100
        self.told: list[float] = []
        self.clock = ControlClock(self.stamp, is_steady, self.read, self.told.append)

    def read(self) -> int:
        self.steady += self.reading_ns
        return self.steady

    def stamp(self) -> int:
        return self.steady + self.ahead

    def wait(self, ns: int) -> None:
        self.steady += ns


def test_it_begins_at_the_time_of_the_clock_that_stamps() -> None:
    assert Machine().clock.now_ns() == pytest.approx(BEGIN, abs=2000)


@pytest.mark.parametrize("step_ns", [2 * MS, -2 * MS, 10 * MS, 3600 * S, -3600 * S, -BEGIN // 2])
def test_a_step_changes_no_interval_and_no_age_of_a_message_that_comes_after_it(step_ns: int) -> None:
    machine = Machine()
    before_ns = machine.clock.now_ns()
    machine.ahead += step_ns
    machine.wait(10 * MS)
    now_ns = machine.clock.now_ns()
    assert now_ns - before_ns == pytest.approx(10 * MS, abs=1000)
    measured = machine.stamp() - 3 * MS  # by a sensor of the same computer, 3 ms ago
    assert machine.clock.now_ns() - machine.clock.from_stamp(measured) == pytest.approx(3 * MS, abs=2000)
    assert machine.told == [pytest.approx(step_ns / 1e9, abs=1e-5)]
    machine.clock.from_stamp(measured)
    assert len(machine.told) == 1


@pytest.mark.parametrize("step_ns", [0, 5 * S, -5 * S])
def test_stamps_of_commands_are_of_the_clock_that_stamps(step_ns: int) -> None:
    machine = Machine()
    machine.ahead += step_ns
    stamp_ns = machine.clock.to_stamp(machine.clock.now_ns())
    assert stamp_ns == pytest.approx(machine.stamp(), abs=2000)
    assert machine.clock.from_stamp(stamp_ns) == pytest.approx(machine.clock.now_ns(), abs=2000)


def test_stamps_are_kept_to_the_nanosecond_while_the_clock_is_not_set() -> None:
    """A bag of the run says exactly which samples a tick took, although clocks run at different rates."""
    machine = Machine()
    stamps = []
    for _ in range(20):
        machine.wait(10 * MS)
        machine.ahead += 20_000  # two parts in a thousand are more than any clock is slewed
        stamps.append(machine.stamp())
        assert machine.clock.to_stamp(machine.clock.from_stamp(stamps[-1])) == stamps[-1]


def test_an_interruption_between_two_readings_is_not_taken_for_a_step() -> None:
    machine = Machine()
    machine.reading_ns = 50 * MS
    stamp_ns = BEGIN + S
    assert machine.clock.from_stamp(stamp_ns) == stamp_ns
    assert machine.told == []


def test_simulated_time_is_its_own_measure() -> None:
    machine = Machine(is_steady=False)
    machine.ahead = 0
    now_ns = machine.clock.now_ns()
    machine.ahead = -4 * S  # the simulator begins again
    assert machine.clock.now_ns() == now_ns - 4 * S
    assert machine.clock.from_stamp(S) == machine.clock.to_stamp(S) == S
