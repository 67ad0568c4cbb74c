"""Errors a user can act on: one base, one line, one exit code; every other exception is a bug."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dp_ros
from dp_ros.cli.errors import CliError, describe
from dp_ros.data.bags.reader import BagError
from dp_ros.errors import FAILED, USAGE, UserError, message_of
from dp_ros.pictures import ImageSizeError
from dp_ros.policy.checkpoint_config import CheckpointError
from dp_ros.schema import ConfigError
from dp_ros.train.stopping import TrainingError


def error_classes() -> Iterator[tuple[str, str, list[str]]]:
    """(file, class, its bases) of every class of dp_ros named ...Error."""
    root = Path(dp_ros.__file__).parent
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                yield str(path.relative_to(root)), node.name, [ast.unparse(base) for base in node.bases]


def test_every_error_class_is_a_user_error() -> None:
    classes = list(error_classes())
    assert len(classes) > 15
    known = {"UserError"}
    while more := {name for _, name, bases in classes if known.intersection(bases)} - known:
        known |= more
    others = [(file, name) for file, name, _ in classes if name not in known]
    assert others == [], "derive it from dp_ros.errors.UserError, or a command shows it as a bug"


@pytest.mark.parametrize("kind", [ConfigError, ImageSizeError])
def test_wrong_settings_exit_as_usage(kind: type[UserError]) -> None:
    assert describe(kind("task: unknown")) == ("task: unknown", USAGE)


@pytest.mark.parametrize("kind", [BagError, CheckpointError, TrainingError, UserError])
def test_other_user_errors_exit_as_failed(kind: type[UserError]) -> None:
    assert describe(kind("x: is damaged")) == ("x: is damaged", FAILED)


def test_a_command_chooses_its_exit_code() -> None:
    assert describe(CliError("no")) == ("no", FAILED)
    assert describe(CliError("no", USAGE)) == ("no", USAGE)


@pytest.mark.parametrize("bug", [ValueError("x"), RuntimeError("x"), KeyError("x"), ImportError("x")])
def test_any_other_exception_is_a_bug(bug: Exception) -> None:
    assert describe(bug) is None
    assert message_of(bug) is None


def test_an_oserror_is_told_by_its_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing") as caught:
        (tmp_path / "missing").read_text()
    assert message_of(caught.value) == f"{tmp_path / 'missing'}: No such file or directory"
    assert message_of(BrokenPipeError(32, "Broken pipe")) is None, "names no file"


def test_a_message_is_one_line() -> None:
    assert message_of(UserError("two\n lines")) == "two lines"
