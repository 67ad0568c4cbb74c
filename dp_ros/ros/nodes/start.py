"""Entry points of the executables. Ctrl-C is quiet from the start, also during the slow imports."""

from __future__ import annotations

import importlib
import os
import signal


def _start(module: str) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM):  # before the node runs there is nothing to clean up
        signal.signal(signum, lambda *_: os._exit(0))
    importlib.import_module("dp_ros.ros.processes.environment").use_our_transports()
    importlib.import_module(module).main()


def policy_node() -> None:
    _start("dp_ros.ros.nodes.policy_node")


def metaworld_bridge() -> None:
    _start("dp_ros.ros.nodes.metaworld_bridge")


def recorder_node() -> None:
    _start("dp_ros.ros.nodes.recorder_node")


def teleop_node() -> None:
    _start("dp_ros.ros.nodes.teleop_node")


def teleop_keyboard() -> None:
    _start("dp_ros.ros.nodes.teleop_keyboard")


def stand_in() -> None:
    _start("dp_ros.ros.nodes.stand_in")


def policy_watchdog() -> None:
    _start("dp_ros.ros.nodes.policy_watchdog")


def watch_node() -> None:
    _start("dp_ros.ros.nodes.watch_node")
