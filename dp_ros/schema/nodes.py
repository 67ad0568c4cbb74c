"""Parameters of the nodes: the configs that each reads, and what it declares besides."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from dp_ros.schema.bags import RecorderConfig
from dp_ros.schema.base import Config
from dp_ros.schema.gripper import GripperCommands
from dp_ros.schema.serving import BridgeConfig, RuntimeConfig
from dp_ros.schema.stand_in import StandInConfig
from dp_ros.schema.teleop import KeyboardConfig, TeleopConfig
from dp_ros.schema.topics import TopicsFile
from dp_ros.schema.watch import WatchConfig
from dp_ros.schema.watchdog import WatchdogConfig


class LifecycleConfig(Config):
    """Start of a lifecycle node."""

    autostart: bool = Field(
        False, description="configure and activate without a lifecycle manager; a failure ends the process"
    )
    autoconfigure: bool = Field(
        False,
        description="configure without a lifecycle manager, and wait inactive: for a node that is started again",
    )


class ServedConfig(Config):
    """The weights of the policy node, and what it is told."""

    changes_at_run_time: ClassVar[bool | tuple[str, ...]] = ("instruction",)
    checkpoint: str = Field(
        "", description="checkpoint to serve: its folder, a run folder, or the name of a shipped model"
    )
    instruction: str = Field(
        "", description="sentence for a policy that is told what to do; empty: none, so that it holds"
    )


NODES: dict[str, tuple[type[Config], ...]] = {
    "policy_node": (ServedConfig, RuntimeConfig, GripperCommands, TopicsFile, LifecycleConfig),
    "metaworld_bridge": (BridgeConfig, LifecycleConfig),
    "recorder_node": (RecorderConfig, TopicsFile, LifecycleConfig),
    "teleop_node": (TeleopConfig, GripperCommands, TopicsFile, LifecycleConfig),
    "teleop_keyboard": (KeyboardConfig,),
    "stand_in": (StandInConfig,),
    "policy_watchdog": (WatchdogConfig, TopicsFile),
    "watch_node": (WatchConfig,),
}
