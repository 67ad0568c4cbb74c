"""`dp_ros watchdog`: a small process that stops the arm when the policy's process dies or hangs."""

from __future__ import annotations

import typer


def watchdog(context: typer.Context) -> None:
    """Stop the arm when the process of the policy dies or hangs.

    Run it on the robot's computer, apart from the policy's launch. Parameters and remappings are ROS arguments:
    `dp_ros watchdog --ros-args -p action:=twist -r command/twist:=/arm/twist`. It ends with Ctrl-C.

    Example: dp_ros watchdog --ros-args -p timeout_s:=0.1
    """
    from dp_ros.ros.processes.environment import require_ros

    require_ros()
    from dp_ros.ros.nodes import policy_watchdog

    policy_watchdog.main(context.args)
