"""Arguments of our launch files: the declarations that several share, and the readers of their values."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration

from dp_ros.errors import UserError
from dp_ros.resources import share_file
from dp_ros.schema import TopicMap, TopicsFile, picture_topics
from dp_ros.schema.nodes import ServedConfig

_SWITCH = ["true", "false"]
CAMERAS = ("gripperPOV", "behindGripper")  # of Metaworld's hand
CHECKPOINT = str(ServedConfig.model_fields["checkpoint"].description)


class LaunchError(UserError):
    """A launch that cannot continue; one line: what is wrong, and what to do."""


def argument(name: str, default: str, description: str) -> DeclareLaunchArgument:
    return DeclareLaunchArgument(name, default_value=default, description=description)


def choice(name: str, options: Sequence[str], description: str) -> DeclareLaunchArgument:
    """An argument with one of `options`; the first is the default."""
    return DeclareLaunchArgument(
        name, default_value=options[0], choices=list(options), description=description
    )


def switch(name: str, default: bool, description: str) -> DeclareLaunchArgument:
    """An argument "true" or "false", which `values` reads as a bool."""
    return DeclareLaunchArgument(
        name, default_value=str(default).lower(), choices=_SWITCH, description=description
    )


def common_arguments(params_file: str, contents: str) -> list[DeclareLaunchArgument]:
    """The arguments of every launch file. `params_file` is the default, in config/; `contents` says what it sets."""
    return [
        argument("params_file", str(share_file(f"config/{params_file}")), f"file of parameters: {contents}"),
        argument("namespace", "", "namespace of the nodes and their topics"),
    ]


def lifecycle_arguments(node: str, condition: str = "") -> list[DeclareLaunchArgument]:
    """The arguments of a launch file that serves a robot; `condition` says when they apply."""
    return [
        switch(
            "autostart",
            False,
            f"{condition}configure and activate the node at start; false: use `ros2 lifecycle set {node} ...`",
        ),
        switch("use_sim_time", False, f"{condition}take time from /clock"),
    ]


def simulation_arguments() -> list[DeclareLaunchArgument]:
    """The arguments of a launch file that starts the simulated robot."""
    return [
        argument("seed", "0", "seed of the first episode"),
        switch("auto_reset", True, "begin one episode after another; false: call the service episode/reset"),
        argument("spectator", "auto", "camera for people to watch; auto: the simulator's own; or none"),
    ]


def viewer_arguments() -> list[DeclareLaunchArgument]:
    """The arguments of every launch file for people who look at the robot."""
    return [
        switch("rviz", False, "open RViz with config/rviz/dp_ros.rviz"),
        switch("foxglove", False, "serve the topics to Foxglove at ws://127.0.0.1:8765 (needs foxglove-sdk)"),
        switch("page", False, "serve a live page for a browser at http://127.0.0.1:8766"),
    ]


def cameras_argument() -> DeclareLaunchArgument:
    said = (
        "comma-separated cameras to simulate; leave it out for the default: ros2 launch takes no empty value"
    )
    return argument("cameras", ",".join(CAMERAS), said)


def topics_argument() -> DeclareLaunchArgument:
    return argument("topics_file", "", str(TopicsFile.model_fields["topics_file"].description))


def topics_parameter(given: dict[str, Any]) -> tuple[TopicMap, dict[str, Any]]:
    """The map of the argument `topics_file`, and the parameter that gives it to a node. ConfigError."""
    if not given["topics_file"]:
        return TopicMap(), {}
    path = str(Path(given["topics_file"]).expanduser().absolute())
    return TopicsFile(topics_file=path).read(), {"topics_file": path}


def values(context: LaunchContext, declared: Iterable[DeclareLaunchArgument]) -> dict[str, Any]:
    """The value of each argument by name: a bool for a switch, else a string."""
    read: dict[str, Any] = {}
    for each in declared:
        text = LaunchConfiguration(each.name).perform(context)
        read[each.name] = text == "true" if list(each.choices or ()) == _SWITCH else text
    return read


def names(text: str) -> list[str]:
    """ "left, right" -> ["left", "right"]."""
    return [name.strip() for name in text.split(",") if name.strip()]


def whole_number(argument: str, text: str) -> int:
    if not text.isdecimal():
        raise LaunchError(f"{argument}: '{text}' is not a whole number from 0 on")
    return int(text)


def size_px(argument: str, text: str) -> dict[str, int]:
    """ "96x64" -> the parameters `width_px` and `height_px`."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise LaunchError(f"{argument}: '{text}' is not WIDTHxHEIGHT, e.g. 96x96")
    return {"width_px": int(width), "height_px": int(height)}


def simulation_parameters(given: dict[str, Any]) -> dict[str, Any]:
    """The bridge's parameters from the `simulation_arguments`."""
    return {
        "first_seed": whole_number("seed", given["seed"]),
        "auto_reset": given["auto_reset"],
        "spectator": "" if given["spectator"] == "none" else given["spectator"],
    }


def camera_remappings(
    text: str, cameras: Sequence[str], mapped: Container[str] = ()
) -> list[tuple[str, str]]:
    """ "left:=/a,right:=/b" -> remappings of the image topics of `cameras`, of which `mapped` have names already."""
    remaps: list[tuple[str, str]] = []
    for pair in names(text):
        camera, separator, topic = (part.strip() for part in pair.partition(":="))
        if not (camera and separator and topic):
            raise LaunchError(f"camera_remaps: '{pair}' is not CAMERA:=TOPIC")
        if camera not in cameras:
            raise LaunchError(
                f"camera_remaps: the checkpoint has no camera '{camera}', but {', '.join(cameras)}"
            )
        if camera in mapped:
            raise LaunchError(f"camera_remaps: topics_file maps camera '{camera}', too: give one of them")
        remaps += picture_topics(camera, topic).items()
    return remaps
