"""Expected errors become one line on stderr and an exit code; any other keeps its traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

FAILED, USAGE, INTERRUPTED = 1, 2, 130

# (module, class, exit code). By name, so that nothing is imported for an error that cannot have been raised.
EXPECTED: tuple[tuple[str, str, int], ...] = (
    ("dp_ros.schema.base", "ConfigError", USAGE),
    ("dp_ros.sim.metaworld_arm", "TaskError", USAGE),
    ("dp_ros.streams", "ImageSizeError", USAGE),
    ("dp_ros.data.bags.reader", "BagError", FAILED),
    ("dp_ros.data.episodes", "DatasetError", FAILED),
    ("dp_ros.data.lerobot", "LeRobotError", FAILED),
    ("dp_ros.policy.checkpoint_config", "CheckpointError", FAILED),
    ("dp_ros.policy.normalizer", "StatsError", FAILED),
    ("dp_ros.train.stopping", "TrainingError", FAILED),
    ("dp_ros.train.workers", "ClusterError", FAILED),
    ("dp_ros.sim.rendering", "RenderingError", FAILED),
    ("dp_ros.evaluation.archive", "ArchiveError", FAILED),
    ("dp_ros.evaluation.model_results", "ResultError", FAILED),
    ("dp_ros.ros.messages.conversions", "ConversionError", FAILED),
    ("dp_ros.ros.processes.environment", "RosMissingError", FAILED),
    ("dp_ros.ros.processes.node_process", "SessionError", FAILED),
)


class CliError(Exception):
    """A command that cannot go on: one line, and the exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


class Interrupted(Exception):
    """Ctrl-C in a command that can be resumed; the message says how."""


def one_line(run: Callable[[], Any]) -> int:
    """The exit code of `run`, which may return one."""
    try:
        code = run()
    except Interrupted as hint:
        return _report(f"interrupted; {hint}", INTERRUPTED)
    except Exception as error:
        described = describe(error)
        if described is None:
            raise
        return _report(*described)
    if code == INTERRUPTED:  # what typer makes of Ctrl-C
        return _report("interrupted", INTERRUPTED)
    return code if isinstance(code, int) else 0


def describe(error: BaseException) -> tuple[str, int] | None:
    """(message, exit code) of an expected error; None for a bug."""
    if isinstance(error, CliError):
        return str(error), error.code
    for module, name, code in EXPECTED:
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return str(error), code
    if hasattr(error, "format_message") and hasattr(
        error, "exit_code"
    ):  # typer's: a wrong option or argument
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "dp_ros"
        return f"{error.format_message().rstrip('.')}; see `{command} --help`", USAGE
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        # FileNotFoundError of `resources` has a message of its own.
        return f"{where}{error.strerror}" if error.strerror else str(error), FAILED
    if type(error).__name__ == "OutOfMemoryError":  # torch's, on any GPU
        return "out of GPU memory: lower batch_size", FAILED
    if isinstance(error, MemoryError):
        return f"out of memory ({error})" if str(error) else "out of memory", FAILED
    return None


def _report(message: str, code: int) -> int:
    print(f"dp_ros: {' '.join(message.split())}", file=sys.stderr)
    return code
