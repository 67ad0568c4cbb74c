"""`dp_ros reference`: pages of Markdown about settings, commands, topics and services, made from the code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from dp_ros.schema import Config

Page = Literal["settings", "commands", "interfaces"]

_HEAD = """\
# Reference

Made by `make reference` from `dp_ros/schema` and `config/train`; edit those. A wrong name or value is refused with one
line that names the nearest right one. Numbers whose unit is not given have none.
"""
_NODES = """\
## Nodes

`-p NAME:=VALUE`, or a file as in `config/`. Parameters are read once, when the node starts; `gate.*` can be set at run
time, too. A number must have a decimal point; a whole number must not.
"""
_COMMANDS = """\
## Commands

`--set NAME=VALUE`, or a line of the YAML file that the command takes. `export` and `import` have an option for each.
"""
_PRESETS = """\
## Presets

`dp_ros train --config NAME`. Each sets what its column shows; the rest is the default of `dp_ros train`.
"""
# The last part of a name, the longest first.
_UNITS = {
    "_m_s2": "m/s²", "_m_s": "m/s", "_per_s": "1/s", "_s": "s", "_hz": "Hz", "_m": "m", "_rad": "rad", "_px": "px",
    "_mb": "MB",
}  # fmt: skip
_TYPES = {
    "boolean": "true or false", "integer": "whole number", "number": "number", "string": "text", "object": "map",
    "null": "null",
}  # fmt: skip
_BOUNDS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
    "multipleOf": "multiple of",
}


@dataclass(frozen=True)
class Setting:
    """One row: a field of a config, by its dotted name."""

    name: str
    default: Any
    spec: Mapping[str, Any]  # of JSON Schema

    @property
    def cells(self) -> tuple[str, ...]:
        limits = ", ".join(filter(None, (_unit(self.name), *_bounds(self.spec))))
        text = self.spec.get("description", "").replace(f" [{_unit(self.name)}]", "").replace("<", "&lt;")
        return f"`{self.name}`", _type(self.spec), f"`{yaml_text(self.default)}`", limits, text


def reference(
    page: Annotated[
        Page,
        typer.Argument(help="settings, commands with their options, or interfaces: topics and services."),
    ] = "settings",
) -> None:
    """Print a page of the reference as Markdown: settings and presets, commands, or topics and services.

    Example: dp_ros reference commands > docs/commands.md
    """
    from dp_ros.cli.reference_pages import commands_page, interfaces_page

    pages = {"settings": settings_page, "commands": commands_page, "interfaces": interfaces_page}
    print("\n".join(pages[page]()).rstrip())


def settings_page() -> Iterator[str]:
    from dp_ros.baselines.config import ComparisonConfig
    from dp_ros.resources import share_file
    from dp_ros.schema import (
        CollectConfig,
        ConvertConfig,
        DistillConfig,
        ExportConfig,
        ImportConfig,
        TrainConfig,
    )
    from dp_ros.schema.nodes import NODES

    yield from (_HEAD, _NODES)
    for node, configs in NODES.items():
        yield f"### {node}\n"
        yield from settings_table(setting for config in configs for setting in settings(config()))
    yield _COMMANDS
    for command, config in {
        "collect": CollectConfig,
        "convert": ConvertConfig,
        "train": TrainConfig,
        "distill": DistillConfig,
        "export": ExportConfig,
        "import": ImportConfig,
        "baselines": ComparisonConfig,
    }.items():
        yield f"### dp_ros {command}\n"
        chosen = settings(config())
        if config is DistillConfig:  # its policy is the teacher's
            chosen = (setting for setting in chosen if not setting.name.startswith("policy."))
        yield from settings_table(chosen)
    yield _PRESETS
    yield from presets(
        sorted(share_file("config/train").glob("*.yaml"), key=lambda path: path.stem), settings(TrainConfig())
    )


def settings(config: Config, prefix: str = "") -> Iterator[Setting]:
    """Every field with its default, which is the value in `config`; fields of nested configs by dotted names."""
    from dp_ros.schema import Config

    specs = config.model_json_schema()["properties"]
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from settings(value, f"{prefix}{name}.")
        else:
            yield Setting(f"{prefix}{name}", value, specs[name])


def settings_table(rows: Iterable[Setting]) -> Iterator[str]:
    yield from table(("name", "type", "default", "unit, bounds", "description"), (row.cells for row in rows))


def presets(files: Iterable[Path], rows: Iterable[Setting]) -> Iterator[str]:
    """The opening comment of each file, and a table with a column for each."""
    import yaml

    texts = {path.stem: path.read_text() for path in files}
    for name, text in texts.items():
        comment = " ".join(line[1:].strip() for line in text.splitlines() if line.startswith("#"))
        yield f"- `{name}`: {comment}"
    yield ""
    columns = [flat(yaml.safe_load(text)) for text in texts.values()]
    names = [row.name for row in rows if any(row.name in column for column in columns)]
    shown = ((f"`{n}`", *(f"`{yaml_text(c[n])}`" if n in c else "" for c in columns)) for n in names)
    yield from table(("name", *texts), shown)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for row in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def yaml_text(value: Any) -> str:
    """A value as it is written in a YAML file."""
    import yaml

    value = list(value) if isinstance(value, tuple) else value
    return str(yaml.safe_dump(value, default_flow_style=True, width=10_000)).removesuffix("...\n").strip()


def _unit(name: str) -> str:
    return next((unit for suffix, unit in _UNITS.items() if name.endswith(suffix)), "")


def _type(spec: Mapping[str, Any]) -> str:
    if "anyOf" in spec:
        return " or ".join(_type(one) for one in spec["anyOf"])
    if "$ref" in spec:
        return "settings"
    choices = [spec["const"]] if "const" in spec else spec.get("enum", [])
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    if "prefixItems" in spec:
        return f"list of {len(spec['prefixItems'])}: {_type(spec['prefixItems'][0])}"
    if spec["type"] == "array":
        return f"list: {_type(spec['items'])}"
    return _TYPES[spec["type"]]


def _bounds(spec: Mapping[str, Any]) -> list[str]:
    """Those of the value; of a list, those of its elements."""
    inner = next(iter(spec.get("anyOf") or spec.get("prefixItems") or ()), spec.get("items", {}))
    found = [f"{sign} {spec[key]:g}" for key, sign in _BOUNDS.items() if key in spec]
    if "prefixItems" not in spec and "minItems" in spec:
        found.append("not empty" if spec["minItems"] == 1 else f"at least {spec['minItems']}")
    if "prefixItems" not in spec and "maxItems" in spec:
        found.append(f"at most {spec['maxItems']}")
    return found + (_bounds(inner) if inner else [])
