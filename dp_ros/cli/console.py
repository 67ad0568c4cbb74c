"""Parts of several commands: progress on stderr, tables, output folders."""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from collections.abc import Iterable
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from dp_ros.cli.errors import USAGE, CliError

_LINE_EVERY_S = 30.0
TYPED: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())  # the arguments of this run, set by main


class ProgressLine:
    """Progress bar with a note where stderr is a terminal; elsewhere a line every half minute. Both tell the time left.

    The time left follows from the speed since the first update, unless the note has it.
    """

    def __init__(self, title: str, total: int | None = None, done: int = 0, quiet: bool = False) -> None:
        console = Console(stderr=True, quiet=quiet)
        self._title, self._total = title, total
        self._printed_s = float("-inf")
        self._done, self._began_s = done, time.monotonic()
        self._first: int | None = None  # of the updates
        self._console = console
        self._bar: Progress | None = None
        if console.is_terminal and not quiet:
            columns = (
                TextColumn(title),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task(title, total=total, completed=done, note="")

    def __enter__(self) -> ProgressLine:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, note: str, total: int | None = None) -> None:
        self._total = total or self._total
        note = self._with_time_left(done, note)
        if self._bar:
            self._bar.update(self._task, completed=done, total=self._total, note=note)
        elif time.monotonic() - self._printed_s >= _LINE_EVERY_S or done == self._total:
            self._printed_s = time.monotonic()
            self._console.out(f"{self._title} {done}/{self._total} {note}".rstrip(), highlight=False)

    def _with_time_left(self, done: int, note: str) -> str:
        if self._first is None:  # a resumed run does not begin at zero
            self._first = self._done or max(0, done - 1)
        made = done - self._first
        if self._total is None or made <= 0 or done >= self._total or note.endswith(" left"):
            return note
        left_s = (time.monotonic() - self._began_s) / made * (self._total - done)
        return ", ".join(filter(None, (note, f"{duration(left_s)} left")))

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.out(line, highlight=False)


def duration(seconds: float) -> str:
    """ "42 s", "3:05" or "1:02:03"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{s:02}" if hours else f"{minutes}:{s:02}"


def table_console() -> Console:
    """Console of stdout for tables: brackets are lists, not markup; lines are long where stdout is a pipe."""
    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 160)


def folder_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def check_outputs(*, folders: Iterable[Path | None] = (), files: Iterable[Path | None] = ()) -> None:
    """Make the folders of the results. CliError or OSError where that fails, before hours of work."""
    named = [path for path in files if path is not None]
    for path in named:
        if path.is_dir():
            raise CliError(f"{path}: is a folder: give the name of a file", USAGE)
    for folder in (*(path.parent for path in named), *(path for path in folders if path is not None)):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def command_line() -> str:
    """The command line of this run, for reports."""
    return shlex.join(["dp_ros", *TYPED.get()])
