"""A recorded episode: the streams of one arm, and a source for its pictures, which stay in the bag."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.data.bags.reader import BagInfo, BagReader
from dp_ros.ros.bags.messages import decode, json_object
from dp_ros.ros.messages import images
from dp_ros.schema import Size, Target

# Names of the pose and the gripper stream of a command.
COMMANDS = ("command_pose", "command_gripper")
EXPERT = ("expert_pose", "expert_gripper")


@dataclass(frozen=True)
class RecordedStream:
    """The usable messages of one topic, in the order of arrival.

    Values: a picture is its number among the messages of its topic; `ee_pose` and commanded poses are (7,), a gripper
    state is an opening, a gripper command is a number or None (not commanded).
    """

    topic: str
    type_name: str
    stamps_ns: NDArray[np.int64]
    received_ns: NDArray[np.int64]
    values: list[Any]
    frame_ids: tuple[str, ...]  # every header.frame_id, in the order of first use
    unreadable: int = 0  # messages that were left out, because the live node cannot use them either
    why: str = ""  # the first of them cannot be used

    def __len__(self) -> int:
        return len(self.stamps_ns)


@dataclass(frozen=True)
class PictureSource:
    """Location of an episode's pictures: all that a worker process needs to read them."""

    path: Path
    topics: dict[str, tuple[str, str]]  # camera -> (topic, type)

    def read(
        self, wanted: Callable[[str, int], bool], targets: Mapping[str, Target]
    ) -> Iterator[tuple[str, int, NDArray[np.uint8]]]:
        """(camera, number, picture as its camera's target says) where `wanted(camera, number)`."""
        cameras = {topic: (camera, kind) for camera, (topic, kind) in self.topics.items()}
        numbers = dict.fromkeys(cameras, -1)
        with BagReader(self.path) as bag:
            for topic, _, data in bag.messages(cameras):
                numbers[topic] += 1
                camera, kind = cameras[topic]
                if wanted(camera, numbers[topic]):
                    msg = decode(data, kind, topic, self.path)
                    yield camera, numbers[topic], images.to_picture(msg, camera, targets[camera])


@dataclass(frozen=True)
class BagEpisode:
    """One recorded episode. The names of its streams are those of `FrameAssembler` and of TopicMap."""

    info: BagInfo
    cameras: dict[str, RecordedStream]
    ee_pose: RecordedStream
    gripper: RecordedStream
    actions: dict[str, RecordedStream]  # of COMMANDS and EXPERT, those that were recorded
    # Tick [ns] -> stream -> stamp of its sample [ns], as the policy node published them on policy/ages.
    node_stamps: dict[int, dict[str, int]] = field(default_factory=dict)
    sizes: dict[str, Size] = field(default_factory=dict)  # camera -> size of its first usable picture
    result: dict[str, Any] = field(default_factory=dict)  # the last message on episode/result
    # Camera -> contrast and digest of each usable picture.
    looks: dict[str, list[tuple[float, int]]] = field(default_factory=dict)

    @property
    def streams(self) -> dict[str, RecordedStream]:
        return {
            **{f"camera {name}": stream for name, stream in self.cameras.items()},
            "ee_pose": self.ee_pose,
            "gripper": self.gripper,
            **self.actions,
        }

    @property
    def pictures(self) -> PictureSource:
        return PictureSource(
            self.info.path, {name: (stream.topic, stream.type_name) for name, stream in self.cameras.items()}
        )

    @property
    def is_lockstep(self) -> bool:
        return self.info.custom.get("mode") == "lockstep"

    @property
    def collect(self) -> dict[str, Any]:
        """Settings of the scripted collection it is part of; empty for any other."""
        return json_object(self.info.custom.get("collect", "{}"))
