"""Help of every command: one line of what it does, an example that can be typed, and what each option means."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer

from dp_ros.cli import app, main
from dp_ros.cli.reference_pages import default_text, walk

COMMANDS = dict(walk(typer.main.get_command(app)))
NAMES = [" ".join(path) for path in COMMANDS]
# A number says what it counts or measures, by the option's name or in its help.
COUNTED = (
    r"number|seed|processes|threads|iterations|rate|time|limit|port|pictures|kB|MB|pixels|plans|episodes"
)
UNITS = r"minutes|seconds|second|metres|\\[s\\]|\\[m\\]|ticks|Hz|hours|std|deviation|share|size"


@pytest.fixture(params=COMMANDS, ids=NAMES)
def path(request: pytest.FixtureRequest) -> tuple[str, ...]:
    words: tuple[str, ...] = request.param
    return words


def test_help_begins_with_one_line_of_what_it_does(path: tuple[str, ...]) -> None:
    first = re.split(r"(?<=[.:]) ", " ".join(COMMANDS[path].help.split()))[0]
    assert first
    assert len(first) <= 120
    assert first[0].isupper()
    assert first.endswith((".", ":"))


def test_help_has_an_example_that_can_be_typed(path: tuple[str, ...]) -> None:
    """Each is parsed as it would be; nothing runs."""
    examples = re.findall(r"^Example: (dp_ros .+)$", COMMANDS[path].help, re.MULTILINE)
    assert len(examples) == 1
    words = shlex.split(examples[0])[1:]
    if ">" in words:
        words = words[: words.index(">")]
    assert tuple(words[: len(path)]) == path
    COMMANDS[path].make_context(" ".join(path), words[len(path) :])


def test_every_option_says_what_it_is_and_its_default(path: tuple[str, ...]) -> None:
    bare = [p.opts for p in COMMANDS[path].params if not p.help]
    assert bare == []
    silent = [
        parameter.opts
        for parameter in COMMANDS[path].params
        if is_number(parameter) and not default_text(parameter) and not is_optional_in_words(parameter)
    ]
    assert silent == []


def test_numbers_have_a_unit_or_say_what_they_count(path: tuple[str, ...]) -> None:
    vague = [
        parameter.opts
        for parameter in COMMANDS[path].params
        if is_number(parameter)
        and not re.search(f"{COUNTED}|{UNITS}", f"{' '.join(parameter.opts)} {parameter.help}", re.IGNORECASE)
    ]
    assert vague == []


def is_number(parameter: Any) -> bool:
    return isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool)


def is_optional_in_words(parameter: Any) -> bool:
    return parameter.default is None and "without" in parameter.help.lower()


@pytest.mark.parametrize(
    "words", [["--help"], ["bag", "--help"], ["bench", "--help"], ["campaign", "--help"]]
)
def test_groups_list_their_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    shown = capsys.readouterr().out
    inside = [path[len(words) - 1] for path in COMMANDS if path[: len(words) - 1] == tuple(words[:-1])]
    assert all(name in shown for name in inside)


def test_commands_that_print_results_write_them_for_scripts_too() -> None:
    """All that show figures. The others write their result to a file or folder in any case."""
    with_figures = {
        ("eval",), ("compare",), ("demo",), ("faults",), ("inspect",), ("limits",), ("doctor",), ("models",),
        ("bag", "check"),
        *(path for path in COMMANDS if path[0] == "bench"),
    }  # fmt: skip
    without = [
        path
        for path in with_figures
        if not any("--json" in parameter.opts for parameter in COMMANDS[path].params)
    ]
    assert without == []
