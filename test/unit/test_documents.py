"""JSON and YAML that anybody may have written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dp_ros import documents
from dp_ros.documents import parse_json, parse_yaml, parse_yaml_lines, read_json, read_text

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, after in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", "\0", "1e", "'a'"])
def test_bad_json_is_a_value_error_of_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10_000,
        "- " * 10_000,
        "&a [*a]",
        "&a {b: *a}",
        LAUGHS,
        "!!python/object/apply:os.system [echo]",
        "!!python/name:os.system",
        "a: 2026-99-99",
        "{? {a: 1} : b}",
        "a: !!int x",
        "a: !!float []",
        "<<: 3",
        "a: [\n",
        "a: \x07",
        "a: *b",
        "--- 1\n--- 2",
    ],
)
def test_bad_yaml_is_a_value_error_of_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_yaml_is_data_with_lines() -> None:
    data, root = parse_yaml_lines("a: &x [1, 2]\nb: *x\n")
    assert data == {"a": [1, 2], "b": [1, 2]}
    assert root is not None
    assert root.value[1][0].start_mark.line == 1
    assert parse_yaml("") is None


def test_damaged_yaml_is_data_or_a_value_error(damaged: Callable[..., Iterator[bytes]]) -> None:
    text = b"/**:\n  ros__parameters:\n    gate: {workspace_low_m: [-0.3, 0.3, .0], ramp_s: 1e0}\n    d: 2026-01-01\n"
    refused = 0
    for content in damaged(text, 400):
        try:
            parse_yaml(content.decode("utf-8", "surrogateescape"))
        except ValueError:
            refused += 1
    assert 40 < refused < 400


@pytest.mark.parametrize("read", [read_text, read_json])
def test_file_of_other_bytes_or_of_any_size_is_refused(
    read: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match="is not UTF-8 text, at byte 7"):
        read(path)
    monkeypatch.setattr(documents, "MAX_BYTES", 10)
    path.write_text("[" + "1, " * 10 + "1]")
    with pytest.raises(ValueError, match="has more than"):
        read(path)
    with pytest.raises(OSError, match="Is a directory"):
        read(tmp_path)
