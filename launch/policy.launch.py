"""Policy for a robot: `ros2 launch dp_ros policy.launch.py checkpoint:=RUN`.

The robot publishes `camera/<name>/image_raw`, `ee_pose` and `gripper/state`, and follows `command/ee_pose` and
`command/gripper`. Remap topics with other names.
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, OpaqueFunction

from dp_ros.policy.checkpoint_config import policy_config
from dp_ros.policy.checkpoint_folder import find_checkpoint
from dp_ros.ros.processes.launch_arguments import (
    CHECKPOINT,
    argument,
    camera_remappings,
    common_arguments,
    lifecycle_arguments,
    rviz_argument,
    values,
)
from dp_ros.ros.processes.launching import our_node, rviz

ARGUMENTS = [
    DeclareLaunchArgument("checkpoint", description=CHECKPOINT),
    argument(
        "instruction",
        "",
        "sentence for a policy that is told what to do; empty: that of params_file, or none",
    ),
    argument(
        "camera_remaps",
        "",
        "comma-separated CAMERA:=TOPIC, e.g. gripperPOV:=/wrist/color/image_raw; with image_transport compressed, "
        "TOPIC/compressed is read",
    ),
    *lifecycle_arguments("policy_node"),
    rviz_argument(),
    *common_arguments(
        "robot.yaml",
        "limits of the gate, timing and sampler; copy config/robot.yaml and measure your workspace",
    ),
]


def nodes(context: LaunchContext) -> list[Action]:
    given = values(context, ARGUMENTS)
    given["checkpoint"] = str(find_checkpoint(given["checkpoint"]).absolute())
    cameras = policy_config(given["checkpoint"]).encoder.cameras
    parameters = {name: given[name] for name in ("checkpoint", "autostart", "use_sim_time")}
    if given["instruction"]:
        parameters["instruction"] = given["instruction"]
    remaps = camera_remappings(given["camera_remaps"], cameras)
    started = [rviz(context, given["namespace"], given["use_sim_time"], remaps)] if given["rviz"] else []
    return [
        *started,
        our_node(context, "policy_node", given["namespace"], given["params_file"], parameters, remaps),
    ]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=nodes)])
