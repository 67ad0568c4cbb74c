"""Process of a node: start, spin and end. One line where a user can act, a traceback for a bug, silence on Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from dp_ros.errors import UserError
from dp_ros.ros.node.managed_node import ManagedNode, one_line
from dp_ros.ros.node.parameters import refuse_undeclared
from dp_ros.ros.processes.environment import is_orphan


class FatalError(UserError):
    """A node that cannot start or continue; one line that says why."""


def run_process(make_node: Callable[[], Node], args: Sequence[str] | None = None) -> NoReturn:
    """`run_node`, then end the process at once.

    Not sys.exit: ending the interpreter with torch loaded takes a second, in which another Ctrl-C kills it. It aborts
    when a plan is still being computed.
    """
    code = run_node(make_node, args)
    sys.stdout.flush()
    os._exit(code)


def run_node(make_node: Callable[[], Any], args: Sequence[str] | None = None) -> int:
    """Spin until SIGINT, SIGTERM, a fatal error, or the end of the session that started the process; the exit code.

    The node has `fatal`, which a callback sets to the reason why the process must end, and `close()`.

    rclpy's own signal handler is not used: it ends the context at once, and a node could no longer send its last hold.
    """
    stop = False

    def ask_to_stop(signum: int, frame: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGINT, ask_to_stop)
    signal.signal(signal.SIGTERM, ask_to_stop)
    node, code = None, 1
    try:
        _init(args)
        node = _made(make_node)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        refuse_undeclared(node, node.control_rate_hz if isinstance(node, ManagedNode) else lambda: None)
        if isinstance(node, ManagedNode) and (node.starts.autostart or node.starts.autoconfigure):
            _start(node, lambda: stop)
        while not stop and node.fatal is None and not is_orphan():
            executor.spin_once(timeout_sec=0.1)
        executor.remove_node(node)
        if node.fatal is not None:
            raise FatalError(node.fatal)
        code = 0
    except Exception as error:
        _report(node, error)
    finally:
        try:
            if node is not None:
                node.close()
                node.destroy_node()
        except Exception as error:  # the reason above must not be lost
            _report(node, error)
            code = 1
        rclpy.try_shutdown()
    return code


def _init(args: Sequence[str] | None) -> None:
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # of many kinds in rclpy: a wrong argument or parameter file
        raise FatalError(f"wrong ROS arguments: {error}") from None


def _made(make_node: Callable[[], Any]) -> Any:
    """The node; FatalError where security is asked for (SROS 2) and this middleware has none."""
    try:
        return make_node()
    except RuntimeError as error:  # rclpy's
        if "security" not in str(error):
            raise
        said = " ".join(str(error).split()).removeprefix("error creating node: ").partition(", at /")[0]
        raise FatalError(
            f"ROS_SECURITY_ENABLE is set, and the middleware cannot do it ({said}): install a ROS from packages, or "
            "unset it"
        ) from None


def _start(node: ManagedNode, is_stopped: Callable[[], bool]) -> None:
    """Configure and, with `autostart`, activate; FatalError where either fails."""
    node.is_starting = True
    triggers = (node.trigger_configure, node.trigger_activate)
    for trigger in triggers if node.starts.autostart else triggers[:1]:
        if not is_stopped() and trigger() != TransitionCallbackReturn.SUCCESS:
            raise FatalError(node.fatal or node.problem)
    node.is_starting = False


def _report(node: Node | None, error: Exception) -> None:
    line = one_line(error)
    if line is None:
        traceback.print_exception(error)
        return
    name = node.get_name() if node is not None else "node"
    print(f"{name}: {' '.join(line.split())}", file=sys.stderr, flush=True)
