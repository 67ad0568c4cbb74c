"""JSON and YAML from files that anybody may have written, as plain data: numbers, texts, lists and mappings.

No tag of YAML makes an object or runs code. Whatever is wrong is a ValueError of one line, or an OSError that names the
file: a text that is too large or too deep, aliases that refer to themselves or multiply.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 256_000_000  # of a file
_BLOCK = 1 << 20
_BRACKET = re.compile(r"[\[\]{}]")
_MAX_DEPTH = 100  # of brackets: the parser needs minutes for thousands
_MAX_NODES = 1_000_000  # of a YAML document, aliases written out


def read_text(path: str | Path) -> str:
    """The UTF-8 text of a file."""
    content = bytearray()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            content += block
            if len(content) > MAX_BYTES:
                raise ValueError(f"has more than {MAX_BYTES / 1e6:.0f} MB")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text, at byte {error.start}") from None


def read_json(path: str | Path) -> Any:
    return parse_json(read_text(path))


def parse_json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its lists and objects are nested too deep") from None


def parse_yaml(text: str) -> Any:
    return parse_yaml_lines(text)[0]


def parse_yaml_lines(text: str) -> tuple[Any, yaml.Node | None]:
    """The data, and the node that tells the line of each part."""
    if _depth(text) > _MAX_DEPTH:
        raise ValueError("its lists and mappings are nested too deep")
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, None
            _count(node, {})
            return loader.construct_document(node), node
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("its lists and mappings are nested too deep, or contain themselves") from None
    except (TypeError, AttributeError, KeyError, OverflowError) as error:  # of wrong values of known tags
        raise ValueError(f"a value cannot be read ({error})") from None


def _depth(text: str) -> int:
    """The largest number of open brackets, those in texts and comments included."""
    depth = deepest = 0
    for letter in _BRACKET.findall(text):
        depth = max(0, depth + (1 if letter in "[{" else -1))
        deepest = max(deepest, depth)
    return deepest


def _refuse_repeated(node: yaml.MappingNode) -> None:
    """ValueError where a key is given twice: PyYAML would take the last one."""
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        name, line = (key.tag, key.value), key.start_mark.line + 1
        if name in lines:
            raise ValueError(f"'{key.value}' is given in line {lines[name]} and in line {line}: keep one")
        lines[name] = line


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Nodes of the document with its aliases written out; ValueError where they are too many."""
    if id(node) in known:
        return known[id(node)]
    count = 1
    if isinstance(node, yaml.MappingNode):
        _refuse_repeated(node)
        count += sum(_count(each, known) for pair in node.value for each in pair)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_count(each, known) for each in node.value)
    if count > _MAX_NODES:
        raise ValueError("its aliases multiply to more than a million values")
    known[id(node)] = count
    return count
