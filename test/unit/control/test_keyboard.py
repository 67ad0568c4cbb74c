"""The terminal as a gamepad: keys in, axes and buttons out, and nothing stays held that is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp_ros.control.teleop.joystick import EpisodeEvent
from dp_ros.control.teleop.keyboard import KEY_MAP, Keyboard
from dp_ros.control.teleop.teleoperation import Teleoperation
from dp_ros.schema import JoyLayout, KeyboardConfig, TeleopConfig

CONFIG = KeyboardConfig(first_hold_s=0.5, repeat_hold_s=0.1)
LAYOUT = CONFIG.layout


def at_full_speed(config: KeyboardConfig = CONFIG) -> Keyboard:
    keyboard = Keyboard(config)
    keyboard.read("+++", 0.0)
    return keyboard


def sticks(keyboard: Keyboard, now_s: float, layout: JoyLayout = LAYOUT) -> tuple[float, ...]:
    """Along x, y, z."""
    axes, _ = keyboard.joy(now_s)
    return tuple(axes[i] * d for i, d in zip(layout.axes, layout.directions, strict=True))


def buttons(keyboard: Keyboard, now_s: float) -> set[str]:
    _, pressed = keyboard.joy(now_s)
    return {name.removesuffix("_button") for name, i in LAYOUT.used_buttons.items() if pressed[i]}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("d", (1, 0, 0)),
        ("a", (-1, 0, 0)),
        ("w", (0, 1, 0)),
        ("s", (0, -1, 0)),
        ("r", (0, 0, 1)),
        ("f", (0, 0, -1)),
        ("\x1b[A", (0, 1, 0)),
        ("\x1bOB", (0, -1, 0)),
        ("\x1b[C", (1, 0, 0)),
        ("\x1b[D", (-1, 0, 0)),
        ("\x1b[5~", (0, 0, 1)),
        ("\x1b[6~", (0, 0, -1)),
    ],
)
def test_a_key_moves_along_its_axis_of_the_base_frame(key: str, expected: tuple[float, ...]) -> None:
    keyboard = at_full_speed()
    keyboard.read(key, 0.0)
    assert sticks(keyboard, 0.0) == expected
    assert buttons(keyboard, 0.0) == {"deadman"}


@pytest.mark.parametrize(
    ("key", "name"),
    [("\r", "start"), ("\n", "start"), ("y", "success"), ("n", "failure"), ("\x7f", "discard")],
)
def test_a_key_of_the_episode_is_its_button_and_moves_nothing(key: str, name: str) -> None:
    keyboard = at_full_speed()
    keyboard.read(key, 0.0)
    assert buttons(keyboard, 0.0) == {name}
    assert sticks(keyboard, 0.0) == (0, 0, 0)


def test_the_gripper_is_moved_under_the_dead_man() -> None:
    keyboard = at_full_speed()
    keyboard.read("c", 0.0)
    assert buttons(keyboard, 0.0) == {"deadman", "close"}
    keyboard.read("o", 0.1)
    assert buttons(keyboard, 0.1) == {"deadman", "open"}


def test_a_key_is_held_until_the_first_repetition_is_due_and_then_between_repetitions() -> None:
    keyboard = at_full_speed()
    keyboard.read("w", 10.0)
    assert sticks(keyboard, 10.499) == (0, 1, 0)
    assert buttons(keyboard, 10.5) == set()
    keyboard.read("w", 20.0)
    for repetition in range(10):
        now_s = 20.45 + 0.04 * repetition
        keyboard.read("w", now_s)
    assert sticks(keyboard, now_s + 0.099) == (0, 1, 0)
    assert (sticks(keyboard, now_s + 0.101), buttons(keyboard, now_s + 0.101)) == ((0, 0, 0), set())


def test_a_held_key_of_the_episode_speaks_once() -> None:
    keyboard, teleop = at_full_speed(), Teleoperation(TeleopConfig())
    events: list[EpisodeEvent] = []
    for tick in range(150):
        now_s = 0.02 * tick
        if tick == 20 or 44 <= tick < 100:
            keyboard.read("\n", now_s)
        events += teleop.joy(round(now_s * 1e9), *keyboard.joy(now_s), round(now_s * 1e9))
    assert events == ["start"]


def test_the_opposite_key_takes_over_and_another_axis_joins() -> None:
    keyboard = at_full_speed()
    keyboard.read("wr", 0.0)
    assert sticks(keyboard, 0.0) == (0, 1, 1)
    keyboard.read("s", 0.1)
    assert sticks(keyboard, 0.1) == (0, -1, 1)


def test_space_stops_at_once() -> None:
    keyboard = at_full_speed()
    keyboard.read("wdrc", 0.0)
    keyboard.read(" ", 0.01)
    assert sticks(keyboard, 0.01) == (0, 0, 0)
    assert buttons(keyboard, 0.01) == set()


def test_speed_has_steps_and_ends_and_begins_slow() -> None:
    keyboard = Keyboard(CONFIG)
    keyboard.read("w", 0.0)
    assert sticks(keyboard, 0.0) == (0, 0.4, 0)
    keyboard.read("+w", 0.0)
    assert sticks(keyboard, 0.0) == (0, 0.7, 0)
    keyboard.read("-" * 9, 0.0)
    assert sticks(keyboard, 0.0) == (0, 0.2, 0)
    keyboard.read("+" * 9, 0.0)
    assert sticks(keyboard, 0.0) == (0, 1, 0)


def test_control_sequences_are_one_key_also_when_they_come_in_pieces() -> None:
    keyboard = at_full_speed()
    for sequence in ("\x1b[1;5D", "\x1b[3~", "\x1b[200~", "\x1bOR"):  # their letters and digits are no keys
        keyboard.read(sequence, 0.0)
    assert buttons(keyboard, 0.0) == set()
    for piece in ("\x1b", "[", "A"):
        keyboard.read(piece, 0.0)
    assert sticks(keyboard, 0.0) == (0, 1, 0)
    keyboard.read("\x1b", 1.0)  # the escape key alone
    keyboard.read("d", 1.0)
    assert sticks(keyboard, 1.0) == (1, 0, 0)


def test_another_layout_is_obeyed() -> None:
    layout = JoyLayout(axes=(2, 0, 1), directions=(1, -1, 0), deadman_button=9, close_button=5)
    keyboard = at_full_speed(KeyboardConfig(layout=layout))
    keyboard.read("dwrc", 0.0)
    axes, pressed = keyboard.joy(0.0)
    assert axes == [-1.0, 0.0, 1.0]
    assert [i for i, value in enumerate(pressed) if value] == [5, 9]


@given(
    st.lists(st.tuples(st.text() | st.text("wasdrfcoyn \x1b[O5~A\n\x7f+-"), st.floats(0, 0.3)), max_size=30)
)
def test_whatever_is_typed_everything_is_let_go_after_the_longest_hold(
    typed: list[tuple[str, float]],
) -> None:
    keyboard, now_s = at_full_speed(), 0.0
    for text, pause_s in typed:
        keyboard.read(text, now_s)
        axes, pressed = keyboard.joy(now_s)
        assert all(-1 <= axis <= 1 for axis in axes)
        assert pressed[LAYOUT.deadman_button] or not any(axes)
        now_s += pause_s
    assert not any(map(any, keyboard.joy(now_s + 0.5)))


def test_the_line_that_shows_the_state_keeps_its_length() -> None:
    keyboard = at_full_speed()
    lengths = {len(keyboard.describe(0.0))}
    for key in ("w", "c", "o", "\n", "y", "-", "---"):
        keyboard.read(key, 0.0)
        lengths.add(len(keyboard.describe(0.0)))
    assert len(lengths) == 1
    assert "+y" in keyboard.describe(0.0)


def test_the_screen_fits_a_terminal() -> None:
    assert max(map(len, KEY_MAP.splitlines())) <= 78
    assert len(KEY_MAP.splitlines()) <= 20
