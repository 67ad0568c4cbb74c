"""Config models, one file a subject: type, default, unit and bounds of every setting. No torch, no ROS."""

from dp_ros.schema.bags import AuditConfig, ConvertConfig, RecorderConfig
from dp_ros.schema.base import (
    CameraName,
    Config,
    ConfigError,
    Model,
    Vector3,
    as_vector,
    override,
    parse,
)
from dp_ros.schema.distillation import DistillConfig
from dp_ros.schema.exchange import ExportConfig, ImportConfig
from dp_ros.schema.gate import CommandLimits, GateConfig
from dp_ros.schema.instructions import (
    InstructionConfig,
    InstructionError,
    Sentences,
    TaskSentences,
    load_sentences,
    plain,
)
from dp_ros.schema.pictures import CameraSize, Fit, PictureSizes, Size, Target
from dp_ros.schema.policy import (
    FULL_SAMPLERS,
    MIN_SIDE_PX,
    SCHEMA_VERSION,
    ActionConfig,
    CameraInput,
    DiffusionConfig,
    EncoderConfig,
    Horizons,
    Network,
    PolicyConfig,
    Prediction,
    SamplerName,
    Spacing,
    TransformerConfig,
    UNetConfig,
)
from dp_ros.schema.serving import BridgeConfig, RuntimeConfig
from dp_ros.schema.sources import Layers, Settings, Source, load_yaml, parse_assignment
from dp_ros.schema.teleop import JoyLayout, KeyboardConfig, TeleopConfig
from dp_ros.schema.topics import TopicMap, TopicsFile, picture_topics
from dp_ros.schema.training import AugmentationConfig, CollectConfig, OptimizerConfig, TrainConfig
from dp_ros.schema.watchdog import WatchdogConfig

__all__ = [
    "FULL_SAMPLERS",
    "MIN_SIDE_PX",
    "SCHEMA_VERSION",
    "ActionConfig",
    "AuditConfig",
    "AugmentationConfig",
    "BridgeConfig",
    "CameraInput",
    "CameraName",
    "CameraSize",
    "CollectConfig",
    "CommandLimits",
    "Config",
    "ConfigError",
    "ConvertConfig",
    "DiffusionConfig",
    "DistillConfig",
    "EncoderConfig",
    "ExportConfig",
    "Fit",
    "GateConfig",
    "Horizons",
    "ImportConfig",
    "InstructionConfig",
    "InstructionError",
    "JoyLayout",
    "KeyboardConfig",
    "Layers",
    "Model",
    "Network",
    "OptimizerConfig",
    "PictureSizes",
    "PolicyConfig",
    "Prediction",
    "RecorderConfig",
    "RuntimeConfig",
    "SamplerName",
    "Sentences",
    "Settings",
    "Size",
    "Source",
    "Spacing",
    "Target",
    "TaskSentences",
    "TeleopConfig",
    "TopicMap",
    "TopicsFile",
    "TrainConfig",
    "TransformerConfig",
    "UNetConfig",
    "Vector3",
    "WatchdogConfig",
    "as_vector",
    "load_sentences",
    "load_yaml",
    "override",
    "parse",
    "parse_assignment",
    "picture_topics",
    "plain",
]
