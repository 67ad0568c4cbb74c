"""Simulated robot and policy: `ros2 launch dp_ros sim.launch.py checkpoint:=RUN`."""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import OpaqueFunction

from dp_ros.policy.checkpoint_config import bridge_for, instructions_of, serving_beside
from dp_ros.policy.checkpoint_folder import find_checkpoint
from dp_ros.resources import share_dir
from dp_ros.ros.processes.launch_arguments import (
    CHECKPOINT,
    argument,
    choice,
    common_arguments,
    simulation_arguments,
    simulation_parameters,
    values,
    viewer_arguments,
)
from dp_ros.ros.processes.launching import our_node, simulated_viewers

ARGUMENTS = [
    argument(
        "checkpoint",
        str(share_dir() / "models" / "drawer-open-v3-unet"),
        f"{CHECKPOINT}; task, cameras and picture size follow from it",
    ),
    argument("task", "", "task in place of the checkpoint's"),
    argument(
        "instruction",
        "auto",
        "sentence for a policy that is told what to do; auto: of the task; empty: that of params_file, or none",
    ),
    choice(
        "mode",
        ("lockstep", "realtime"),
        "step when the command arrives (lockstep), or at the rate (realtime)",
    ),
    *simulation_arguments(),
    *viewer_arguments(),
    *common_arguments("sim.yaml", "settings of both nodes"),
]


def nodes(context: LaunchContext) -> list[Action]:
    given = values(context, ARGUMENTS)
    checkpoint = str(find_checkpoint(given["checkpoint"]).absolute())
    simulation = simulation_parameters(given)
    bridge = bridge_for(checkpoint, task=given["task"], mode=given["mode"], **simulation)
    known = instructions_of(checkpoint)
    instruction = given["instruction"]
    if instruction == "auto":
        instruction = known.sentence(bridge.task) if known else ""
    parameters = {
        "metaworld_bridge": bridge.model_dump(exclude_unset=True) | simulation,
        "policy_node": {
            "checkpoint": checkpoint,
            **({"instruction": instruction} if instruction else {}),
            "use_sim_time": bridge.mode == "realtime",
            **serving_beside(bridge),
        },
    }
    started = simulated_viewers(context, given)
    return started + [
        our_node(context, name, given["namespace"], given["params_file"], own | {"autostart": True})
        for name, own in parameters.items()
    ]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=nodes)])
