"""Settings of a training that its dataset knows: rate, cameras, size of the pictures and task.

They come from the dataset unless a user set them. The values of a preset are not a user's: they give way to the
dataset's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dp_ros.data.episodes import DatasetLayout
from dp_ros.schema import ConfigError, EncoderConfig, Layers, Settings, Source, TrainConfig

RATE, TASK = "policy.rate_hz", "policy.task"
ENCODER = "policy.encoder."
CAMERAS = f"{ENCODER}cameras"
_AXES = ("width", "height")
_SMALLEST_CROP_PX = 32


def read_training(
    path: Path, assignments: Iterable[str] | None, option: str = "--set", *, is_preset: bool
) -> Settings[TrainConfig]:
    """Settings of a training from a YAML file and options KEY=VALUE; ConfigError lists all errors and their sources.

    A crop that no user set keeps its share of a size that a user set.
    """
    layers = Layers()
    layers.add_file(path, is_default=is_preset)
    usual = EncoderConfig().model_dump() | (_encoder(layers) if is_preset else {})
    layers.assign(assignments, option)
    encoder = usual | _encoder(layers)
    for axis in _AXES:
        size, crop = layers.sources.get(f"{ENCODER}{axis}_px"), layers.sources.get(f"{ENCODER}crop_{axis}_px")
        is_crop_given = crop is not None and not crop.is_default
        if size is None or size.is_default or is_crop_given:
            continue
        numbers = (usual[f"{axis}_px"], usual[f"crop_{axis}_px"], encoder[f"{axis}_px"], encoder["stages"])
        if all(isinstance(number, int) for number in numbers):
            layers.add(f"{ENCODER}crop_{axis}_px", _scaled_crop(*numbers), size)
    return layers.settings(TrainConfig)


def fit(settings: Settings[TrainConfig], layout: DatasetLayout, where: str) -> Settings[TrainConfig]:
    """The settings with those of the dataset filled in that no user set.

    ConfigError lists every setting that does not fit the dataset at `where`: its value, its source, and what to do.
    """
    faults: list[str] = []
    found = Source(where)
    layers = Layers.of(settings)
    policy = settings.config.policy
    cameras = [camera for camera in policy.encoder.cameras if camera in layout.cameras]
    if not settings.is_given(CAMERAS):
        cameras = cameras if set(cameras) == set(layout.cameras) else list(layout.cameras)
        layers.add(CAMERAS, cameras, found)
    elif len(cameras) < len(policy.encoder.cameras):
        faults.append(_missing_cameras(settings, list(layout.cameras)))
    if layout.rate_hz is not None:
        if not settings.is_given(RATE):
            layers.add(RATE, layout.rate_hz, found)
        elif layout.rate_hz != policy.rate_hz:
            faults.append(
                f"{RATE} is {policy.rate_hz:g} ({settings.source(RATE)}), the dataset was recorded at "
                f"{layout.rate_hz:g} Hz: leave it out"
            )
    if layout.task:
        if not (settings.is_given(TASK) and policy.task):
            layers.add(TASK, layout.task, found)
        elif layout.task != policy.task:
            faults.append(
                f"{TASK} is {policy.task} ({settings.source(TASK)}), the dataset holds {layout.task}: leave it out"
            )
    faults += _fit_size(
        settings, layers, {camera: layout.cameras[camera] for camera in cameras or layout.cameras}, found
    )
    if settings.config.batch_size > layout.ticks:
        faults.append(
            f"batch_size {settings.config.batch_size} ({settings.source('batch_size')}) exceeds the {layout.ticks} "
            "windows of the dataset: lower it or collect more episodes"
        )
    if faults:
        what = "one setting does not fit" if len(faults) == 1 else f"{len(faults)} settings do not fit"
        raise ConfigError(f"{where}: {what} the dataset: {'; '.join(faults)}")
    return layers.settings(TrainConfig)


def describe(settings: Settings[TrainConfig]) -> str:
    """Cameras, rate and size of a training with the source of each, in one line."""
    encoder = settings.config.policy.encoder

    def value(text: str, *keys: str) -> str:
        places = dict.fromkeys(s.short if (s := settings.sources.get(key)) else "default" for key in keys)
        return f"{text} ({' and '.join(places)})"

    return "; ".join(
        (
            value(f"cameras {', '.join(encoder.cameras)}", CAMERAS),
            value(f"{settings.config.policy.rate_hz:g} Hz", RATE),
            value(f"{encoder.width_px}x{encoder.height_px} px", *(f"{ENCODER}{axis}_px" for axis in _AXES)),
            value(
                f"cropped to {encoder.crop_width_px}x{encoder.crop_height_px} px",
                *(f"{ENCODER}crop_{axis}_px" for axis in _AXES),
            ),
        )
    )


def _fit_size(
    settings: Settings[TrainConfig], layers: Layers, sizes: dict[str, tuple[int, int]], found: Source
) -> Iterator[str]:
    """Fill in the size of the pictures, (height, width) of each camera, and the crop; yields a line for each fault."""
    shown = {camera: f"{width}x{height} px" for camera, (height, width) in sizes.items()}
    if len(set(sizes.values())) > 1:
        each = ", ".join(f"{camera} {size}" for camera, size in shown.items())
        yield f"the pictures differ in size ({each}): name cameras of one size with {CAMERAS}"
        return
    (camera, (height, width)), *_ = sizes.items()
    encoder = settings.config.policy.encoder
    for axis, actual in zip(_AXES, (width, height), strict=True):
        size, crop = f"{ENCODER}{axis}_px", f"{ENCODER}crop_{axis}_px"
        wanted, cropped = getattr(encoder, f"{axis}_px"), getattr(encoder, f"crop_{axis}_px")
        if settings.is_given(size) and wanted != actual:
            yield (
                f"{size} is {wanted} ({settings.source(size)}), the pictures are {shown[camera]}: leave it out, or "
                "make the dataset at that size"
            )
        elif settings.is_given(crop) and cropped > actual:
            yield f"{crop} is {cropped} ({settings.source(crop)}), the pictures are {shown[camera]}: lower it"
        if not settings.is_given(size):
            layers.add(size, actual, found)
            if wanted != actual and not settings.is_given(crop):
                layers.add(crop, _scaled_crop(wanted, cropped, actual, encoder.stages), found)


def _scaled_crop(usual_px: int, usual_crop_px: int, size_px: int, stages: int) -> int:
    """A crop with the same share of `size_px`, and no smaller than the encoder allows."""
    least = max(_SMALLEST_CROP_PX, 2 ** (stages + 1) + 1)
    share = usual_crop_px / usual_px
    return int(min(size_px, max(least, round(size_px * share))))


def _missing_cameras(settings: Settings[TrainConfig], known: Sequence[str]) -> str:
    cameras = settings.config.policy.encoder.cameras
    missing = [camera for camera in cameras if camera not in known]
    near = [name for camera in missing for name in difflib.get_close_matches(camera, known, n=1)]
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    return (
        f"{CAMERAS} names {', '.join(missing)} ({settings.source(CAMERAS)}), the dataset has {', '.join(known)}: leave "
        f"it out, or name some of these{hint}"
    )


def _encoder(layers: Layers) -> dict[str, Any]:
    """The values given for the encoder so far."""
    policy = layers.data.get("policy")
    encoder = policy.get("encoder") if isinstance(policy, dict) else None
    return encoder if isinstance(encoder, dict) else {}
