"""Actions of our launch files: a node that is checked before it starts; when one process ends, all end.

`ros2 launch` prints a LaunchError as one line, ends every node, and exits with 1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext
from launch.action import Action
from launch.actions import ExecuteProcess, LogInfo, OpaqueFunction, Shutdown, TimerAction
from launch.events.process import ProcessExited
from launch_ros.actions import Node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from dp_ros.resources import share_file
from dp_ros.ros.processes.environment import PROFILE_VARIABLES, enclave_path, node_environment
from dp_ros.ros.processes.launch_arguments import LaunchError
from dp_ros.ros.watch.foxglove_server import MISSING, has_foxglove
from dp_ros.schema import ConfigError, RecorderConfig
from dp_ros.schema.params_file import node_parameters

_RESPAWN_DELAY_S = 1.0


@dataclass(frozen=True)
class Survival:
    """Reaction of a launch to a node that ends with an error. Default: the launch ends.

    respawns: so many times the node is started again with the same parameters, configured and inactive, so that it
    never moves by itself. is_watched: a watchdog commands the arm then, so the launch goes on without the node.
    """

    respawns: int = 0
    is_watched: bool = False


def our_node(
    context: LaunchContext,
    name: str,
    namespace: str,
    params_file: str,
    parameters: Mapping[str, Any],
    remappings: Iterable[tuple[str, str]] = (),
    survival: Survival | None = None,
) -> Node:
    """The node `name`; `parameters` replace those of `params_file`. When the node ends, the launch ends.

    `survival` changes that.
    """
    _check_params_file(params_file, f"{_absolute(context, namespace)}/{name}")
    environment = node_environment()

    def again() -> Node:
        inactive = {**parameters, "autostart": False, "autoconfigure": True}
        fewer = replace(survival, respawns=survival.respawns - 1) if survival else None
        return our_node(context, name, namespace, params_file, inactive, remappings, fewer)

    return Node(
        package="dp_ros",
        executable=name,
        name=name,
        namespace=namespace,
        output="screen",
        parameters=[params_file, dict(parameters)],
        remappings=list(remappings),
        additional_env={k: environment[k] for k in PROFILE_VARIABLES if k in environment},
        ros_arguments=_enclave(context, namespace, name),
        on_exit=partial(_survive, again, survival or Survival()),
    )


def watchdog(context: LaunchContext, given: Mapping[str, Any], parameters: Mapping[str, Any]) -> Node:
    """The watchdog beside a policy. Killed, it is started again: it commands nothing before it has heard a policy. When
    it ends by itself, for example because its parameters are wrong, the launch ends.

    given: the values `namespace`, `watchdog_params_file` and `use_sim_time`.
    """
    name, params_file, environment = "policy_watchdog", given["watchdog_params_file"], node_environment()
    if params_file:
        _check_params_file(params_file, f"{_absolute(context, given['namespace'])}/{name}")
    return Node(
        package="dp_ros",
        executable=name,
        name=name,
        namespace=given["namespace"],
        output="screen",
        parameters=[
            *([params_file] if params_file else []),
            {"use_sim_time": given["use_sim_time"], **parameters},
        ],
        additional_env={k: environment[k] for k in PROFILE_VARIABLES if k in environment},
        ros_arguments=_enclave(context, given["namespace"], name),
        on_exit=partial(_start_if_killed, partial(watchdog, context, given, parameters)),
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


def viewers(
    context: LaunchContext,
    given: Mapping[str, Any],
    use_sim_time: bool,
    remappings: Iterable[tuple[str, str]] = (),
    cameras: Iterable[str] = (),
) -> list[Action]:
    """Viewers that the `viewer_arguments` ask for; LaunchError where one is not installed. The launch outlives them.

    cameras: those whose topics are remapped, so that the page cannot find them by their names.
    """
    started: list[Action] = []
    if given["rviz"]:
        started.append(rviz(context, given["namespace"], use_sim_time, remappings))
    if given["foxglove"] or given["page"]:
        if given["foxglove"] and not has_foxglove():
            raise LaunchError(f"foxglove:=true: {MISSING}")
        named = {"cameras": list(cameras)} if cameras else {}
        environment = node_environment()
        started.append(
            Node(
                package="dp_ros",
                executable="watch_node",
                name="watch_node",
                namespace=given["namespace"],
                output="screen",
                parameters=[{"foxglove": given["foxglove"], "page": given["page"], **named}],
                remappings=list(remappings),
                additional_env={k: environment[k] for k in PROFILE_VARIABLES if k in environment},
                ros_arguments=_enclave(context, given["namespace"], "watch_node"),
            )
        )
    return started


def simulated_viewers(context: LaunchContext, given: Mapping[str, Any]) -> list[Action]:
    """The viewers beside the simulated robot. The frames of that robot are in its namespace."""
    return viewers(context, given, True, [("/tf", "tf"), ("/tf_static", "tf_static")])


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


def _enclave(context: LaunchContext, namespace: str, name: str) -> list[str]:
    """Arguments that give a node its keys, where SROS 2 is on: those of the policy of `dp_ros security`."""
    if os.environ.get("ROS_SECURITY_ENABLE", "").lower() != "true":
        return []
    return ["--enclave", enclave_path(_absolute(context, namespace), name)]


def _survive(
    again: Callable[[], Node], survival: Survival, event: ProcessExited, context: LaunchContext
) -> Action | list[Action] | None:
    if context.is_shutdown or event.returncode == 0 or survival == Survival():
        return _end(event, context)
    ended = f"{event.process_name} ended with code {event.returncode}"
    if survival.respawns:
        more = f"{survival.respawns - 1} more times at most"
        said = f"{ended}: it is started again, inactive; activate it when all is well ({more})"
        return [LogInfo(msg=said), TimerAction(period=_RESPAWN_DELAY_S, actions=[again()])]
    if survival.is_watched:
        return LogInfo(msg=f"{ended}: the watchdog stays; end this launch when the arm may be on its own")
    return _end(event, context)


def _start_if_killed(
    again: Callable[[], Node], event: ProcessExited, context: LaunchContext
) -> Action | None:
    if context.is_shutdown or event.returncode >= 0:
        return _end(event, context)
    return TimerAction(period=_RESPAWN_DELAY_S, actions=[again()])


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
