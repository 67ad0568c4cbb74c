"""Meaning of the weights: every setting that must agree between training and serving."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from dp_ros.actions import ACTION_DIM, GripperKind, OrientationKind, PositionKind
from dp_ros.schema.base import CameraName, Config
from dp_ros.schema.instructions import InstructionConfig
from dp_ros.schema.pictures import (
    FIT,
    MAX_SIDE_PX,
    CameraSize,
    Fit,
    Size,
    Target,
    without_default_pictures,
)

SCHEMA_VERSION = 2  # of a checkpoint's config.json

Network = Literal["unet", "transformer"]  # each has a section of its name in PolicyConfig
SamplerName = Literal["ddpm", "ddim", "dpm_solver"]  # each has a row in `dp_ros.policy.sampler.SAMPLERS`
Prediction = Literal["epsilon", "sample"]  # see `dp_ros.policy.sampler.SamplerStep`
Spacing = Literal["leading", "trailing", "linspace"]  # see `dp_ros.policy.noise_levels.visited_iterations`
MAX_CHANNELS = 16_384
MIN_SIDE_PX = 32  # of the encoder's pictures and crops
FULL_SAMPLERS: frozenset[SamplerName] = frozenset({"ddpm"})  # they visit every trained iteration


class Horizons(Config):
    """The three horizons of receding-horizon control (Chi et al. 2023, fig. 3), in control ticks."""

    T_o: int = Field(2, ge=1, le=16, description="observed frames; the newest is now")
    T_p: int = Field(8, ge=1, le=64, description="predicted actions; the first is at now - (T_o - 1)")
    T_a: int = Field(4, ge=1, le=64, description="executed actions; the first is now")

    @property
    def executed(self) -> slice:
        """The executed part of a chunk; its first action is for the time of the newest frame."""
        return slice(self.T_o - 1, self.T_o - 1 + self.T_a)

    @model_validator(mode="after")
    def _fits(self) -> Horizons:
        if self.executed.stop > self.T_p:
            raise ValueError(
                f"T_o - 1 + T_a = {self.executed.stop} actions are needed but T_p = {self.T_p} are predicted: "
                "raise T_p or lower T_a"
            )
        return self


class CameraInput(CameraSize):
    """Pictures of one camera, and their crop. What is left out is as for all cameras."""

    crop_height_px: int | None = Field(
        None,
        ge=32,
        le=MAX_SIDE_PX,
        description="height of the crop; default: the same share as for all cameras",
    )
    crop_width_px: int | None = Field(None, ge=32, le=MAX_SIDE_PX, description="width of the crop; likewise")


class EncoderConfig(Config):
    """Encoder of images to one feature vector per frame: ResNet-18 from scratch, GroupNorm, spatial softmax."""

    cameras: tuple[CameraName, ...] = Field(
        ("gripperPOV",), min_length=1, max_length=4, description="cameras that the policy sees"
    )
    height_px: int = Field(224, ge=32, le=MAX_SIDE_PX, description="height of every picture")
    width_px: int = Field(224, ge=32, le=MAX_SIDE_PX, description="width of every picture")
    crop_height_px: int = Field(
        208, ge=32, le=MAX_SIDE_PX, description="height of the crop: random in training, centred when served"
    )
    crop_width_px: int = Field(208, ge=32, le=MAX_SIDE_PX, description="width of the crop")
    fit: Fit = Field("same", description=f"{FIT}; default: as the dataset was made")
    pictures: dict[CameraName, CameraInput] = Field(
        default_factory=dict,
        description="camera -> its own width_px, height_px, crop_width_px, crop_height_px, fit",
    )
    stages: int = Field(
        4, ge=2, le=4, description="ResNet stages kept; 3 halves the stride before the softmax"
    )
    width: int = Field(
        64,
        ge=16,
        le=128,
        multiple_of=16,
        description="channels of the first stage; each stage has twice those of the one before; 32 is a quarter of "
        "the work",
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
        for camera in dict.fromkeys((*self.cameras, *self.pictures)):  # the dataset may bring more cameras
            whose = f"camera '{camera}': " if camera in self.pictures else ""
            (height, width), target = self.crop(camera), self.target(camera)
            if min(target.size) < MIN_SIDE_PX:
                raise ValueError(f"{whose}{target} is too small: the sides must have {MIN_SIDE_PX} px")
            if height > target.height_px or width > target.width_px:
                raise ValueError(
                    f"{whose}crop {width}x{height} px is larger than the image {target.width_px}x{target.height_px} px"
                )
            if min(height, width) <= 2 ** (self.stages + 1):  # the stages' stride
                raise ValueError(
                    f"{whose}crop {width}x{height} px is one cell after {self.stages} stages, and spatial softmax of "
                    "one cell carries no position: enlarge the crop or lower stages"
                )
        return self

    @model_serializer(mode="wrap")
    def _without_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Checkpoints stay as they were before `fit`, `pictures` and `width`."""
        settings = without_default_pictures(dump(self))
        return {key: value for key, value in settings.items() if (key, value) != ("width", 64)}

    def target(self, camera: str) -> Target:
        """Size of the camera's pictures before their crop, and their fit."""
        own = self.pictures.get(camera, CameraInput())
        return own.target((self.height_px, self.width_px), self.fit)

    def crop(self, camera: str) -> Size:
        """(height, width) of the crop of the camera's pictures."""
        own, target = self.pictures.get(camera, CameraInput()), self.target(camera)
        return (
            own.crop_height_px
            or max(MIN_SIDE_PX, round(target.height_px * self.crop_height_px / self.height_px)),
            own.crop_width_px
            or max(MIN_SIDE_PX, round(target.width_px * self.crop_width_px / self.width_px)),
        )

    def largest_size(self) -> Size:
        """Size that no camera exceeds, for simulators, which draw all cameras in one size."""
        targets = [self.target(camera) for camera in self.cameras]
        return max(target.height_px for target in targets), max(target.width_px for target in targets)

    def describe(self, texts: Iterable[str]) -> str:
        """One text for each camera, as one line: the text alone where it is the same for all."""
        each = dict(zip(self.cameras, texts, strict=True))
        if len(set(each.values())) == 1:
            return each[self.cameras[0]]
        return ", ".join(f"{camera} {text}" for camera, text in each.items())

    def crop_text(self, camera: str) -> str:
        """The camera's crop, as people write it."""
        height, width = self.crop(camera)
        return f"{width}x{height} px"


class ActionConfig(Config):
    """An action is (ee_x, ee_y, ee_z [m, base frame], gripper [-1, 1]); each part declares its kind."""

    position: PositionKind = Field(
        "relative",
        description="absolute; relative to the last command before the newest frame; delta to the previous action",
    )
    gripper: GripperKind = Field("absolute", description="absolute: -1 open to 1 closed")
    orientation: OrientationKind = Field(
        "hold", description="hold: the tool keeps the orientation measured when the episode began"
    )

    @property
    def dim(self) -> int:
        """Length of an action vector."""
        return ACTION_DIM


class UNetConfig(Config):
    """Conditional 1-D U-Net with FiLM (Chi et al. 2023, section 3.1; Janner et al. 2022)."""

    channels: tuple[int, ...] = Field(
        (256, 512, 1024), min_length=1, max_length=5, description="channels of each level"
    )
    kernel_size: int = Field(5, ge=1, le=9, description="actions that a convolution spans; odd")
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
            if c > MAX_CHANNELS:
                raise ValueError(f"channels {list(self.channels)}: {c} exceeds {MAX_CHANNELS}")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {self.kernel_size} must be odd, so that the length is kept")
        return self


class TransformerConfig(Config):
    """Time-series diffusion transformer (Chi et al. 2023, section 3.2), with the defaults of their image policies."""

    layers: int = Field(8, ge=1, le=24, description="decoder layers")
    heads: int = Field(4, ge=1, le=32, description="attention heads; each has embedding_dim / heads features")
    embedding_dim: int = Field(
        256, ge=8, le=2048, multiple_of=2, description="length of a token; also of the sinusoids of k"
    )
    dropout: float = Field(
        0.3, ge=0, lt=1, description="in training: of attention weights and of each layer's output"
    )
    embedding_dropout: float = Field(0.0, ge=0, lt=1, description="in training: of the input tokens")

    @model_validator(mode="after")
    def _divisible(self) -> TransformerConfig:
        if self.embedding_dim % self.heads:
            raise ValueError(f"embedding_dim {self.embedding_dim} is not a multiple of heads {self.heads}")
        return self


class DiffusionConfig(Config):
    """Forward process and sampler (Ho et al. 2020; Nichol & Dhariwal 2021; Song et al. 2021)."""

    iterations: int = Field(100, ge=2, le=1000, description="K, the iterations of the forward process")
    schedule: Literal["squared_cosine"] = Field("squared_cosine", description="noise over the iterations")
    prediction: Prediction = Field(
        "epsilon", description="output of the network. epsilon: the added noise; sample: the clean actions"
    )
    clip: float = Field(1.0, gt=0, description="the predicted clean action is clipped to [-clip, clip]")
    sampler: SamplerName = Field("ddim", description="method that denoises an action chunk")
    sampler_iterations: int = Field(10, ge=1, le=1000, description="iterations of the sampler; K for ddpm")
    spacing: Spacing = Field(
        "leading",
        description="iterations that the sampler visits: leading from 0 up, trailing from the last down, linspace both",
    )
    distilled_for: tuple[int, ...] = Field(
        (), description="iterations k that a student was trained for, and no others; empty: all of them"
    )

    prefix: int = Field(
        0,
        ge=0,
        le=63,
        description="training also shows up to so many first actions of a chunk as they were executed, for continuity "
        "inpaint; T_o - 1 of them are past; 0: never",
    )

    @model_validator(mode="after")
    def _sampler_fits(self) -> DiffusionConfig:
        if self.sampler_iterations > self.iterations:
            raise ValueError(
                f"sampler_iterations {self.sampler_iterations} exceeds the {self.iterations} iterations trained"
            )
        if self.sampler in FULL_SAMPLERS and self.sampler_iterations != self.iterations:
            raise ValueError(
                f"{self.sampler} runs all {self.iterations} iterations: set sampler_iterations to "
                f"{self.iterations}, or sampler to ddim"
            )
        if self.sampler_iterations == 1 and self.spacing == "leading" and self.iterations > 1:
            raise ValueError(
                "one iteration with leading spacing visits only k = 0, where the network expects a clean chunk, not "
                "the noise it starts from: set spacing to trailing, or sampler_iterations to 2 or more"
            )
        return self


class PolicyConfig(Config):
    """Meaning of the weights: every setting that must agree between training and serving."""

    task: str = Field("", description="the task the policy was trained for; empty for none")
    rate_hz: float = Field(80.0, gt=0, le=1000, description="control rate; one frame and one action per tick")
    horizons: Horizons = Horizons()
    encoder: EncoderConfig = EncoderConfig()
    instruction: InstructionConfig | None = Field(
        None,
        description="the policy is told by a sentence what to do: embedding_dim and features, {} for their defaults; "
        "null: it does one thing",
    )
    action: ActionConfig = ActionConfig()
    network: Network = Field(
        "unet", description="network that predicts the noise; its section has its settings"
    )
    unet: UNetConfig = UNetConfig()
    transformer: TransformerConfig = TransformerConfig()
    diffusion: DiffusionConfig = DiffusionConfig()

    @model_validator(mode="after")
    def _configures_its_network_only(self) -> PolicyConfig:
        for other in self._unused:
            if other in self.model_fields_set:
                raise ValueError(
                    f"the network is the {self.network}, so '{other}' would change nothing: "
                    f"remove '{other}' or set network to {other}"
                )
        return self

    @model_validator(mode="after")
    def _prefix_leaves_actions_free(self) -> PolicyConfig:
        if self.diffusion.prefix >= self.horizons.T_p:
            raise ValueError(
                f"diffusion.prefix {self.diffusion.prefix} leaves none of T_p = {self.horizons.T_p} actions to "
                "predict: lower it"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the settings of what is not used, so that config.json does not mislead."""
        unused = self._unused if self.instruction else {*self._unused, "instruction"}
        return {key: value for key, value in dump(self).items() if key not in unused}

    @property
    def _unused(self) -> set[str]:
        return set(get_args(Network)) - {self.network}

    @property
    def dt_s(self) -> float:
        return 1.0 / self.rate_hz
