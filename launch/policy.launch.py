"""Policy for a robot: `ros2 launch dp_ros policy.launch.py checkpoint:=RUN`.

The robot publishes `camera/<name>/image_raw`, `ee_pose` and `gripper/state`, and follows `command/ee_pose` and
`command/gripper`. Name a robot's other topics in a `topics_file:=`, or remap them. `shadow:=true` commands nothing.
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
    switch,
    topics_argument,
    topics_parameter,
    values,
    viewer_arguments,
    whole_number,
)
from dp_ros.ros.processes.launching import Survival, our_node, viewers, watchdog

ARGUMENTS = [
    DeclareLaunchArgument("checkpoint", description=CHECKPOINT),
    argument(
        "instruction",
        "",
        "sentence for a policy that is told what to do; empty: that of params_file, or none",
    ),
    topics_argument(),
    switch("shadow", False, "plan and judge, and command nothing: the commands go to policy/shadow/..."),
    argument(
        "camera_remaps",
        "",
        "comma-separated CAMERA:=TOPIC, e.g. gripperPOV:=/wrist/color/image_raw; with image_transport compressed, "
        "TOPIC/compressed is read",
    ),
    *lifecycle_arguments("policy_node"),
    argument(
        "respawn",
        "0",
        "times that the node is started again after an error: it comes back configured, and inactive",
    ),
    switch("watchdog", False, "start policy_watchdog, too; the launch then outlives a policy that dies"),
    argument("watchdog_params_file", "", "file of parameters of the watchdog; empty: its defaults"),
    *viewer_arguments(),
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
    topics, topics_file = topics_parameter(given)
    parameters |= topics_file | ({"shadow": True} if given["shadow"] else {})
    remaps = camera_remappings(given["camera_remaps"], cameras, topics.cameras)
    seen = [*topics.names().items(), *remaps]
    started = viewers(context, given, given["use_sim_time"], seen, cameras if seen else ())
    if given["watchdog"]:
        started.append(watchdog(context, given, topics_file))
    how = Survival(whole_number("respawn", given["respawn"]), given["watchdog"])
    served = (given["namespace"], given["params_file"], parameters, remaps, how)
    return [*started, our_node(context, "policy_node", *served)]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=nodes)])
