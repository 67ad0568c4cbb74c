"""Episodes as bags: `ros2 launch dp_ros record.launch.py folder:=/path task:=pour operator:=me`.

Begin and end them with the buttons of the teleoperation, or with the services record/start, record/success,
record/failure and record/discard. `backend:=rosbag2` records the same topics with `ros2 bag record`, where that is
installed: one bag from start to Ctrl-C.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import OpaqueFunction

from dp_ros.ros.bags.recorder_topics import wanted_topics
from dp_ros.ros.processes.launch_arguments import (
    CAMERAS,
    argument,
    choice,
    common_arguments,
    names,
    topics_argument,
    topics_parameter,
    values,
    viewer_arguments,
)
from dp_ros.ros.processes.launching import our_node, rosbag2_record, viewers
from dp_ros.schema import RecorderConfig, parse

ARGUMENTS = [
    argument("folder", "runs/bags", "folder of the bags"),
    topics_argument(),
    argument(
        "cameras",
        "auto",
        f"comma-separated cameras to record; auto: those of topics_file, else {','.join(CAMERAS)}",
    ),
    choice(
        "image_transport",
        ("raw", "compressed"),
        "record camera/<name>/image_raw or camera/<name>/image_raw/compressed",
    ),
    argument("topics", "", "comma-separated further topics, of any type"),
    choice("compression", ("none", "zstd"), "compression of the bags"),
    argument("task", "", "name of the task, kept with each bag"),
    argument("operator", "", "name of the person who demonstrates, kept with each bag"),
    argument("note", "", "remark, kept with each bag"),
    choice("mode", ("realtime", "lockstep"), "mode of the recorded robot"),
    choice(
        "backend",
        ("dp_ros", "rosbag2"),
        "recorder_node, which writes one bag an episode, or `ros2 bag record`",
    ),
    *viewer_arguments(),
    *common_arguments("record.yaml", "queue, disk space and names of recorder_node"),
]


def nodes(context: LaunchContext) -> list[Action]:
    given = values(context, ARGUMENTS)
    fields = ("image_transport", "compression", "task", "operator", "note", "mode")
    parameters = {name: given[name] for name in fields if given[name]}
    topics, topics_file = topics_parameter(given)
    cameras = topics.cameras or CAMERAS if given["cameras"] == "auto" else names(given["cameras"])
    parameters |= {"cameras": list(cameras), "topics": names(given["topics"])}
    parameters = {name: value for name, value in parameters.items() if value}
    parameters["folder"] = str(Path(given["folder"]).expanduser().absolute())
    config = parse(RecorderConfig, parameters, where="record.launch.py")
    started = viewers(context, given, False, topics.names().items(), topics.cameras)
    if given["backend"] == "rosbag2":
        return [*started, rosbag2_record(context, wanted_topics(config, topics), config, given["namespace"])]
    parameters |= {"autostart": True, **topics_file}
    recorder = our_node(context, "recorder_node", given["namespace"], given["params_file"], parameters)
    return [*started, recorder]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=nodes)])
