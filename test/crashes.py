"""A process of a parallel run that dies: the summary says of which signal, and where its threads were."""

from __future__ import annotations

import faulthandler
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import pytest


class Crashes:
    """pytest's plugin, in each process of the run."""

    def __init__(self, folder: Path) -> None:
        """folder: of the run, shared by its processes."""
        self._folder = folder
        self._stacks: IO[str] | None = None
        self._died: list[str] = []

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        worker = getattr(session.config, "workerinput", None)
        if worker is not None:
            self._stacks = self._of(worker).open("w")
            faulthandler.enable(self._stacks)  # in place of pytest's own, whose lines are lost among the dots

    def pytest_runtest_logstart(self) -> None:
        if self._stacks is not None:
            faulthandler.enable(self._stacks)  # a test before may have changed it

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        if error != "Not properly terminated":  # what xdist says of a process that is gone; others may live
            return
        worker = node.workerinput
        try:
            status = node.gateway._io.popen.wait(timeout=10)
        except subprocess.TimeoutExpired:
            status = None
        stacks = self._of(worker).read_text(errors="replace") if self._of(worker).exists() else ""
        self._died.append(f"{worker['workerid']}: {_ended(status)}\n{stacks or 'no stacks were written'}")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for told in self._died:
            terminalreporter.section("a process of the run died")
            terminalreporter.write_line(told)

    def _of(self, worker: Mapping[str, Any]) -> Path:
        return self._folder / f"stacks-{worker['testrunuid']}-{worker['workerid']}.txt"


def _ended(status: int | None) -> str:
    if status is None:
        return "its exit status is not known"
    return (
        f"ended by signal {-status}, {signal.strsignal(-status)}" if status < 0 else f"exit status {status}"
    )
