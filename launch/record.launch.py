"""Record episodes as bags: `ros2 launch dp_ros record.launch.py folder:=/path task:=pour operator:=me`.

Begin and end them with the buttons of the teleoperation, or by the services record/start, record/success,
record/failure and record/discard. `backend:=rosbag2` records the same topics with `ros2 bag record` instead, where that
is installed: one bag from start to Ctrl-C.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, OpaqueFunction

from dp_ros.resources import share_file
from dp_ros.ros.bags.recorder_topics import wanted_topics
from dp_ros.ros.processes.launching import our_node, rosbag2_record, values
from dp_ros.schema import RecorderConfig, parse

ARGUMENTS = [
    DeclareLaunchArgument("folder", default_value="runs/bags", description="folder of the bags"),
    DeclareLaunchArgument(
        "cameras", default_value="gripperPOV,behindGripper", description="comma-separated cameras to record"
    ),
    DeclareLaunchArgument(
        "image_transport",
        default_value="raw",
        choices=["raw", "compressed"],
        description="record camera/<name>/image_raw or camera/<name>/image_raw/compressed",
    ),
    DeclareLaunchArgument(
        "topics", default_value="", description="comma-separated further topics, of any type"
    ),
    DeclareLaunchArgument(
        "compression", default_value="none", choices=["none", "zstd"], description="of the bags"
    ),
    DeclareLaunchArgument("task", default_value="", description="what is demonstrated; kept with each bag"),
    DeclareLaunchArgument("operator", default_value="", description="who demonstrates; kept with each bag"),
    DeclareLaunchArgument("note", default_value="", description="a remark; kept with each bag"),
    DeclareLaunchArgument(
        "mode",
        default_value="realtime",
        choices=["realtime", "lockstep"],
        description="how the recorded robot's time passes",
    ),
    DeclareLaunchArgument(
        "backend",
        default_value="dp_ros",
        choices=["dp_ros", "rosbag2"],
        description="who records: recorder_node, one bag an episode; or ros2 bag record",
    ),
    DeclareLaunchArgument(
        "params_file",
        default_value=str(share_file("config/record.yaml")),
        description="further parameters of recorder_node: queue, disk space, names",
    ),
    DeclareLaunchArgument("namespace", default_value="", description="namespace of the robot's topics"),
]


def nodes(context: LaunchContext) -> list[Action]:
    argument = values(context, ARGUMENTS)
    given = {
        key: argument[key]
        for key in ("image_transport", "compression", "task", "operator", "note", "mode")
        if argument[key]
    }
    given["folder"] = str(Path(argument["folder"]).expanduser().absolute())
    for key in ("cameras", "topics"):
        if names := [name.strip() for name in argument[key].split(",") if name.strip()]:
            given[key] = names
    config = parse(RecorderConfig, given, where="record.launch.py")
    if argument["backend"] == "rosbag2":
        return [rosbag2_record(context, wanted_topics(config), config, argument["namespace"])]
    own = given | {"autostart": True}
    return [our_node(context, "recorder_node", argument["namespace"], argument["params_file"], own)]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=nodes)])
