"""The simulated robot and a policy: `ros2 launch dp_ros sim.launch.py checkpoint:=models/NAME`."""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from dp_ros.policy.checkpoint_config import bridge_for
from dp_ros.resources import share_file
from dp_ros.ros.environment import node_environment

ARGUMENTS = [
    DeclareLaunchArgument(
        "checkpoint",
        default_value=str(share_file("models/drawer-open-v3-unet")),
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
        "spectator",
        default_value="corner2",
        description="Metaworld camera for people to watch; empty for none",
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
    argument = {a.name: LaunchConfiguration(a.name).perform(context) for a in ARGUMENTS}
    bridge = bridge_for(argument["checkpoint"], task=argument["task"], first_seed=int(argument["seed"]))
    realtime = argument["mode"] == "realtime"
    common = {"namespace": argument["namespace"], "package": "dp_ros", "output": "screen", "autostart": True}
    started = [
        LifecycleNode(
            name="metaworld_bridge",
            executable="metaworld_bridge",
            parameters=[
                argument["params_file"],
                {
                    "task": bridge.task,
                    "cameras": list(bridge.cameras),
                    "width_px": bridge.width_px,
                    "height_px": bridge.height_px,
                    "markers": bridge.markers,
                    "first_seed": bridge.first_seed,
                    "mode": argument["mode"],
                    "auto_reset": argument["auto_reset"] == "true",
                    "spectator": argument["spectator"],
                },
            ],
            **common,
        ),
        LifecycleNode(
            name="policy_node",
            executable="policy_node",
            parameters=[
                argument["params_file"],
                {"checkpoint": argument["checkpoint"], "mode": argument["mode"], "use_sim_time": realtime},
            ],
            **common,
        ),
    ]
    ends = [
        RegisterEventHandler(
            OnProcessExit(
                target_action=node,
                on_exit=[EmitEvent(event=Shutdown(reason=f"{node.name} ended"))],
            )
        )
        for node in started
    ]
    return [*ends, *started]


def generate_launch_description() -> LaunchDescription:
    transports = node_environment(base={})
    chosen = [SetEnvironmentVariable(k, v) for k, v in transports.items() if "PROFILES" in k]
    return LaunchDescription([*ARGUMENTS, *chosen, OpaqueFunction(function=nodes)])
