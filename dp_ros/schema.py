"""Every config model of the project. YAML in, one-line errors out; no torch, no ROS.

A value that follows from others is a property, an unknown key is an error that names the nearest valid
one, and an invalid config cannot exist.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

SCHEMA_VERSION = 1

Vector3 = tuple[float, float, float]
CameraName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Share = Annotated[float, Field(ge=0, lt=1)]
PositionKind = Literal["absolute", "relative", "delta"]
Network = Literal["unet"]


class ConfigError(ValueError):
    """A config that cannot be used; the message is one line: where, what, and what to do."""


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Horizons(Config):
    """The three horizons of receding-horizon control (Chi et al. 2023, fig. 3), in control ticks."""

    T_o: int = Field(2, ge=1, le=16, description="observed frames; the newest is now")
    T_p: int = Field(8, ge=1, le=64, description="predicted actions; the first is at now - (T_o - 1)")
    T_a: int = Field(4, ge=1, le=64, description="executed actions; the first is now")

    @property
    def executed(self) -> slice:
        """The part of a chunk that is executed; its first action answers the newest frame."""
        return slice(self.T_o - 1, self.T_o - 1 + self.T_a)

    @model_validator(mode="after")
    def _fits(self) -> Horizons:
        if self.executed.stop > self.T_p:
            raise ValueError(
                f"T_o - 1 + T_a = {self.executed.stop} actions are needed but T_p = {self.T_p} are predicted: "
                "raise T_p or lower T_a"
            )
        return self


class EncoderConfig(Config):
    """Images to one feature vector per frame: ResNet-18 from scratch, GroupNorm, spatial softmax."""

    cameras: tuple[CameraName, ...] = Field(("gripperPOV",), min_length=1, max_length=4)
    height_px: int = Field(224, ge=32, le=480, description="every camera is resized to this height")
    width_px: int = Field(224, ge=32, le=640, description="and to this width")
    crop_height_px: int = Field(208, ge=32, le=480, description="random in training, centred when served")
    crop_width_px: int = Field(208, ge=32, le=640)
    stages: int = Field(
        4, ge=2, le=4, description="ResNet stages kept; 3 halves the stride before the softmax"
    )
    keypoints: int = Field(32, ge=4, le=256, description="spatial-softmax points per camera")
    feature_dim: int = Field(64, ge=8, le=1024, description="feature length per camera and frame")
    share_weights: bool = Field(False, description="one ResNet for all cameras instead of one each")
    proprioception: bool = Field(
        False, description="also observe (ee_x, ee_y, ee_z [m], gripper); off: vision only, as in the paper"
    )

    @model_validator(mode="after")
    def _crop_fits(self) -> EncoderConfig:
        if len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"cameras {list(self.cameras)} names one twice")
        if self.crop_height_px > self.height_px or self.crop_width_px > self.width_px:
            raise ValueError(
                f"crop {self.crop_width_px}x{self.crop_height_px} px is larger than the image "
                f"{self.width_px}x{self.height_px} px"
            )
        if min(self.crop_height_px, self.crop_width_px) <= 2 ** (self.stages + 1):  # the stages' stride
            raise ValueError(
                f"crop {self.crop_width_px}x{self.crop_height_px} px is one cell after {self.stages} stages, and "
                "spatial softmax of one cell sees nothing: enlarge the crop or lower stages"
            )
        return self


class ActionConfig(Config):
    """An action is (ee_x, ee_y, ee_z [m, base frame], gripper [-1, 1]); each part declares its kind."""

    position: PositionKind = Field(
        "relative",
        description="absolute; relative to the last command before the newest frame; delta to the previous action",
    )
    gripper: Literal["absolute"] = "absolute"

    @property
    def dim(self) -> int:
        return 4


class UNetConfig(Config):
    """Conditional 1-D U-Net with FiLM (Chi et al. 2023, section 3.1; Janner et al. 2022)."""

    channels: tuple[int, ...] = Field((256, 512, 1024), min_length=1, max_length=5)
    kernel_size: int = Field(5, ge=1, le=9)
    groups: int = Field(8, ge=1, le=32, description="GroupNorm groups")
    step_embedding_dim: int = Field(
        256, ge=8, le=1024, multiple_of=2, description="sinusoidal embedding of k: half sines, half cosines"
    )

    @model_validator(mode="after")
    def _divisible(self) -> UNetConfig:
        for c in self.channels:
            if c <= 0 or c % self.groups:
                raise ValueError(
                    f"channels {list(self.channels)}: {c} is not a multiple of groups {self.groups}"
                )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {self.kernel_size} must be odd, so that the length is kept")
        return self


class DiffusionConfig(Config):
    """Forward process and sampler (Ho et al. 2020; Nichol & Dhariwal 2021; Song et al. 2021)."""

    iterations: int = Field(100, ge=2, le=1000, description="K, the iterations of the forward process")
    schedule: Literal["squared_cosine"] = "squared_cosine"
    prediction: Literal["epsilon"] = "epsilon"
    clip: float = Field(1.0, gt=0, description="the predicted clean action is clipped to [-clip, clip]")
    sampler: Literal["ddpm", "ddim"] = "ddim"
    sampler_iterations: int = Field(10, ge=1, le=1000, description="iterations of the sampler; K for ddpm")

    @model_validator(mode="after")
    def _sampler_fits(self) -> DiffusionConfig:
        if self.sampler_iterations > self.iterations:
            raise ValueError(
                f"sampler_iterations {self.sampler_iterations} exceeds the {self.iterations} iterations trained"
            )
        if self.sampler == "ddpm" and self.sampler_iterations != self.iterations:
            raise ValueError(
                f"ddpm runs all {self.iterations} iterations: set sampler_iterations to that, or sampler to ddim"
            )
        return self


class PolicyConfig(Config):
    """What the weights mean: everything that must agree between training and serving."""

    task: str = Field("", description="the task the policy was trained for; empty for none")
    rate_hz: float = Field(80.0, gt=0, le=1000, description="control rate; one frame and one action per tick")
    horizons: Horizons = Horizons()
    encoder: EncoderConfig = EncoderConfig()
    action: ActionConfig = ActionConfig()
    network: Network = "unet"
    unet: UNetConfig = UNetConfig()
    diffusion: DiffusionConfig = DiffusionConfig()

    @property
    def dt_s(self) -> float:
        return 1.0 / self.rate_hz


class CollectConfig(Config):
    """How demonstrations of the scripted expert are made."""

    task: str = "drawer-open-v3"
    episodes: int = Field(250, ge=1)
    cameras: tuple[CameraName, ...] = Field(("gripperPOV",), min_length=1)
    width_px: int = Field(224, ge=16, le=640)
    height_px: int = Field(224, ge=16, le=480)
    markers: bool = Field(
        False, description="draw Metaworld's goal and finger markers, which no real camera would see"
    )
    noise: tuple[float, ...] = Field(
        (0.0,),
        min_length=1,
        description="std of the noise injected into the executed native action, by turns",
    )
    first_seed: int = Field(100_000, ge=0, description="episode i uses seed first_seed + i")
    max_steps: int = Field(300, ge=1, le=500)
    keep_steps: int = Field(
        10, ge=0, description="ticks recorded after success, so that the policy learns to stay"
    )

    @model_validator(mode="after")
    def _noise_is_a_scale(self) -> CollectConfig:
        if min(self.noise) < 0:
            raise ValueError(f"noise {list(self.noise)} has a negative standard deviation")
        return self


class TrainConfig(Config):
    """One training run. The defaults are the paper's."""

    policy: PolicyConfig = PolicyConfig()
    batch_size: int = Field(64, ge=1, description="windows per step")
    epochs: int | None = Field(100, ge=1, description="passes over the windows; or give steps")
    steps: int | None = Field(None, ge=1, description="optimiser steps; wins over epochs")
    noise_samples: int = Field(
        1,
        ge=1,
        description="diffusion targets drawn per encoded window: more signal for one pass of the encoder",
    )
    lr: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-6, ge=0)
    betas: tuple[Share, Share] = Field((0.95, 0.999), description="AdamW's decay of its two moments")
    warmup_steps: int = Field(500, ge=0)
    gradient_clip: float = Field(1.0, gt=0, description="largest gradient norm")
    ema_power: float = Field(0.75, gt=0, le=1, description="EMA decay at step n is 1 - (1 + n)^-power")
    ema_max: float = Field(0.9999, gt=0, lt=1)
    precision: Literal["f32", "bf16"] = "f32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = Field(0, ge=0)
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints to resume from")
    log_every: int = Field(20, ge=1)

    @model_validator(mode="after")
    def _has_a_length(self) -> TrainConfig:
        if self.steps is None and self.epochs is None:
            raise ValueError("neither steps nor epochs is given: set one")
        return self


class GateConfig(Config):
    """Limits every command passes before it is published. Fail closed: a limit that cannot be checked holds."""

    workspace_low_m: Vector3 = Field(
        (-0.5, 0.3, 0.0), description="lowest commanded position, base frame [m]"
    )
    workspace_high_m: Vector3 = Field(
        (0.5, 1.0, 0.6), description="highest commanded position, base frame [m]"
    )
    max_step_m: float = Field(0.02, gt=0, description="longest move of the command in one tick [m]")
    max_obs_age_s: float = Field(0.1, gt=0, description="oldest observation a command may answer [s]")

    @model_validator(mode="after")
    def _box_is_not_empty(self) -> GateConfig:
        for low, high, axis in zip(self.workspace_low_m, self.workspace_high_m, "xyz", strict=True):
            if not low < high:
                raise ValueError(f"workspace {axis}: low {low} is not below high {high}")
        return self


class RuntimeConfig(Config):
    """How a policy is served: timing, sampler and limits. Nothing here changes what the weights mean."""

    mode: Literal["lockstep", "realtime"] = Field(
        "realtime", description="lockstep: one command per observation, stamped alike; realtime: own clock"
    )
    sampler: Literal["checkpoint", "ddpm", "ddim"] = Field("checkpoint", description="override the sampler")
    sampler_iterations: int = Field(
        0, ge=0, le=1000, description="override its iterations; 0: the checkpoint's"
    )
    policy_seed: int = Field(0, ge=0, description="seed of the sampler's noise, started anew each episode")
    image_transport: Literal["raw", "compressed"] = Field(
        "raw", description="subscribe to camera/<name>/image_raw or to camera/<name>/image_raw/compressed"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where the policy runs; auto: a GPU if any"
    )
    threads: int = Field(0, ge=0, le=256, description="CPU threads of the inference; 0: torch's choice")
    episode_gap_s: float = Field(
        0.5, gt=0, description="frames further apart than this begin a new episode [s]"
    )
    gate: GateConfig = GateConfig()


class BridgeConfig(Config):
    """Metaworld as a robot: what it simulates, what its cameras are, and how time passes."""

    task: str = "drawer-open-v3"
    cameras: tuple[CameraName, ...] = Field(("gripperPOV",), min_length=1)
    width_px: int = Field(96, ge=16, le=640)
    height_px: int = Field(96, ge=16, le=480)
    markers: bool = Field(False, description="draw Metaworld's goal and finger markers")
    mode: Literal["lockstep", "realtime"] = "lockstep"
    first_seed: int = Field(
        0, ge=0, description="seed of the first episode; the next episode takes the next one"
    )
    max_steps: int = Field(200, ge=1, le=500, description="time limit of an episode [ticks]")
    spectator: str = Field("", description="another camera, for people: published at 480x480; empty for none")
    auto_reset: bool = Field(False, description="begin episodes without being asked, one after another")
    command_timeout_s: float = Field(
        5.0, gt=0, description="lockstep: fail the episode when no command comes [s]"
    )
    command_max_age_s: float = Field(
        0.25, gt=0, description="realtime: hold when the newest command is older [s]"
    )

    @property
    def rate_hz(self) -> float:
        """Metaworld's control rate: 5 substeps of 2.5 ms."""
        return 80.0


Model = TypeVar("Model", bound=Config)


def load_yaml(model: type[Model], path: str | Path, overrides: dict[str, Any] | None = None) -> Model:
    """Read a config from YAML; `overrides` maps dotted keys ("policy.task") to values that win.

    Raises ConfigError with one line that names the file, the key and what to do.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, found a {type(data).__name__}")
    for dotted, value in (overrides or {}).items():
        _set(data, dotted, value)
    return parse(model, data, where=str(path))


def parse(model: type[Model], data: dict[str, Any], where: str) -> Model:
    """Validate a mapping; a ConfigError says in one line where it is wrong and what would be right."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_one_line(model, error)}") from None


def override(config: Model, overrides: dict[str, Any], where: str = "command line") -> Model:
    """The config with dotted keys ("gate.max_step_m") replaced, validated anew."""
    data = config.model_dump()
    for dotted, value in overrides.items():
        _set(data, dotted, value)
    return parse(type(config), data, where=where)


def parse_assignment(text: str) -> tuple[str, Any]:
    """ "policy.unet.groups=4" -> ("policy.unet.groups", 4); the value is YAML."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"'{text}' is not KEY=VALUE, e.g. batch_size=32")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"'{text}': the value is not YAML") from None


def _set(data: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for key in parents:
        child = data.get(key)
        if not isinstance(child, dict):
            child = data[key] = {}
        data = child
    data[last] = value


def _one_line(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location) or model.__name__
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        valid = list(_model_at(model, location[:-1]).model_fields)
        near = difflib.get_close_matches(location[-1], valid, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"valid keys: {', '.join(valid)}"
        return f"unknown key '{key}'; {hint}{more}"
    message = first["msg"].removeprefix("Value error, ")
    value = first.get("input")
    shown = "" if isinstance(value, dict | BaseModel) else f" (got {value!r})"
    return f"{key}: {message}{shown}{more}"


def _model_at(model: type[BaseModel], location: list[str]) -> type[BaseModel]:
    for key in location:
        field = model.model_fields.get(key)
        candidates = [field.annotation, *get_args(field.annotation)] if field else []
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not models:
            break
        model = models[0]
    return model


def as_vector(values: Vector3) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)
