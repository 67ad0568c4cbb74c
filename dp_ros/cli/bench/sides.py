"""Sides of a comparison, each in a process of its own. They take turns, so that other load slows them equally."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from dp_ros.cli.errors import CliError
from dp_ros.errors import UserError

# Runs in the child: waits for a task, does one piece of work, sends the result, and so on.
Work = Callable[[Connection], None]


class Side:
    """One side of a comparison, as the parent sees it. `name` is for messages."""

    def __init__(self, name: str, pipe: Connection) -> None:
        self._name, self._pipe = name, pipe

    def turn(self, task: Any = None) -> Any:
        """Let it do one piece of work, told by `task`, and return the result. CliError if it failed or died."""
        try:
            self._pipe.send(task)
            answer = self._pipe.recv()
        except (EOFError, OSError):
            raise CliError(f"{self._name} ended without an answer") from None
        if isinstance(answer, _Failure):
            raise CliError(f"{self._name} failed: {answer.why}")
        return answer


class _Failure:
    """Answer of a child whose work failed."""

    def __init__(self, why: str) -> None:
        self.why = why


@contextmanager
def sides(what: str, works: Mapping[str, Work]) -> Iterator[dict[str, Side]]:
    """Start a process for each of `works`; yields the sides by name, and ends all processes at the end.

    `what` is for messages, e.g. "the training".
    """
    spawn = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes = []
    try:
        for work in works.values():
            ours, theirs = spawn.Pipe()
            pipes.append(ours)
            process = spawn.Process(target=_serve, args=(theirs, work))
            process.start()
            theirs.close()  # so that a process that dies ends our recv
            processes.append(process)
        yield {name: Side(f"{what} of {name}", pipe) for name, pipe in zip(works, pipes, strict=True)}
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(10)
            process.kill()


def _serve(pipe: Connection, work: Work) -> None:
    try:
        work(pipe)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except UserError as error:
        pipe.send(_Failure(str(error)))
    except Exception as error:
        pipe.send(_Failure(f"{type(error).__name__}: {error}"))
