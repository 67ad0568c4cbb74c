"""How our nodes start, spin and end: one clear line on failure, and silence on Ctrl-C."""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from dp_ros.ros.node.parameters import refuse_undeclared
from dp_ros.ros.processes.environment import is_orphan

AUTOSTART = ParameterDescriptor(
    description="configure and activate without a lifecycle manager; what fails ends the process",
    read_only=True,
)
# Our own errors are of these kinds, and what rclpy says of a parameter; their message is one line.
EXPECTED = (ValueError, RuntimeError, OSError, ParameterException)


class FatalError(RuntimeError):
    """A node cannot go on; its message is the one line that says why."""


def run_process(make_node: Callable[[], Node]) -> NoReturn:
    """`run_node`, then end the process at once.

    Not sys.exit: taking the interpreter down beside torch lasts a second in which another Ctrl-C kills it, and
    aborts it when a plan is still being computed.
    """
    code = run_node(make_node)
    sys.stdout.flush()
    os._exit(code)


def run_node(make_node: Callable[[], Node], args: Sequence[str] | None = None) -> int:
    """Spin until SIGINT, SIGTERM, a fatal error, or the end of the session it was started by; the exit code.

    The node has `fatal`, which a callback sets to the reason why the process must end, and `close()`.

    rclpy's own signal handler is not used: it ends the context at once, and a node could no longer send the
    hold that must come last.
    """
    stop = False

    def ask_to_stop(signum: int, frame: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGINT, ask_to_stop)
    signal.signal(signal.SIGTERM, ask_to_stop)
    node = None
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = make_node()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        has_lifecycle = isinstance(node, LifecycleNode)
        autostart = has_lifecycle and node.declare_parameter("autostart", False, AUTOSTART).value
        refuse_undeclared(node)
        for trigger in (node.trigger_configure, node.trigger_activate) if autostart else ():
            if not stop and trigger() != TransitionCallbackReturn.SUCCESS:
                raise FatalError(node.fatal or f"could not {trigger.__name__.removeprefix('trigger_')}")
        while not stop and node.fatal is None and not is_orphan():
            executor.spin_once(timeout_sec=0.1)
        executor.remove_node(node)
        if node.fatal is not None:
            raise FatalError(node.fatal)
        return 0
    except EXPECTED as error:
        name = node.get_name() if node is not None else "node"
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return 1
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()


def reported(transition: Callable[..., TransitionCallbackReturn]) -> Callable[..., TransitionCallbackReturn]:
    """Decorates a transition: what it raises becomes `fatal` and FAILURE. rclpy would swallow it in silence."""

    @functools.wraps(transition)
    def wrapped(node: LifecycleNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except EXPECTED as error:
            node.fatal = " ".join(str(error).split())
        except Exception as error:
            node.fatal = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        node.get_logger().error(node.fatal)
        return TransitionCallbackReturn.FAILURE

    return wrapped
