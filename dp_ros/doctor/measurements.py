"""Measurements of a robot's topics before its policy is activated, and the expectations they are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import GRIPPER, POSITION, STATE_DIM
from dp_ros.schema import PolicyConfig, RuntimeConfig, Size

Stamps = NDArray[np.int64]


def _no_stamps() -> Stamps:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A publisher or subscriber of another node."""

    node: str
    type: str
    apart: str = ""  # why it exchanges nothing with the policy node, with the remedy


@dataclass(frozen=True, kw_only=True)
class Heard:
    """Messages of one topic that the policy node reads. Times are of the node's clock, in the order of arrival."""

    name: str  # of the stream: "camera wrist", "ee_pose", "gripper"
    topic: str  # with its remapping
    type: str  # the one that the policy node reads
    publishers: tuple[Endpoint, ...] = ()
    stamps_ns: Stamps = field(default_factory=_no_stamps)
    received_ns: Stamps = field(default_factory=_no_stamps)
    frame_ids: tuple[str, ...] = ()
    refused: int = 0  # messages that the policy node would refuse
    why_refused: str = ""  # the first of them

    @property
    def where(self) -> str:
        return f"{self.name} ({self.topic})"

    @property
    def ages_s(self) -> NDArray[np.float64]:
        """(N,) from a message's stamp to its receipt; negative for a stamp in the future."""
        return np.asarray((self.received_ns - self.stamps_ns) / 1e9)


@dataclass(frozen=True, kw_only=True)
class CameraHeard(Heard):
    camera: str  # as the checkpoint names it
    sizes: tuple[Size, ...] = ()  # (height, width) [px]
    encodings: tuple[str, ...] = ()
    contrast: float | None = None  # median over the pictures that were looked at


@dataclass(frozen=True, kw_only=True)
class PoseHeard(Heard):
    poses: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 7)))  # (N, 7) as sent


@dataclass(frozen=True, kw_only=True)
class GripperHeard(Heard):
    joints: tuple[str, ...] = ()  # of all messages
    openings: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # 0 closed to 1 open


@dataclass(frozen=True, kw_only=True)
class CommandTopic:
    """A topic that the policy node will publish."""

    name: str
    topic: str
    type: str
    publishers: tuple[Endpoint, ...] = ()  # without the policy node
    subscribers: tuple[Endpoint, ...] = ()
    messages: int = 0  # heard while nobody should have commanded

    @property
    def where(self) -> str:
        return f"{self.name} ({self.topic})"


@dataclass(frozen=True, kw_only=True)
class RobotHeard:
    """All that was heard of a robot in `listened_s` seconds."""

    listened_s: float
    cameras: tuple[CameraHeard, ...]
    ee_pose: PoseHeard
    gripper: GripperHeard
    commands: tuple[CommandTopic, ...] = ()
    topics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of the graph: name -> types
    sim_time: bool = False
    without_time: str = ""  # why the node's clock stands still

    @property
    def streams(self) -> tuple[Heard, ...]:
        return (*self.cameras, self.ee_pose, self.gripper)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The checkpoint's meaning, the node's settings, and the range of the demonstrations."""

    policy: PolicyConfig
    runtime: RuntimeConfig
    position_m: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None  # lowest, highest (3,)
    opening: tuple[float, float] | None = None

    @classmethod
    def of(cls, policy: PolicyConfig, runtime: RuntimeConfig, stats: Mapping[str, Any]) -> Expected:
        """`stats`: content of a checkpoint's stats.json."""
        state = stats.get("state") or {}
        low, high = (np.asarray(state.get(end, ()), dtype=np.float64) for end in ("low", "high"))
        if not low.shape == high.shape == (STATE_DIM,):
            return cls(policy=policy, runtime=runtime)
        return cls(
            policy=policy,
            runtime=runtime,
            position_m=(POSITION.of(low), POSITION.of(high)),
            opening=(float(low[GRIPPER.start]), float(high[GRIPPER.start])),
        )
