"""The simulated robot and a policy: `ros2 launch dp_ros sim.launch.py checkpoint:=models/NAME`."""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, OpaqueFunction

from dp_ros.policy.checkpoint_config import bridge_for
from dp_ros.resources import share_dir, share_file
from dp_ros.ros.processes.launching import LaunchError, our_node, values

ARGUMENTS = [
    DeclareLaunchArgument(
        "checkpoint",
        default_value=str(share_dir() / "models" / "drawer-open-v3-unet"),
        description="folder of the checkpoint to serve; it says which task, cameras and picture size",
    ),
    DeclareLaunchArgument(
        "task", default_value="", description="another Metaworld task than the checkpoint's"
    ),
    DeclareLaunchArgument(
        "mode", default_value="lockstep", choices=["lockstep", "realtime"], description="how time passes"
    ),
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
        default_value=str(share_file("config/sim.yaml")),
        description="parameters of both nodes",
    ),
    DeclareLaunchArgument("namespace", default_value="", description="namespace of both nodes"),
]


def nodes(context: LaunchContext) -> list[Action]:
    """The two nodes, configured for the checkpoint; when one ends, everything does."""
    argument = values(context, ARGUMENTS)
    if not argument["seed"].isdecimal():
        raise LaunchError(f"seed: '{argument['seed']}' is not a whole number from 0 on")
    bridge = bridge_for(
        argument["checkpoint"],
        task=argument["task"],
        mode=argument["mode"],
        first_seed=argument["seed"],
        auto_reset=argument["auto_reset"],
    )
    spectator = "" if argument["spectator"] == "none" else argument["spectator"]
    parameters = {
        "metaworld_bridge": bridge.model_dump(exclude_unset=True) | {"spectator": spectator},
        "policy_node": {
            "checkpoint": argument["checkpoint"],
            "mode": bridge.mode,
            "use_sim_time": bridge.mode == "realtime",
        },
    }
    return [
        our_node(context, name, argument["namespace"], argument["params_file"], own | {"autostart": True})
        for name, own in parameters.items()
    ]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=nodes)])
