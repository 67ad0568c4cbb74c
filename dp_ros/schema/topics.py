"""Names of a robot's topics: one map for recording, check, conversion, serving and the doctor."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import Field, model_validator

from dp_ros.schema.base import CameraName, Config, ConfigError
from dp_ros.schema.gripper import GripperCommands, GripperState
from dp_ros.schema.sources import load_yaml

Topic = Annotated[str, Field(pattern=r"^/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*$")]
Settings = TypeVar("Settings", bound=Config)
COMPRESSED = "/compressed"
# Our names of the topics that the map calls by a field.
_OURS = {
    "ee_pose": "ee_pose",
    "gripper": "gripper/state",
    "command_pose": "command/ee_pose",
    "command_gripper": "command/gripper",
    "expert_pose": "expert/ee_pose",
    "expert_gripper": "expert/gripper",
}


class TopicMap(GripperState, GripperCommands):
    """Topics of a robot, or of a bag, by their meaning. Names without a leading slash are below `namespace`."""

    namespace: str = Field("", description="e.g. /arm")
    cameras: dict[CameraName, Topic] = Field(
        default_factory=dict,
        description="camera -> topic; empty: every camera/<name>/image_raw and .../compressed in the bag",
    )
    ee_pose: Topic = Field("ee_pose", description="measured pose, geometry_msgs/PoseStamped")
    gripper: Topic = Field("gripper/state", description="measured gripper, sensor_msgs/JointState")
    command_pose: Topic = Field("command/ee_pose", description="commanded pose, geometry_msgs/PoseStamped")
    command_gripper: Topic = Field(
        "command/gripper", description="gripper command, sensor_msgs/JointState or std_msgs/Float64"
    )
    expert_pose: Topic = Field(
        "expert/ee_pose",
        description="the label where noise was injected; without it, the command is the label",
    )
    expert_gripper: Topic = Field("expert/gripper", description="the same for the gripper")

    @model_validator(mode="after")
    def _cameras_differ(self) -> TopicMap:
        if len(set(self.cameras.values())) != len(self.cameras):
            raise ValueError(f"cameras {self.cameras} names one topic twice")
        return self

    def absolute(self, topic: str) -> str:
        """The topic's full name, as it stands in a bag."""
        return topic if topic.startswith("/") else f"/{self.namespace.strip('/')}/{topic}".replace("//", "/")

    def is_compressed(self, camera: str, transport: str) -> bool:
        """Whether a camera's pictures are CompressedImage: the map names such a topic, or `transport` asks for them."""
        return transport == "compressed" or self.cameras.get(camera, "").endswith(COMPRESSED)

    def names(self) -> dict[str, str]:
        """Our name -> the robot's, of each topic that a node must call otherwise.

        A name without a leading slash stays below the node's namespace, unless the map has one of its own.
        """
        pairs = {ours: getattr(self, field) for field, ours in _OURS.items()}
        for camera, topic in self.cameras.items():
            pairs |= picture_topics(camera, topic)
        if self.namespace:
            pairs = {ours: self.absolute(topic) for ours, topic in pairs.items()}
        return {ours: topic for ours, topic in pairs.items() if ours != topic}

    def gripper_of(self, settings: Settings, place: str) -> Settings:
        """`settings` with the map's gripper where they keep their defaults.

        ConfigError where both give a value and the two differ; `place`: the source of the settings.
        """
        ours = {}
        for name in set(TopicMap.model_fields) & set(type(settings).model_fields):
            default = TopicMap.model_fields[name].default
            wanted, given = getattr(self, name), getattr(settings, name)
            if given not in (default, wanted) and wanted != default:
                raise ConfigError(
                    f"{name}: {place} says {given!r}, and topics_file {wanted!r}: give one of them"
                )
            ours[name] = wanted if given == default else given
        return settings.model_copy(update=ours)


class TopicsFile(Config):
    """Parameter of the nodes that work with a robot's topics."""

    topics_file: str = Field(
        "",
        description="map of the robot's topics, the YAML file of `dp_ros convert --topics-file`; empty: our names",
    )

    def read(self) -> TopicMap:
        """The map. ConfigError where it is wrong."""
        return load_yaml(TopicMap, self.topics_file) if self.topics_file else TopicMap()


def picture_topics(camera: str, topic: str) -> dict[str, str]:
    """Our names of a camera's pictures and lens -> the robot's, where its pictures are on `topic`, or compressed there.

    As image_transport has it, camera_info lies beside the picture.
    """
    raw = topic.removesuffix(COMPRESSED)
    beside, slash, _ = raw.rpartition("/")
    return {
        f"camera/{camera}/image_raw": raw,
        f"camera/{camera}/image_raw{COMPRESSED}": f"{raw}{COMPRESSED}",
        f"camera/{camera}/camera_info": f"{beside}{slash}camera_info",
    }
