"""The README's table of models is what `dp_ros models` says, so that no figure in it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dp_ros.cli import main

ROOT = Path(__file__).parents[2]


def test_table_of_models_is_the_commands_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", str(ROOT / "models"), "--markdown"]) == 0
    table = capsys.readouterr().out.strip()
    text = (ROOT / "README.md").read_text()
    begin, end = "<!-- dp_ros models --markdown -->\n", "\n<!-- end -->"
    assert text[text.index(begin) + len(begin) : text.index(end)] == table, (
        "README.md: put the output of `dp_ros models --markdown` between the two comments"
    )
