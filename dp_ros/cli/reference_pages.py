"""Pages of the reference that are not about settings: commands with their options, topics and services."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_COMMANDS = """\
# Commands

Made by `make reference` from the commands themselves: it is what `dp_ros COMMAND --help` says. Results go to stdout,
progress to stderr. Exit code 0: done; 1: failed, or what was checked does not pass; 2: a wrong option; 130: Ctrl-C.
"""
_INTERFACES = """\
# Topics and services of each node

Made by `make reference` from the source of the nodes. Names are relative unless they begin with `/`.
[Topics and services](topics.md) has the contracts, and the topics that follow from settings: the pictures of a policy's
cameras, `/tf`, the topics that a recorder is told to record.
"""


def commands_page() -> Iterator[str]:
    import typer

    from dp_ros.cli import app

    yield _COMMANDS
    found = list(walk(typer.main.get_command(app)))
    for path, command in found:
        yield f"## dp_ros {' '.join(path)}\n"
        yield "\n\n".join(_paragraphs(command.help or "")) + "\n"
        rows = [row for parameter in command.params if (row := _row(parameter)) is not None]
        if rows:
            from dp_ros.cli.reference import table

            yield from table(("argument, option", "default", "description"), iter(rows))


def interfaces_page() -> Iterator[str]:
    from dp_ros.cli.interfaces import interfaces
    from dp_ros.cli.reference import table
    from dp_ros.schema.nodes import NODES

    yield _INTERFACES
    found = interfaces(tuple(NODES))

    def names(nodes: set[str]) -> str:
        return ", ".join(f"`{node}`" for node in sorted(nodes))

    yield "## Topics\n"
    yield from table(
        ("topic", "type", "published by", "subscribed to by"),
        ((f"`{i.name}`", i.kind, names(i.publishes), names(i.subscribes)) for i in found if not i.offers),
    )
    yield "## Services\n"
    yield from table(
        ("service", "type", "offered by"),
        ((f"`{i.name}`", i.kind, names(i.offers)) for i in found if i.offers),
    )


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its words: (("bag", "check"), command)."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, inner in command.commands.items():
        yield from walk(inner, (*path, name))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.strip().split("\n\n"):
        line = " ".join(paragraph.split()).replace("<", "&lt;")
        head, is_example, example = line.partition("Example: ")
        yield f"{head}Example: `{example}`" if is_example else line


def _row(parameter: Any) -> tuple[str, str, str] | None:
    if "--help" in parameter.opts:
        return None
    is_argument = parameter.param_type_name == "argument"
    name = parameter.metavar or parameter.name.upper() if is_argument else ", ".join(parameter.opts)
    if not is_argument and parameter.metavar:
        name = f"{name} {parameter.metavar}"
    if not is_argument and parameter.secondary_opts:
        name = f"{name} / {', '.join(parameter.secondary_opts)}"
    return f"`{name}`", default_text(parameter), " ".join((parameter.help or "").split()).replace("<", "&lt;")


def default_text(parameter: Any) -> str:
    """The default as --help shows it: "required", words, or a value; empty where nothing is the default."""
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    default = parameter.default
    if default is None or default in ("", (), []) or callable(default):
        return ""
    value = getattr(default, "value", default)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
