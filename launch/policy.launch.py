"""A policy for a robot: `ros2 launch dp_ros policy.launch.py checkpoint:=/path/to/checkpoint`.

The robot publishes `camera/<name>/image_raw`, `ee_pose` and `gripper/state`, and follows `command/ee_pose`
and `command/gripper`; remap what is named otherwise.
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, OpaqueFunction

from dp_ros.policy.checkpoint_config import policy_config
from dp_ros.resources import share_file
from dp_ros.ros.processes.launching import LaunchError, our_node, values

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
        description="comma-separated CAMERA:=TOPIC, e.g. gripperPOV:=/wrist/color/image_raw; "
        "with image_transport compressed, TOPIC/compressed is read",
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


def remappings(camera_remaps: str, cameras: tuple[str, ...]) -> list[tuple[str, str]]:
    """ "left:=/a,right:=/b" as remappings of the image topics of `cameras`."""
    remaps = []
    for pair in filter(None, camera_remaps.split(",")):
        camera, separator, topic = (part.strip() for part in pair.partition(":="))
        if not (camera and separator and topic):
            raise LaunchError(f"camera_remaps: '{pair}' is not CAMERA:=TOPIC")
        if camera not in cameras:
            raise LaunchError(
                f"camera_remaps: the checkpoint has no camera '{camera}', but {', '.join(cameras)}"
            )
        remaps += [(f"camera/{camera}/image_raw{kind}", f"{topic}{kind}") for kind in ("", "/compressed")]
    return remaps


def node(context: LaunchContext) -> list[Action]:
    """The policy node; when it ends, the launch does."""
    argument = values(context, ARGUMENTS)
    policy = policy_config(argument["checkpoint"])
    parameters = {
        "checkpoint": argument["checkpoint"],
        "autostart": argument["autostart"] == "true",
        "use_sim_time": argument["use_sim_time"] == "true",
    }
    return [
        our_node(
            context,
            "policy_node",
            argument["namespace"],
            argument["params_file"],
            parameters,
            remappings(argument["camera_remaps"], policy.encoder.cameras),
        )
    ]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=node)])
