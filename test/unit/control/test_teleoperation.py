"""Teleoperation: what a person asks for comes out in metres and seconds; whatever goes wrong stands still."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dp_ros.control.safety import Verdict
from dp_ros.control.teleop.joystick import EpisodeEvent, TeleopHold
from dp_ros.control.teleop.teleoperation import TeleopDecision, Teleoperation
from dp_ros.poses import angle_rad, make_pose
from dp_ros.schema import CommandLimits, Config, JoyLayout, KeyboardConfig, TeleopConfig, override

HOME = (0.0, 0.6, 0.2)
DT_NS = 12_500_000
CONFIG = TeleopConfig(
    axis_speed_m_s=(0.1, 0.2, 0.3),
    max_speed_m_s=0.3,
    max_acceleration_m_s2=1.0,
    gripper_speed_per_s=4.0,
    joy_timeout_s=0.2,
    dead_zone=0.1,
    gate=CommandLimits(max_distance_m=0.0),  # the measured arm of most tests does not follow
)
LAYOUT = CONFIG.layout
START, SUCCESS = EpisodeEvent.START, EpisodeEvent.SUCCESS


class Person:
    """Holds a gamepad; every tick sends what it says and what the robot measures, then ticks."""

    def __init__(self, config: TeleopConfig = CONFIG, **changes: Any) -> None:
        self.teleop = Teleoperation(override(config, changes))
        self.now_ns = 10**9
        self.position_m: tuple[float, ...] = HOME
        self.orientation: Sequence[float] = (0.0, 1.0, 0.0, 0.0)
        self.opening: float | None = 0.5  # measured; half open is the gripper command 0
        self.sticks = [0.0, 0.0, 0.0]  # along x, y, z
        self.down: set[str] = set()
        self.silent: set[str] = set()  # of "joy", "pose"
        self.decisions: list[TeleopDecision] = []
        self.events: list[EpisodeEvent] = []

    def message(self) -> tuple[list[float], list[int]]:
        axes, buttons = [0.0] * 8, [0] * 11
        for index, direction, value in zip(LAYOUT.axes, LAYOUT.directions, self.sticks, strict=True):
            axes[index] = direction * value
        for name in self.down:
            buttons[LAYOUT.used_buttons[f"{name}_button"]] = 1
        return axes, buttons

    def send(self, axes: Any = None, stamp_ns: int | None = None) -> None:
        own, buttons = self.message()
        stamp_ns = self.now_ns if stamp_ns is None else stamp_ns
        self.events += self.teleop.joy(stamp_ns, own if axes is None else axes, buttons, self.now_ns)

    def tick(self, n: int = 1, dt_ns: int = DT_NS) -> TeleopDecision:
        for _ in range(n):
            self.now_ns += dt_ns
            if "pose" not in self.silent:
                self.teleop.observe(self.now_ns, make_pose(self.position_m, self.orientation), self.now_ns)
            if self.opening is not None:
                self.teleop.observe_opening(self.opening)
            if "joy" not in self.silent:
                self.send()
            self.decisions.append(self.teleop.tick(self.now_ns))
        return self.decisions[-1]

    def press(self, *sticks: float) -> None:
        """The dead-man button goes down in the next tick, the sticks with it."""
        self.down.discard("deadman")
        self.tick()
        self.down.add("deadman")
        self.sticks = list(sticks)


def position(decision: TeleopDecision) -> NDArray[np.float64]:
    assert decision.command is not None
    return decision.command.position_m


def driven(*sticks: float, **changes: Any) -> Person:
    """A person who has driven for a second, long enough for the full speed."""
    person = Person(**changes)
    person.press(*sticks)
    person.tick(80)
    assert person.decisions[-1].moves
    return person


# ---- motion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sticks", "velocity_m_s"),
    [
        ((1.0, 0.0, 0.0), (0.1, 0.0, 0.0)),
        ((0.0, -1.0, 0.0), (0.0, -0.2, 0.0)),
        ((0.0, 0.0, 0.55), (0.0, 0.0, 0.15)),  # half of what is beyond the dead zone
        ((40.0, 0.0, 0.0), (0.1, 0.0, 0.0)),  # a driver that does not scale
        ((0.0, 1.0, 1.0), (0.0, 0.3 * 2 / math.sqrt(13), 0.3 * 3 / math.sqrt(13))),  # 0.36 m/s is too fast
        ((0.1, -0.1, 0.05), (0.0, 0.0, 0.0)),
    ],
)
def test_a_stick_is_a_speed_in_metres_per_second(
    sticks: tuple[float, ...], velocity_m_s: tuple[float, ...]
) -> None:
    person = driven(*sticks)
    before = position(person.decisions[-1])
    after = position(person.tick(20))
    np.testing.assert_allclose((after - before) / 0.25, velocity_m_s, atol=1e-9)
    assert person.decisions[-1].verdict is Verdict.PASS


def test_the_speed_grows_and_falls_no_faster_than_allowed() -> None:
    person = Person()
    person.press(0.0, 1.0, 0.0)
    person.tick(40)
    person.sticks = [0.0, 0.0, 0.0]  # the stick is let go, the dead-man button is not
    person.tick(40)
    path = np.array([position(decision) for decision in person.decisions if decision.command])
    speed = np.linalg.norm(np.diff(path, axis=0, prepend=[HOME]), axis=1) / 0.0125
    assert np.abs(np.diff(speed)).max() <= 1.0 * 0.0125 + 1e-9
    assert speed.max() == pytest.approx(0.2)
    assert speed[-1] == 0.0
    np.testing.assert_allclose(speed[:5], 0.0125 * np.arange(1, 6))


def test_nothing_is_commanded_before_the_first_press_which_starts_where_the_arm_is() -> None:
    person = Person()
    person.sticks = [1.0, 1.0, 1.0]
    assert {(d.command, d.verdict) for d in [person.tick(), person.tick()]} == {(None, TeleopHold.RELEASED)}
    assert person.teleop.hold(person.now_ns) is None
    person.position_m = (0.1, 0.5, 0.3)  # moved by hand meanwhile
    person.sticks = [0.0, 0.0, 0.0]
    person.press(1.0, 1.0, 1.0)
    assert np.linalg.norm(position(person.tick()) - person.position_m) <= 1.0 * 0.0125**2 + 1e-12


def test_the_next_press_goes_on_from_the_last_command_not_from_where_the_arm_sags() -> None:
    person = driven(0.0, 1.0, 0.0)
    last = position(person.decisions[-1])
    person.down.clear()
    person.position_m = (0.0, 0.7, 0.18)
    person.tick(10)
    person.press(0.0, 0.0, 0.0)
    np.testing.assert_array_equal(position(person.tick(10)), last)


def test_a_release_stops_within_one_tick_and_for_good() -> None:
    person = driven(1.0, 1.0, 1.0)
    last = position(person.decisions[-1])
    person.down.discard("deadman")
    for _ in range(200):
        decision = person.tick()
        assert decision.verdict is TeleopHold.RELEASED
        np.testing.assert_array_equal(position(decision), last)
        assert decision.command.stamp_ns == person.now_ns  # type: ignore[union-attr]


def test_a_late_tick_is_no_leap() -> None:
    person = driven(0.0, 1.0, 0.0)
    before = position(person.decisions[-1])
    after = position(person.tick(dt_ns=10 * DT_NS))
    assert np.linalg.norm(after - before) <= 0.2 * 0.0125 + 1e-9


def test_the_wall_stops_the_arm_and_leaves_no_speed_to_get_rid_of() -> None:
    person = Person(**{"gate.workspace_high_m": (0.5, 0.62, 0.6)})
    person.press(0.0, 1.0, 0.0)
    assert person.tick(80).verdict is Verdict.LIMITED_WORKSPACE
    assert position(person.decisions[-1])[1] == 0.62
    person.sticks = [0.0, -1.0, 0.0]
    assert position(person.tick())[1] < 0.62


def test_an_arm_outside_the_workspace_gets_no_command_and_one_at_its_border_comes_in_slowly() -> None:
    person = Person()
    person.position_m = (0.0, 600.0, 200.0)
    person.press(0.0, 0.0, 0.0)
    decision = person.tick(3)
    assert (decision.command, decision.verdict) == (None, TeleopHold.OUTSIDE)
    assert "(0, 600, 200) m, outside the workspace" in decision.detail
    person.position_m = (0.0, 0.29, 0.2)
    path = [position(person.tick()) for _ in range(20)]
    steps = np.linalg.norm(np.diff(path, axis=0, prepend=[person.position_m]), axis=1)
    assert steps.max() <= 0.3 * 0.0125 * (1 + 1e-6)
    assert path[-1][1] == 0.3


@pytest.mark.parametrize(("button", "towards"), [("close", 1.0), ("open", -1.0)])
def test_the_gripper_moves_at_its_speed_while_its_button_and_the_dead_man_are_held(
    button: str, towards: float
) -> None:
    person = driven(0.0, 0.0, 0.0)
    person.down.add(button)
    commands = [person.tick().command for _ in range(30)]
    grippers = [command.gripper for command in commands if command]
    np.testing.assert_allclose(grippers[:20], towards * 4.0 * 0.0125 * np.arange(1, 21))
    assert grippers[-1] == towards
    person.down = {"close" if button == "open" else "open"}
    held = person.tick(10).command
    assert held is not None
    assert held.gripper == towards


def test_an_axis_may_move_the_gripper_too() -> None:
    person = driven(0.0, 0.0, 0.0, **{"layout.gripper_axis": 3})
    for _ in range(10):
        axes, _ = person.message()
        axes[3] = 0.55
        person.silent = {"joy"}
        person.now_ns += DT_NS
        person.send(axes)
        person.now_ns -= DT_NS
        person.tick()
    command = person.decisions[-1].command
    assert command is not None
    assert command.gripper == pytest.approx(0.5 * 4.0 * 0.125)


def gripper(person: Person) -> float | None:
    command = person.tick().command
    assert command is not None
    return command.gripper


@pytest.mark.parametrize(("opening", "command"), [(0.0, 1.0), (0.25, 0.5), (1.0, -1.0), (1.3, -1.0)])
def test_first_gripper_command_repeats_the_measured_opening(opening: float, command: float) -> None:
    person = Person()
    person.opening = opening
    person.press(1.0, 0.0, 0.0)
    assert gripper(person) == pytest.approx(command)
    person.opening = 0.5  # what is measured later changes nothing
    assert gripper(person) == pytest.approx(command)


def test_first_gripper_command_repeats_what_another_node_commanded_last() -> None:
    """A hand that holds an object is measured half open; what holds it is the last command."""
    person = Person()
    person.opening = 0.4
    for heard in (1.0, math.nan, 40.0):  # the last two are no commands
        person.teleop.hear_gripper(heard)
    person.press(0.0, 0.0, 0.0)
    assert gripper(person) == 1.0
    person.teleop.reset()
    person.press(0.0, 0.0, 0.0)
    assert gripper(person) == 1.0


def test_unknown_gripper_is_not_commanded_until_the_person_moves_it() -> None:
    person = Person()
    person.opening = None
    person.press(1.0, 0.0, 0.0)
    assert [gripper(person) for _ in range(5)] == [None] * 5
    assert person.decisions[-1].moves
    person.down.add("close")
    assert gripper(person) == pytest.approx(4.0 * 0.0125)


def test_a_gap_of_the_pose_does_not_open_the_hand() -> None:
    person = driven(0.0, 0.0, 0.0)
    person.down.add("close")
    person.tick(80)
    person.silent = {"pose"}
    person.tick(80)
    person.silent = set()
    person.down = set()
    assert person.tick().command is None
    person.press(0.0, 0.0, 0.0)
    assert person.tick().command.gripper == 1.0  # type: ignore[union-attr]


# ---- what must stop the arm ------------------------------------------------------------------------------


def test_joy_that_falls_silent_stops_the_arm_until_the_button_is_pressed_anew() -> None:
    person = driven(0.0, 1.0, 0.0)
    person.silent = {"joy"}
    person.tick(16)
    assert person.decisions[-1].moves  # 0.2 s, no more
    last = position(person.decisions[-1])
    decision = person.tick(100)
    assert decision.verdict is TeleopHold.JOY_STALE
    assert (
        "no Joy message within 0.2 s: start the joystick's node with an autorepeat_rate above 5 Hz"
        in decision.detail
    )
    person.silent = set()
    assert person.tick(20).verdict is TeleopHold.PRESS_AGAIN
    np.testing.assert_array_equal(position(person.decisions[-1]), last)
    person.press(0.0, 1.0, 0.0)
    assert person.tick().verdict is TeleopHold.NOT_AT_REST  # after silence it may be another driver
    person.sticks = [0.0, 0.0, 0.0]
    person.press(0.0, 1.0, 0.0)
    assert person.tick().moves


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ([math.nan] * 8, "axis 0 of joy is not a finite number"),
        ([0.0, 0.0, 0.0, 0.0, math.inf, 0.0, 0.0, 0.0], "axis 4 of joy is not a finite number"),
        ([0.0, 0.0, 0.0, 0.0], "joy has 4 axes and 11 buttons, layout needs 5 and 8"),
        ([], "joy has 0 axes"),
    ],
)
def test_axes_that_make_no_sense_hold_and_say_why(axes: list[float], says: str) -> None:
    person = driven(0.0, 1.0, 0.0)
    last = position(person.decisions[-1])
    person.silent = {"joy"}
    for _ in range(5):
        person.send(axes)
        decision = person.tick()
        assert decision.verdict is TeleopHold.JOY_REFUSED
        assert says in decision.detail
        np.testing.assert_array_equal(position(decision), last)
    person.silent = set()
    assert person.tick().verdict is TeleopHold.PRESS_AGAIN  # what was held all the time is not pressed
    np.testing.assert_array_equal(position(person.decisions[-1]), last)


def test_a_pose_that_stops_holds_and_one_that_comes_back_soon_goes_on_from_standstill() -> None:
    person = driven(0.0, 1.0, 0.0)
    person.silent = {"pose"}
    person.tick(8)
    assert person.decisions[-1].moves  # 0.1 s
    last = position(person.decisions[-1])
    decision = person.tick(10)
    assert decision.verdict is Verdict.HOLD_STALE
    assert "ee_pose: nothing valid within 0.1 s" in decision.detail
    np.testing.assert_array_equal(position(decision), last)
    person.silent = set()
    assert np.linalg.norm(position(person.tick()) - last) <= 1.0 * 0.0125**2 + 1e-12


def test_a_pose_that_is_not_finite_is_no_pose() -> None:
    person = driven(0.0, 1.0, 0.0)
    person.position_m = (math.nan, 0.6, 0.2)
    assert person.tick(20).verdict is Verdict.HOLD_STALE


@pytest.mark.parametrize("jump_ns", [2 * 10**9, -(10**9)], ids=["forwards", "backwards"])
def test_after_a_jump_in_time_nothing_is_commanded_until_a_press_at_the_new_place(jump_ns: int) -> None:
    """The simulated robot is put elsewhere: the last command would drive it back."""
    person = driven(0.0, 1.0, 0.0)
    person.now_ns += jump_ns
    person.position_m = (0.1, 0.5, 0.1)
    for _ in range(5):
        decision = person.tick()
        assert decision.command is None
        assert ("time went back by" in decision.detail) is (jump_ns < 0)
    person.press(0.0, 0.0, 0.0)
    np.testing.assert_array_equal(position(person.tick()), person.position_m)
    assert person.decisions[-1].detail == ""


def test_after_forget_nothing_is_commanded_until_a_press() -> None:
    person = driven(0.0, 1.0, 0.0)
    person.teleop.forget()
    assert (person.tick().command, person.decisions[-1].verdict) == (None, TeleopHold.PRESS_AGAIN)
    person.press(0.0, 0.0, 0.0)
    np.testing.assert_array_equal(position(person.tick()), HOME)


@pytest.mark.parametrize("sticks", [(0.99, 0.0, 0.0), (0.0, 0.0, -1.0), (0.99, 0.99, 0.99)])
def test_axis_moves_nothing_until_it_was_seen_at_rest(sticks: tuple[float, ...]) -> None:
    """Some drivers report an axis at its end until it is touched for the first time."""
    person = Person()
    person.sticks = list(sticks)
    person.press(*sticks)
    decision = person.tick(20)
    assert (decision.verdict, decision.command) == (TeleopHold.NOT_AT_REST, None)
    first = next(axis for axis, value in zip(LAYOUT.axes, sticks, strict=True) if value)
    assert f"axis {first} of joy has not been seen at rest (0)" in decision.detail
    person.sticks = [0.0, 0.05, 0.0]  # inside the dead zone
    assert person.tick().moves
    person.sticks = list(sticks)
    assert person.tick(20).moves
    np.testing.assert_array_equal(np.sign(position(person.decisions[-1]) - HOME), np.sign(sticks))


def test_axis_that_moves_nothing_need_not_rest() -> None:
    person = Person(**{"layout.directions": (0, 1, 1)})
    person.sticks = [1.0, 0.0, 0.0]
    own = person.message()[0]
    own[LAYOUT.axes[0]] = 0.99
    person.silent = {"joy"}
    for down in (set(), {"deadman"}):
        person.down = down
        person.now_ns += DT_NS
        person.send(own)
        person.now_ns -= DT_NS
        decision = person.tick()
    assert decision.moves


@pytest.mark.parametrize(("direction", "towards"), [(1, -1.0), (-1, 1.0)])
def test_trigger_rests_at_the_end_of_its_range(direction: int, towards: float) -> None:
    """A trigger reads 1 when released and -1 when pulled: released, it must not close the hand."""
    layout = {"layout.gripper_axis": 2, "layout.gripper_rest": 1.0, "layout.gripper_direction": direction}
    person = Person(**layout)
    person.silent = {"joy"}

    def tick(trigger: float, *down: str) -> TeleopDecision:
        person.down = set(down)
        axes = person.message()[0]
        axes[2] = trigger
        person.now_ns += DT_NS
        person.send(axes)
        person.now_ns -= DT_NS
        return person.tick()

    tick(0.0)  # a driver that reports 0 until it is touched
    assert tick(0.0, "deadman").verdict is TeleopHold.NOT_AT_REST
    for _ in range(20):
        decision = tick(1.0, "deadman")
    assert decision.command is not None
    assert (decision.moves, decision.command.gripper) == (True, 0.0)
    for _ in range(40):
        decision = tick(-1.0, "deadman")
    assert decision.command is not None
    assert decision.command.gripper == towards


def test_joy_that_repeats_its_last_state_for_ever_stops_the_arm() -> None:
    """A gamepad without its receiver: the driver repeats the pushed stick with fresh stamps."""
    person = driven(0.0, 0.3, 0.0, joy_frozen_s=2.0)
    person.tick(round(2.0 / 0.0125))
    decision = person.tick(20)
    assert decision.verdict is TeleopHold.JOY_FROZEN
    assert decision.is_trouble
    assert "has not changed for 2 s" in decision.detail
    last = position(decision)
    person.tick(800)
    np.testing.assert_array_equal(position(person.decisions[-1]), last)
    person.sticks = [0.0, 0.29, 0.0]  # the person is there
    assert person.tick().moves


def test_hand_that_rests_with_the_deadman_button_held_is_not_frozen() -> None:
    person = driven(0.0, 0.0, 0.0, joy_frozen_s=2.0)
    assert person.tick(800).moves


def test_a_button_held_from_the_beginning_does_not_count_as_pressed() -> None:
    person = Person()
    person.sticks, person.down = [0.0, 1.0, 0.0], {"deadman", "success"}
    assert person.tick(20).verdict is TeleopHold.PRESS_AGAIN
    assert person.decisions[-1].command is None
    assert person.events == []


@pytest.mark.parametrize(("offset_s", "side"), [(1.7e9, "after"), (-3.0, "before")])
def test_joy_of_another_clock_is_refused_with_what_to_do(offset_s: float, side: str) -> None:
    person = Person()
    person.silent = {"joy"}
    for down in [set(), {"deadman"}] * 10:
        person.down = down
        person.send(stamp_ns=person.now_ns + round(offset_s * 1e9))
        decision = person.tick()
        assert (decision.verdict, decision.command) == (TeleopHold.JOY_STALE, None)
    assert f"s {side} this node's time: give use_sim_time to both nodes" in decision.detail
    said = {decision.detail for decision in person.decisions}
    assert len(said) == 2  # no message; then the wrong clock, with numbers that do not change


def test_joy_without_a_stamp_is_refused_with_what_to_do() -> None:
    """Web joysticks and `ros2 topic pub` leave it at 0: no clock is wrong then."""
    person = Person()
    person.silent = {"joy"}
    for _ in range(20):
        person.send(stamp_ns=0)
        decision = person.tick()
    assert decision.verdict is TeleopHold.JOY_STALE
    assert decision.detail == "joy has no stamp (0): its publisher must stamp each message with the time"


def test_a_message_that_was_under_way_while_time_was_put_forward_is_no_wrong_clock() -> None:
    person = driven(0.0, 1.0, 0.0)
    person.silent = {"joy"}
    person.now_ns += 2 * 10**9
    person.send(stamp_ns=person.now_ns - 2 * 10**9)
    assert "no Joy message" in person.tick().detail


def test_joy_of_a_clock_a_little_ahead_does_not_count_as_new_for_longer() -> None:
    person = driven(0.0, 1.0, 0.0)
    person.silent = {"joy"}
    person.send(stamp_ns=person.now_ns + 10**8)
    assert person.tick(16).moves
    assert person.tick().verdict is TeleopHold.JOY_STALE


@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=4, max_size=8),
            st.sets(st.sampled_from(["deadman", "close", "open", "start"])) | st.just({"deadman"}),
            st.tuples(*[st.floats(-1.0, 1.5) | st.sampled_from([math.nan, 0.5])] * 3) | st.just(HOME),
            st.integers(-DT_NS, 40 * DT_NS) | st.just(DT_NS),
            st.sets(st.sampled_from(["joy", "pose"])) | st.just(set()),
        ),
        max_size=30,
    )
)
def test_whatever_comes_in_speed_acceleration_and_workspace_hold(
    script: list[tuple[list[float], set[str], tuple[float, ...], int, set[str]]],
) -> None:
    person = Person()
    person.press(1.0, 1.0, 1.0)
    person.tick(5)
    low, high = np.array(CONFIG.gate.workspace_low_m), np.array(CONFIG.gate.workspace_high_m)
    before = person.decisions[-1].command
    seen = np.array(HOME)  # the newest pose that arrived
    for axes, down, measured, dt_ns, silent in script:
        person.down, person.position_m, person.silent = down, measured, silent | {"joy"}
        if "joy" not in silent:
            person.send(axes)
        if "pose" not in silent and np.isfinite(measured).all():
            seen = np.array(measured)
        decision = person.tick(dt_ns=dt_ns)
        command = decision.command
        if command is not None:
            assert np.isfinite(command.as_array()).all()
            assert -1.0 <= command.gripper <= 1.0
            start = before.position_m if before is not None else seen
            assert np.linalg.norm(command.position_m - start) <= 0.3 * 0.0125 * (1 + 1e-6)
            if ((low <= start) & (start <= high)).all():
                assert ((low <= command.position_m) & (command.position_m <= high)).all()
            if not decision.moves:
                assert before is not None
                np.testing.assert_array_equal(command.as_array(), before.as_array())
        before = command


def test_every_setting_says_what_it_is() -> None:
    """They become the parameters of the nodes, where nothing else explains them."""
    for model in (JoyLayout, KeyboardConfig, TeleopConfig):
        nested = {name for name, field in model.model_fields.items() if isinstance(field.default, Config)}
        undescribed = {name for name, field in model.model_fields.items() if not field.description}
        assert undescribed == nested, model


# ---- the episode -----------------------------------------------------------------------------------------


def test_buttons_of_the_episode_speak_once_per_press_with_or_without_the_dead_man() -> None:
    person = Person()
    person.tick(10)
    for button, down in [("start", set()), ("success", {"deadman"}), ("failure", set()), ("discard", set())]:
        person.down = {button, *down}
        person.tick(20)
        person.down = set()
        person.tick(20)
    assert person.events == ["start", "success", "failure", "discard"]


def test_a_button_that_bounces_speaks_once() -> None:
    person = Person()
    person.tick(10)
    for down in ({"start"}, set(), {"start"}, set(), {"start"}):
        person.down = down
        person.tick()
    person.tick(20)
    for down in (set(), {"start"}, set()):
        person.down = down
        person.tick()
    assert person.events == [START]
    person.tick(20)
    person.down = {"start"}
    person.tick()
    assert person.events == [START, START]


def test_a_press_and_release_between_two_ticks_is_heard() -> None:
    person = Person()
    person.tick(10)
    person.now_ns += DT_NS // 4
    person.down = {"success"}
    person.send()
    person.now_ns += DT_NS // 4
    person.down = set()
    person.send()
    person.tick()
    assert person.events == [SUCCESS]


def test_messages_that_come_late_are_ignored() -> None:
    person = driven(0.0, 1.0, 0.0)
    person.down = {"success"}
    person.send(stamp_ns=person.now_ns - DT_NS)
    person.down = {"deadman"}
    assert person.tick().moves
    assert person.events == []


# ---- the tool's orientation ------------------------------------------------------------------------------


def tilted(angle_rad: float) -> list[float]:
    return [math.sin(angle_rad / 2), 0.0, 0.0, math.cos(angle_rad / 2)]


@pytest.mark.parametrize("tilt_deg", [0, 30, 180])
def test_tilted_tool_keeps_its_orientation_from_the_first_press_to_the_end(tilt_deg: float) -> None:
    """The largest turn ever commanded is 0, while it moves, when it is released and when something is wrong."""
    person = Person()
    person.orientation = tilted(math.radians(tilt_deg))
    person.press(1.0, 1.0, 0.0)
    person.tick(40)
    person.silent = {"pose"}
    person.tick(20)
    person.silent = set()
    person.down = set()
    person.tick(20)
    person.press(-1.0, 0.0, 1.0)
    person.tick(40)
    commands = [decision.command for decision in person.decisions if decision.command]
    assert len(commands) > 100
    last = person.teleop.hold(person.now_ns)
    assert last is not None
    assert max(angle_rad(command.orientation, person.orientation) for command in [*commands, last]) == 0.0


def test_while_the_tool_is_measured_turned_there_is_no_command_until_a_press_begins_with_it() -> None:
    person = Person()
    person.orientation = tilted(0.0)
    person.press(0.0, 1.0, 0.0)
    person.tick(20)
    person.orientation = tilted(0.3)
    person.down = set()
    person.tick(5)
    person.press(0.0, 1.0, 0.0)
    assert person.tick().command is not None
    person.orientation = tilted(math.pi)  # half of a turn
    person.teleop.observe(
        person.now_ns + 1, make_pose(person.position_m, person.orientation), person.now_ns + 1
    )
    assert person.teleop.hold(person.now_ns + 1) is None
    held = person.tick()
    assert (held.verdict, held.command) == (Verdict.HOLD_TURNED, None)
    assert held.is_trouble
    assert "max_turn_rad" in held.detail
    waiting = person.tick()
    assert waiting.command is None
    assert waiting.detail.startswith(held.detail)
    person.press(0.0, 1.0, 0.0)
    command = person.tick().command
    assert command is not None
    assert angle_rad(command.orientation, person.orientation) == 0.0
    assert np.linalg.norm(command.position_m - np.array(person.position_m)) < 0.001


def test_pose_without_a_valid_orientation_is_no_pose() -> None:
    person = Person()
    person.orientation = (0.0, 0.0, 0.0, 0.0)
    person.press(1.0, 0.0, 0.0)
    assert person.tick().verdict is Verdict.HOLD_STALE
    assert person.tick().command is None


def test_an_arm_that_was_moved_by_hand_gets_no_command_until_a_press_begins_there() -> None:
    person = Person(**{"gate.max_distance_m": 0.05})
    person.press(0.0, 0.0, 0.0)
    assert person.tick(5).moves
    person.down.clear()
    person.tick(20)
    person.position_m = (0.0, 0.6, 0.24)
    assert position(person.tick(40))[2] == 0.2  # near enough: it sagged
    person.position_m = (0.3, 0.6, 0.2)
    decision = person.tick()
    assert (decision.command, decision.verdict) == (None, Verdict.HOLD_FAR)
    assert "max_distance_m" in decision.detail
    assert person.tick(10).command is None
    person.press(0.0, 0.0, 0.0)
    np.testing.assert_array_equal(position(person.tick()), person.position_m)


def test_an_arm_behind_its_commands_by_its_lag_is_not_far() -> None:
    person = Person(**{"gate.max_distance_m": 0.03})
    person.press(0.0, 1.0, 0.0)
    for _ in range(60):
        assert person.tick().moves  # 0.2 m/s
        lagging = [decision.command for decision in person.decisions if decision.command][-16:]
        person.position_m = tuple(lagging[0].position_m)
    assert np.linalg.norm(position(person.decisions[-1]) - person.position_m) > 0.03


def test_without_a_pose_the_command_is_not_repeated_for_ever() -> None:
    """A robot that restarts would leap to it."""
    person = driven(0.0, 0.0, 0.0)
    person.down.clear()
    person.silent.add("pose")
    assert person.tick(39).command is not None
    decision = person.tick(2)
    assert (decision.command, decision.verdict) == (None, Verdict.HOLD_STALE)
    assert "max_pose_age_s" in decision.detail
    assert person.tick(100).command is None
    person.silent.clear()
    person.position_m = (0.1, 0.7, 0.3)
    assert person.tick(5).command is None
    person.press(0.0, 0.0, 0.0)
    np.testing.assert_array_equal(position(person.tick()), person.position_m)


def test_a_stop_holds_until_it_is_released_and_the_button_pressed_again() -> None:
    person = driven(0.0, 1.0, 0.0)
    person.teleop.stopped = "emergency stop"
    held = person.tick()
    assert (held.verdict, held.detail) == (Verdict.HOLD_STOPPED, "emergency stop")
    np.testing.assert_array_equal(position(person.tick(10)), position(held))
    person.teleop.stopped = ""
    after = person.tick(10)
    assert after.verdict is TeleopHold.PRESS_AGAIN
    np.testing.assert_array_equal(position(after), position(held))
    person.press(0.0, 1.0, 0.0)
    assert person.tick(5).moves
