"""README and docs against the code: table of models, commands, options, links, length."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from dp_ros.cli import app, main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
GENERATED = ("commands.md", "reference.md", "interfaces.md")
LINK = re.compile(r"\]\((?!https?://)([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def test_table_of_models_is_the_commands_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", str(ROOT / "models"), "--markdown"]) == 0
    table = capsys.readouterr().out.strip()
    text = (ROOT / "README.md").read_text()
    begin, end = "<!-- dp_ros models --markdown -->\n", "\n<!-- end -->"
    assert text[text.index(begin) + len(begin) : text.index(end)] == table, (
        "README.md: put the output of `dp_ros models --markdown` between the two comments"
    )


def test_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    prose = [
        p for p in FENCE.sub("", text).split("\n\n") if not p.lstrip("\n").startswith(("|", "-", "#", "<"))
    ]
    assert [p for p in prose if len(p.strip("\n").splitlines()) > 3] == [], (
        "paragraphs of at most three lines"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_and_launch_files_of_the_page_exist(page: Path) -> None:
    text, makefile = page.read_text(), (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", text, re.MULTILINE))
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    launched = set(re.findall(r"\b(\w+\.launch\.py)\b", text))
    assert launched <= {path.name for path in (ROOT / "launch").iterdir()}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in GENERATED], ids=lambda page: page.name
)
def test_commands_and_options_of_the_page_exist(page: Path) -> None:
    wrong = [
        f"{' '.join(words)}: {why}" for words in commands(page.read_text()) if (why := unknown_part(words))
    ]
    assert wrong == []


def test_layer_diagram_is_the_rule_that_lint_checks() -> None:
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(rule["layers"] for rule in rules if rule["id"] == "layers")
    text = (ROOT / "CONTRIBUTING.md").read_text()
    diagram = re.search(r"^```\n(cli .*?)\n```$", text, re.MULTILINE | re.DOTALL)
    assert diagram is not None
    rows = [line.split("  ")[0] for line in diagram[1].splitlines()]
    assert rows == [layer.translate(str.maketrans("", "", "()")) for layer in layers]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> Iterator[list[str]]:
    """Each `dp_ros ...` of a page, in code blocks and in the text, as words."""
    code = [line for block in FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    code += [" ".join(span.split()) for span in re.findall(r"`(dp_ros [^`]+)`", FENCE.sub("", text))]
    for line in code:
        words = shlex.split(line, comments=True)
        if words[:1] == ["dp_ros"] and len(words) > 1:
            yield words[1:]


def unknown_part(words: list[str]) -> str:
    """Which word of a command does not exist; empty where all do."""
    known: Any = typer.main.get_command(app)
    for i, word in enumerate(words):
        if word.startswith("-") or not hasattr(known, "commands"):
            options = {
                name for parameter in known.params for name in (*parameter.opts, *parameter.secondary_opts)
            }
            if (
                known.context_settings.get("ignore_unknown_options") and "--ros-args" in words
            ):  # the rest goes to the node
                words = words[: words.index("--ros-args")]
            given = [each for each in words[i:] if re.match(r"--?[a-z]", each)]
            return next((each for each in given if each not in options), "")
        if word in ("|", "...", "COMMAND", "NAME"):
            return ""
        if word not in known.commands:
            return f"no command {word}"
        known = known.commands[word]
    return ""
