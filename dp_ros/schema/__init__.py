"""Config models, one file a subject: type, default, unit and bounds of every setting. No torch, no ROS."""

from dp_ros.schema.bags import AuditConfig, ConvertConfig, RecorderConfig, TopicMap
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
from dp_ros.schema.exchange import ExportConfig, ImportConfig
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
    SamplerName,
    TransformerConfig,
    UNetConfig,
)
from dp_ros.schema.serving import BridgeConfig, GateConfig, RuntimeConfig
from dp_ros.schema.sources import Layers, Settings, Source, load_yaml, parse_assignment
from dp_ros.schema.teleop import JoyLayout, KeyboardConfig, TeleopConfig
from dp_ros.schema.training import AugmentationConfig, CollectConfig, OptimizerConfig, TrainConfig

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
    "Config",
    "ConfigError",
    "ConvertConfig",
    "DiffusionConfig",
    "EncoderConfig",
    "ExportConfig",
    "Fit",
    "GateConfig",
    "Horizons",
    "ImportConfig",
    "JoyLayout",
    "KeyboardConfig",
    "Layers",
    "Model",
    "Network",
    "OptimizerConfig",
    "PictureSizes",
    "PolicyConfig",
    "RecorderConfig",
    "RuntimeConfig",
    "SamplerName",
    "Settings",
    "Size",
    "Source",
    "Target",
    "TeleopConfig",
    "TopicMap",
    "TrainConfig",
    "TransformerConfig",
    "UNetConfig",
    "Vector3",
    "as_vector",
    "load_yaml",
    "override",
    "parse",
    "parse_assignment",
]
