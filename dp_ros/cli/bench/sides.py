"""What is compared works in processes of its own, by turns, so that whatever else the machine does meets all alike."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from dp_ros.cli.errors import CliError

# In the child: takes a message before each piece of work and answers with what that came to.
Work = Callable[[Connection], None]


class Side:
    """One of what is compared: `turn` lets it do a piece of its work. `name` is for messages."""

    def __init__(self, name: str, pipe: Connection) -> None:
        self._name, self._pipe = name, pipe

    def turn(self) -> Any:
        """What it answers; CliError when it failed or died."""
        try:
            self._pipe.send(None)
            answer = self._pipe.recv()
        except (EOFError, OSError):
            raise CliError(f"{self._name} ended without an answer") from None
        if isinstance(answer, _Failure):
            raise CliError(f"{self._name} failed: {answer.why}")
        return answer


class _Failure:
    def __init__(self, why: str) -> None:
        self.why = why


@contextmanager
def sides(what: str, works: Mapping[str, Work]) -> Iterator[dict[str, Side]]:
    """A process for each, by its name; all are gone at the end. `what` is for messages: "the training"."""
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
    except CliError as error:
        pipe.send(_Failure(str(error)))
    except Exception as error:
        pipe.send(_Failure(f"{type(error).__name__}: {error}"))
