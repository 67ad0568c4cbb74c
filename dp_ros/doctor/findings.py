"""Finding: one line that says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    ERROR = "error"  # the policy cannot work like this
    WARNING = "warning"  # it may work, and worse than it could
    NOTE = "note"  # optional, and not there
    OK = "ok"


@dataclass(frozen=True)
class Finding:
    """A judgement; `remedy` is empty where nothing needs to be done."""

    level: Level
    where: str  # the stream with its topic, a file, or a part of the installation
    what: str
    remedy: str = ""

    @property
    def line(self) -> str:
        return ": ".join(filter(None, (self.where, self.what, self.remedy)))

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "level": self.level.value}


def error(where: str, what: str, remedy: str) -> Finding:
    return Finding(Level.ERROR, where, what, remedy)


def warning(where: str, what: str, remedy: str) -> Finding:
    return Finding(Level.WARNING, where, what, remedy)


def note(where: str, what: str, remedy: str = "") -> Finding:
    return Finding(Level.NOTE, where, what, remedy)


def ok(where: str, what: str) -> Finding:
    return Finding(Level.OK, where, what)


def fails(findings: Iterable[Finding]) -> bool:
    """Whether one of them is an error."""
    return any(finding.level is Level.ERROR for finding in findings)
