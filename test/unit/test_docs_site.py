"""The site of docs/: its navigation has every page once, in the kinds and the order of docs/README.md."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
KINDS = {"Tutorials": "Tutorials", "How-to": "How to", "Reference": "Reference", "Explanation": "Explanation"}


def navigation() -> dict[str, list[str]]:
    """Kind -> its pages."""
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert nav[0] == "README.md"
    return {
        kind: [page for entry in pages for page in entry.values()]
        for part in nav[1:]
        for kind, pages in part.items()
    }


def test_every_page_is_in_the_navigation_once() -> None:
    shown = [page for pages in navigation().values() for page in pages]
    assert sorted(shown) == sorted(
        path.name for path in (ROOT / "docs").glob("*.md") if path.name != "README.md"
    )


def test_the_index_has_the_same_pages_in_the_same_kinds() -> None:
    index = (ROOT / "docs/README.md").read_text()
    parts = dict(re.findall(r"^\*\*([^*]+)\*\*\n(.*?)(?=\n\n|\Z)", index, re.MULTILINE | re.DOTALL))
    for kind, pages in navigation().items():
        assert re.findall(r"\]\((\w[\w-]*\.md)\)", parts[KINDS[kind]]) == pages


def test_links_out_of_docs_become_names() -> None:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs/site_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    text = "See [the layers](../CONTRIBUTING.md#where-code-goes), [speed](speed.md) and [x](https://example.org)."
    said = "See the layers (`CONTRIBUTING.md`), [speed](speed.md) and [x](https://example.org)."
    assert hooks.on_page_markdown(text) == said


def test_the_built_site_is_not_committed() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["site_dir"]
    assert f"{site.split('/')[0]}/" in (ROOT / ".gitignore").read_text().splitlines()
