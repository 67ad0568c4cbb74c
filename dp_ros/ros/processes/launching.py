"""Actions of our launch files: a node that is checked before it starts; when one process ends, all end.

`ros2 launch` prints a LaunchError as one line, ends every node, and exits with 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext
from launch.action import Action
from launch.actions import ExecuteProcess, OpaqueFunction, Shutdown, TimerAction
from launch.events.process import ProcessExited
from launch_ros.actions import Node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from dp_ros.resources import share_file
from dp_ros.ros.processes.environment import PROFILE_VARIABLES, node_environment
from dp_ros.ros.processes.launch_arguments import LaunchError
from dp_ros.schema import ConfigError, RecorderConfig
from dp_ros.schema.params_file import node_parameters


def our_node(
    context: LaunchContext,
    name: str,
    namespace: str,
    params_file: str,
    parameters: Mapping[str, Any],
    remappings: Iterable[tuple[str, str]] = (),
) -> Node:
    """The node `name`; `parameters` replace those of `params_file`. When the node ends, the launch ends."""
    _check_params_file(params_file, f"{_absolute(context, namespace)}/{name}")
    environment = node_environment()
    return Node(
        package="dp_ros",
        executable=name,
        name=name,
        namespace=namespace,
        output="screen",
        parameters=[params_file, dict(parameters)],
        remappings=list(remappings),
        additional_env={k: environment[k] for k in PROFILE_VARIABLES if k in environment},
        on_exit=_end,
    )


def rviz(
    context: LaunchContext, namespace: str, use_sim_time: bool, remappings: Iterable[tuple[str, str]] = ()
) -> Node:
    """RViz on the topics of `namespace`, LaunchError where it is not installed. The launch outlives its window."""
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        raise LaunchError(
            "rviz:=true: RViz is not installed; apt install ros-$ROS_DISTRO-rviz2, or leave rviz out"
        ) from None
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz2",
        namespace=namespace,
        arguments=["-d", str(share_file("config/rviz/dp_ros.rviz"))],
        parameters=[{"use_sim_time": use_sim_time}],
        remappings=list(remappings),
        output="log",
    )


def simulated_rviz(context: LaunchContext, namespace: str, given: bool) -> list[Action]:
    """RViz beside the simulated robot, where it is asked for. The frames of that robot are in its namespace."""
    frames = [("/tf", "tf"), ("/tf_static", "tf_static")]
    return [rviz(context, namespace, True, frames)] if given else []


def rosbag2_record(
    context: LaunchContext, topics: Iterable[str], config: RecorderConfig, namespace: str
) -> ExecuteProcess:
    """`ros2 bag record` of the topics to a new MCAP bag in the recorder's folder; LaunchError without `ros2 bag`."""
    try:
        get_package_prefix("ros2bag")
    except PackageNotFoundError:
        raise LaunchError(
            "backend rosbag2: `ros2 bag` is not installed; apt install ros-$ROS_DISTRO-ros2bag "
            "ros-$ROS_DISTRO-rosbag2-storage-mcap, or leave backend at dp_ros"
        ) from None
    Path(config.folder).mkdir(parents=True, exist_ok=True)
    name = f"{config.prefix}_{datetime.now():%Y%m%d_%H%M%S}"
    facts = {"task": config.task, "operator": config.operator, "note": config.note, "mode": config.mode}
    custom = [f"{key}={value}" for key, value in facts.items() if value]
    prefix = _absolute(context, namespace)
    return ExecuteProcess(
        cmd=[
            *("ros2", "bag", "record", "--storage", "mcap", "--output", f"{config.folder}/{name}"),
            *(("--storage-preset-profile", "zstd_fast") if config.compression == "zstd" else ()),
            *(("--custom-data", *custom) if custom else ()),
            *("--topics", *(topic if topic.startswith("/") else f"{prefix}/{topic}" for topic in topics)),
        ],
        output="screen",
        on_exit=_end,
    )


def _absolute(context: LaunchContext, namespace: str) -> str:
    """The namespace within that of a launch file that includes ours, without a slash at the end."""
    outer = context.launch_configurations.get("ros_namespace")
    return str(make_namespace_absolute(prefix_namespace(outer, namespace)) or "/").rstrip("/")


def _end(event: ProcessExited, context: LaunchContext) -> Action | None:
    if context.is_shutdown:
        return None
    if event.returncode == 0:
        return Shutdown(reason=f"{event.process_name} ended")
    # Later: an exception here would keep other handlers from this event.
    return TimerAction(period=0.0, actions=[OpaqueFunction(function=_fail, args=[event])])


def _fail(context: LaunchContext, event: ProcessExited) -> None:
    raise LaunchError(f"{event.process_name} ended with code {event.returncode}")


def _check_params_file(path: str, node: str) -> None:
    """LaunchError where the file has no parameters for `node` ("/arm/policy_node"): ROS would ignore that."""
    try:
        node_parameters(path, node)
    except ConfigError as error:
        raise LaunchError(str(error)) from None
