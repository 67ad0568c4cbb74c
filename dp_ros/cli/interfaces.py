"""Topics and services of the nodes, read from their source, as a table. Needs no ROS.

Found are topics that a node names where it makes the publisher, subscription or service. Topics that follow from
settings, such as the pictures of a policy's cameras, are described in docs/topics.md only.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_KINDS = {
    "publisher": "publishes",
    "publish": "publishes",
    "subscription": "subscribes",
    "subscribe": "subscribes",
}
_KINDS |= {"service": "offers"}
_PACKAGE = Path(__file__).parents[1]
_ROOM = "dp_ros.ros"
_FOLLOWED = tuple(f"{_ROOM}.{folder}" for folder in ("nodes", "node", "watch"))
_FRAMES = ("tf", "tf_static")  # their class is looked for at run time


@dataclass
class Interface:
    """A topic or a service, and the nodes that have it."""

    name: str
    kind: str  # package/Type
    publishes: set[str] = field(default_factory=set)
    subscribes: set[str] = field(default_factory=set)
    offers: set[str] = field(default_factory=set)


def interfaces(nodes: tuple[str, ...]) -> list[Interface]:
    """Those of the nodes, sorted by name."""
    found: dict[tuple[str, str], Interface] = {}
    for node in nodes:
        for name, kind, role in _made_by(f"{_ROOM}.nodes.{node}"):
            interface = found.setdefault((name, kind), Interface(name, kind))
            getattr(interface, role).add(node)
    return [found[key] for key in sorted(found)]


def _made_by(module: str) -> Iterator[tuple[str, str, str]]:
    """(topic, type, role) of each call in the module and in those that it imports from the nodes' folders."""
    waiting, seen = [module], set()
    while waiting:
        name = waiting.pop()
        path = _PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
        if name in seen or not path.is_file():
            continue
        seen.add(name)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        packages: dict[str, str] = defaultdict(str)
        for statement in ast.walk(tree):
            if isinstance(statement, ast.ImportFrom) and statement.module:
                if statement.module.startswith(_FOLLOWED) and not name.startswith(f"{_ROOM}.node."):
                    waiting.append(statement.module)
                if statement.module.endswith((".msg", ".srv")):
                    package = statement.module.rpartition(".")[0]
                    packages |= {
                        alias.asname or alias.name: f"{package}/{alias.name}" for alias in statement.names
                    }
        yield from _calls(tree, packages)


def _calls(tree: ast.AST, packages: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or len(call.args) < 3:
            continue
        called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        role = _KINDS.get(called.rpartition("_")[2])
        name = _text(call.args[1])
        kind = packages.get(call.args[0].id, "") if isinstance(call.args[0], ast.Name) else ""
        if name in _FRAMES:
            kind = "tf2_msgs/TFMessage"
        if role and name and kind and not name.startswith("<"):
            yield name, kind, role


def _text(node: ast.expr) -> str:
    """A string, with <name> for what is put in; empty for anything else. A call that translates a name: that name."""
    if isinstance(node, ast.Call) and len(node.args) == 1:
        return _text(node.args[0])
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if not isinstance(node, ast.JoinedStr):
        return ""
    parts = (
        _text(part) if isinstance(part, ast.Constant) else f"<{ast.unparse(part.value)}>"
        for part in node.values
        if isinstance(part, ast.Constant | ast.FormattedValue)
    )
    return "".join(parts).replace("<c>", "<name>").replace("<camera>", "<name>")
