"""A policy for a robot: `ros2 launch dp_ros policy.launch.py checkpoint:=/path/to/checkpoint`.

The robot publishes `camera/<name>/image_raw`, `ee_pose` and `gripper/state`, and follows `command/ee_pose`
and `command/gripper`; remap what is named otherwise.
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from dp_ros.resources import share_file

ARGUMENTS = [
    DeclareLaunchArgument("checkpoint", description="folder of the checkpoint to serve"),
    DeclareLaunchArgument(
        "params_file",
        default_value=str(share_file("config/robot.yaml")),
        description="limits of the gate, timing and sampler: copy config/robot.yaml and measure your workspace",
    ),
    DeclareLaunchArgument(
        "camera_remaps",
        default_value="",
        description="comma-separated CAMERA:=TOPIC, e.g. gripperPOV:=/wrist/color/image_raw",
    ),
    DeclareLaunchArgument(
        "autostart",
        default_value="false",
        choices=["true", "false"],
        description="configure and activate at once; false leaves both to you: `ros2 lifecycle set policy_node ...`",
    ),
    DeclareLaunchArgument(
        "use_sim_time", default_value="false", choices=["true", "false"], description="take time from /clock"
    ),
    DeclareLaunchArgument("namespace", default_value="", description="namespace of the node and its topics"),
]


def node(context: LaunchContext) -> list[Action]:
    """The policy node; when it ends, the launch does."""
    argument = {a.name: LaunchConfiguration(a.name).perform(context) for a in ARGUMENTS}
    pairs = [pair.split(":=", 1) for pair in argument["camera_remaps"].split(",") if pair]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"camera_remaps: '{argument['camera_remaps']}' is not CAMERA:=TOPIC,CAMERA:=TOPIC")
    policy = LifecycleNode(
        name="policy_node",
        namespace=argument["namespace"],
        package="dp_ros",
        executable="policy_node",
        output="screen",
        autostart=argument["autostart"] == "true",
        parameters=[
            argument["params_file"],
            {"checkpoint": argument["checkpoint"], "use_sim_time": argument["use_sim_time"] == "true"},
        ],
        remappings=[(f"camera/{camera}/image_raw", topic) for camera, topic in pairs],
    )
    end = RegisterEventHandler(
        OnProcessExit(target_action=policy, on_exit=[EmitEvent(event=Shutdown(reason="policy_node ended"))])
    )
    return [end, policy]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=node)])
