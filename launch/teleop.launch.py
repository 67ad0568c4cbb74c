"""Teleoperation of the simulated arm: `ros2 launch dp_ros teleop.launch.py`; of a real arm with `robot:=true`.

Start the input in a terminal of its own: the keyboard (`ros2 run dp_ros teleop_keyboard`) or a gamepad (`ros2 run joy
joy_node`), in simulation with `--ros-args -p use_sim_time:=true`.
"""

from __future__ import annotations

from typing import Any

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import OpaqueFunction

from dp_ros.ros.processes.launch_arguments import (
    LaunchError,
    argument,
    cameras_argument,
    common_arguments,
    lifecycle_arguments,
    names,
    simulation_arguments,
    simulation_parameters,
    size_px,
    switch,
    topics_argument,
    topics_parameter,
    values,
    viewer_arguments,
)
from dp_ros.ros.processes.launching import our_node, simulated_viewers, viewers

ARGUMENTS = [
    switch("robot", False, "the arm is running: start teleop_node alone, inactive unless autostart is true"),
    argument("task", "drawer-open-v3", "task to simulate"),
    cameras_argument(),
    argument("size", "96x96", "size of their pictures in pixels, WIDTHxHEIGHT"),
    *simulation_arguments(),
    *lifecycle_arguments("teleop_node", condition="with robot:=true: "),
    topics_argument(),
    *viewer_arguments(),
    *common_arguments(
        "teleop.yaml",
        "speeds, gamepad and limits of the gate; for a robot, copy config/teleop.yaml and measure",
    ),
]


def bridge_parameters(given: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": given["task"],
        "cameras": names(given["cameras"]),
        **size_px("size", given["size"]),
        **simulation_parameters(given),
        "mode": "realtime",  # a person does not answer observations
        "autostart": True,
    }


def nodes(context: LaunchContext) -> list[Action]:
    given = values(context, ARGUMENTS)
    if given["robot"]:
        topics, topics_file = topics_parameter(given)
        started = viewers(context, given, given["use_sim_time"], topics.names().items(), topics.cameras)
        own = {name: given[name] for name in ("autostart", "use_sim_time")}
        parameters = {"teleop_node": own | topics_file}
    else:
        if given["topics_file"]:
            raise LaunchError("topics_file: goes with robot:=true; the simulated arm has our names")
        started = simulated_viewers(context, given)
        parameters = {
            "metaworld_bridge": bridge_parameters(given),
            "teleop_node": {"autostart": True, "use_sim_time": True},
        }
    return started + [
        our_node(context, name, given["namespace"], given["params_file"], own)
        for name, own in parameters.items()
    ]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=nodes)])
