"""Stored sizes of the cameras' pictures: one for all, or one each, and the way other aspect ratios fit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from dp_ros.schema.base import CameraName, Config, ConfigError

Fit = Literal["same", "crop", "pad"]
Size = tuple[int, int]  # (height, width) [px]
MAX_SIDE_PX = 4096
FIT = "pictures of another aspect ratio: same: refused; crop: the centre is kept; pad: black is added at the sides"


@dataclass(frozen=True)
class Target:
    """Stored size of one camera's pictures, and the way in which pictures of another aspect ratio fit it."""

    height_px: int
    width_px: int
    fit: Fit = "same"

    @property
    def size(self) -> Size:
        return self.height_px, self.width_px

    def cut(self, size: Size) -> Size:
        """Size of the part of a picture that is kept: all of it, or with crop the centre in the target's aspect."""
        return self._reshaped(size) if self.fit == "crop" else size

    def inside(self, size: Size) -> Size:
        """The part of the target that the picture fills: all of it, or with pad less on one side."""
        if self.fit != "pad":
            return self.size
        scale = min(self.height_px / size[0], self.width_px / size[1])
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def largest(self, size: Size) -> Size:
        """The largest target of this aspect ratio that pictures of `size` fill without being enlarged."""
        return size if self.fit == "same" else self._reshaped(size)

    def _reshaped(self, size: Size) -> Size:
        """`size` in the target's aspect ratio: smaller with crop, larger with pad."""
        height, width = size
        is_wide = width * self.height_px > self.width_px * height
        if is_wide == (self.fit == "crop"):
            return height, max(1, round(height * self.width_px / self.height_px))
        return max(1, round(width * self.height_px / self.width_px)), width

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px} px{'' if self.fit == 'same' else f' ({self.fit})'}"


class CameraSize(Config):
    """Stored pictures of one camera. What is left out is as for all cameras."""

    height_px: int | None = Field(None, ge=16, le=MAX_SIDE_PX, description="height; give both or neither")
    width_px: int | None = Field(None, ge=16, le=MAX_SIDE_PX, description="width")
    fit: Fit | None = Field(None, description=FIT)

    @model_validator(mode="after")
    def _whole_size(self) -> CameraSize:
        if (self.width_px is None) != (self.height_px is None):
            raise ValueError("give both width_px and height_px, or neither")
        return self

    def target(self, shared: Size, fit: Fit) -> Target:
        """The camera's target; `shared` and `fit` are those of all cameras."""
        height_px, width_px = self.height_px or shared[0], self.width_px or shared[1]
        return Target(height_px, width_px, self.fit or fit)


class PictureSizes(Config):
    """Sizes of the pictures of a dataset that is made from another source."""

    fit: Fit = Field("same", description=FIT)
    pictures: dict[CameraName, CameraSize] = Field(
        default_factory=dict, description="camera -> its own width_px, height_px and fit"
    )

    @model_serializer(mode="wrap")
    def _without_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Datasets that were begun before these settings existed are resumed with the same attributes."""
        return without_default_pictures(dump(self))

    def shared_size(self) -> Size | None:
        """Size of all cameras without one of their own; None: as recorded."""
        return None

    def check_cameras(self, known: Iterable[str], where: str) -> None:
        """ConfigError where `pictures` names a camera that is not among the known ones of `where`."""
        cameras = list(known)
        for camera in self.pictures:
            if camera not in cameras:
                raise ConfigError(
                    f"{where}: pictures names camera '{camera}'; there are {', '.join(cameras)}"
                )

    def target(self, camera: str, recorded: Size) -> Target:
        """Target of a camera that sends pictures of the size `recorded`."""
        return self.pictures.get(camera, CameraSize()).target(self.shared_size() or recorded, self.fit)

    def is_sized(self, camera: str) -> bool:
        """Whether the camera's size is set, so that it does not follow the recording."""
        return (self.shared_size() or self.pictures.get(camera, CameraSize()).height_px) is not None


def without_default_pictures(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without `fit` and `pictures` where they have their defaults."""
    defaults = {"fit": "same", "pictures": {}}
    return {key: value for key, value in settings.items() if key not in defaults or value != defaults[key]}
