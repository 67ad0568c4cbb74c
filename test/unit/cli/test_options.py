"""Readers of the options that several commands share."""

from __future__ import annotations

import pytest

from dp_ros.cli.errors import CliError
from dp_ros.cli.options import given, numbers, picture_sizes, size_px
from dp_ros.errors import USAGE


def test_only_typed_options_replace_defaults() -> None:
    typed = given(episodes=None, cameras=[], markers=False, jobs=0, **size_px(None))
    assert typed == {"markers": False, "jobs": 0}


@pytest.mark.parametrize(("text", "size"), [("96x64", (96, 64)), ("96", (96, 96))])
def test_a_size_is_two_fields(text: str, size: tuple[int, int]) -> None:
    assert size_px(text) == {"width_px": size[0], "height_px": size[1]}


@pytest.mark.parametrize("text", ["", "big", "96x", "x96", "96x64x3", "-96"])
def test_a_wrong_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(CliError, match="give WIDTHxHEIGHT in pixels") as caught:
        size_px(text)
    assert caught.value.exit_code == USAGE


def test_sizes_and_fits_are_of_all_cameras_or_of_one() -> None:
    assert picture_sizes(None, None) == {}
    assert picture_sizes(["96"], ["crop"]) == {"width_px": 96, "height_px": 96, "fit": "crop"}
    typed = picture_sizes(["96x64", "front=160x90", "top=32"], ["front=pad", "crop", "wrist=same"])
    assert typed == {
        "width_px": 96,
        "height_px": 64,
        "fit": "crop",
        "pictures": {
            "front": {"width_px": 160, "height_px": 90, "fit": "pad"},
            "top": {"width_px": 32, "height_px": 32},
            "wrist": {"fit": "same"},
        },
    }
    with pytest.raises(CliError, match="the camera is missing before '='"):
        picture_sizes(["=96"], None)


def test_numbers_are_read_in_order() -> None:
    assert numbers("--noise", "0,0.3", "0,0.6") == (0.0, 0.3)
    assert numbers("--noise", None, "0,0.6") is None


@pytest.mark.parametrize(("text", "count"), [("", 0), ("much", 0), ("0,,1", 0), ("1", 2), ("1,2,3", 2)])
def test_wrong_numbers_are_refused_with_an_example(text: str, count: int) -> None:
    with pytest.raises(CliError, match=r"--range '.*': give (2 )?numbers with commas between, e.g. 0,100"):
        numbers("--range", text, "0,100", count=count)


@pytest.mark.parametrize("command", ["collect", "convert"])
def test_help_of_size_says_what_one_number_is_and_both_defaults(command: str) -> None:
    """`collect` has a default size, `convert` keeps what was recorded: each says so of both."""
    import typer

    from dp_ros.cli import app

    parameters = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    (size,) = (parameter for parameter in parameters if parameter.name == "size")
    text = f"{size.help} {size.show_default}"
    for said in ("96 means 96x96", "224x224", "as recorded"):
        assert said in text
