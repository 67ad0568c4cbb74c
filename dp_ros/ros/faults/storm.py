"""A storm of DDS participants: nodes with topics of their own join and leave the graph until its input ends."""

from __future__ import annotations

import sys
import threading
from contextlib import ExitStack

import rclpy
from rclpy.node import Node
from std_msgs.msg import String

from dp_ros.ros.node import qos
from dp_ros.ros.processes.environment import is_orphan, take_standard_output

_AT_ONCE = 6
_TOPICS = 4  # of each


def join(stack: ExitStack, name: str) -> None:
    """One participant with its topics; it leaves when the stack ends."""
    context = rclpy.Context()
    rclpy.init(context=context)
    stack.callback(context.try_shutdown)
    node = Node(name, context=context)
    stack.callback(node.destroy_node)
    for i in range(_TOPICS):
        node.create_publisher(String, f"storm/topic_{i}", qos.RELIABLE)
        node.create_subscription(String, f"storm/topic_{i}", lambda msg: None, qos.RELIABLE)


def main() -> None:
    """Main function: begins at the first line of its input, and ends with it, so that each participant leaves."""
    print("ready", file=take_standard_output())
    sys.stdin.readline()
    ended = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    while not ended.is_set() and not is_orphan():
        with ExitStack() as stack:
            for i in range(_AT_ONCE):
                join(stack, f"storm_{i}")


if __name__ == "__main__":
    main()
