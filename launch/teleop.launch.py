"""A person drives the simulated arm: `ros2 launch dp_ros teleop.launch.py`; a real one with `robot:=true`.

Beside it, in a terminal of its own, the keyboard (`ros2 run dp_ros teleop_keyboard`) or a gamepad (`ros2 run joy
joy_node`); in simulation both with `--ros-args -p use_sim_time:=true`.
"""

from __future__ import annotations

from typing import Any

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, OpaqueFunction

from dp_ros.resources import share_file
from dp_ros.ros.processes.launching import LaunchError, our_node, values

ARGUMENTS = [
    DeclareLaunchArgument(
        "robot",
        default_value="false",
        choices=["true", "false"],
        description="the arm is there already: start only teleop_node, inactive unless autostart is true",
    ),
    DeclareLaunchArgument("task", default_value="drawer-open-v3", description="Metaworld task to simulate"),
    DeclareLaunchArgument(
        "cameras",
        default_value="gripperPOV,behindGripper",
        description="comma-separated cameras of the simulated robot",
    ),
    DeclareLaunchArgument("size", default_value="96x96", description="their pictures, WIDTHxHEIGHT [px]"),
    DeclareLaunchArgument("seed", default_value="0", description="seed of the first episode"),
    DeclareLaunchArgument(
        "auto_reset",
        default_value="true",
        choices=["true", "false"],
        description="begin episodes one after another; else call the service episode/reset",
    ),
    DeclareLaunchArgument(
        "spectator", default_value="corner2", description="Metaworld camera for people to watch, or none"
    ),
    DeclareLaunchArgument(
        "params_file",
        default_value=str(share_file("config/teleop.yaml")),
        description="speeds, gamepad and limits of the gate: for a robot, copy config/teleop.yaml and measure",
    ),
    DeclareLaunchArgument(
        "autostart",
        default_value="false",
        choices=["true", "false"],
        description="with robot:=true: configure and activate at once; false leaves both to you",
    ),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="false",
        choices=["true", "false"],
        description="with robot:=true: take time from /clock",
    ),
    DeclareLaunchArgument(
        "namespace", default_value="", description="namespace of the nodes and their topics"
    ),
]


def bridge_parameters(argument: dict[str, str]) -> dict[str, Any]:
    """What the arguments say of the simulated robot."""
    width, _, height = argument["size"].partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise LaunchError(f"size: '{argument['size']}' is not WIDTHxHEIGHT, e.g. 96x96")
    if not argument["seed"].isdecimal():
        raise LaunchError(f"seed: '{argument['seed']}' is not a whole number from 0 on")
    return {
        "task": argument["task"],
        "cameras": [camera.strip() for camera in argument["cameras"].split(",")],
        "width_px": int(width),
        "height_px": int(height),
        "first_seed": int(argument["seed"]),
        "auto_reset": argument["auto_reset"] == "true",
        "spectator": "" if argument["spectator"] == "none" else argument["spectator"],
        "mode": "realtime",  # a person does not answer observations
        "autostart": True,
    }


def nodes(context: LaunchContext) -> list[Action]:
    """The teleop node, and the simulated robot unless there is another; when one ends, everything does."""
    argument = values(context, ARGUMENTS)
    parameters = {
        "metaworld_bridge": bridge_parameters(argument),
        "teleop_node": {"autostart": True, "use_sim_time": True},
    }
    if argument["robot"] == "true":
        own = {name: argument[name] == "true" for name in ("autostart", "use_sim_time")}
        parameters = {"teleop_node": own}
    return [
        our_node(context, name, argument["namespace"], argument["params_file"], own)
        for name, own in parameters.items()
    ]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=nodes)])
