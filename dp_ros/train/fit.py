"""Settings of a training that its dataset knows: rate, cameras, sizes and fits of the pictures, and task.

They come from the dataset unless a user set them. The values of a preset are not a user's: they give way to the
dataset's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dp_ros.data.episodes import DatasetLayout
from dp_ros.policy.checkpoint_config import policy_config
from dp_ros.schema import (
    MIN_SIDE_PX,
    ConfigError,
    EncoderConfig,
    Fit,
    Layers,
    Settings,
    Size,
    Source,
    TrainConfig,
)

RATE, TASK = "policy.rate_hz", "policy.task"
ENCODER = "policy.encoder."
CAMERAS = f"{ENCODER}cameras"
PICTURES = f"{ENCODER}pictures"
_AXES = ("width", "height")


def read_training(
    path: Path,
    assignments: Iterable[str] | None,
    option: str = "--set",
    *,
    is_preset: bool,
    init: str | Path | None = None,
) -> Settings[TrainConfig]:
    """Settings of a training from a YAML file and options KEY=VALUE; ConfigError lists all errors and their sources.

    A crop that no user set keeps its share of a size that a user set. init: a checkpoint whose policy is continued;
    its settings take the place of the file's. CheckpointError where it is unusable.
    """
    layers = Layers()
    layers.add_file(path, is_default=is_preset)
    if init:
        policy = policy_config(init).model_dump(mode="json")
        layers.add("policy", policy, Source(str(init), is_default=True))
    usual = EncoderConfig().model_dump() | (_encoder(layers) if is_preset or init else {})
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
    settings = layers.settings(TrainConfig)
    check_encoder(settings.config, init)
    return settings


def check_encoder(config: TrainConfig, init: str | Path | None) -> None:
    """ConfigError where an encoder is to be kept and there is no checkpoint to take it from."""
    if not config.train_encoder and not init:
        raise ConfigError(
            "train_encoder is false: give dp_ros train the encoder's checkpoint, --init, or leave it out"
        )


def check_kept_tasks(config: TrainConfig, tasks: Sequence[str], init: str | Path | None) -> None:
    """ConfigError where tasks are to be kept, and the training has nothing to keep them with, or nothing to learn.

    tasks: those of the dataset. init: the checkpoint whose policy is continued.
    """
    if not config.kept_tasks:
        return
    if not init or config.train_encoder:
        raise ConfigError(
            "kept_tasks needs the weights that do them, and their encoder: give dp_ros train --init, and set "
            "train_encoder=false"
        )
    for task in config.kept_tasks:
        if task not in tasks:
            near = difflib.get_close_matches(task, tasks, n=1)
            hint = f": did you mean {near[0]}?" if near else f"; it has {', '.join(tasks)}"
            raise ConfigError(f"kept_tasks names {task}, which the dataset lacks{hint}")
    if set(config.kept_tasks) >= set(tasks):
        raise ConfigError(
            "kept_tasks names all tasks of the dataset, so none is left to learn: leave some out"
        )


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
    elif len(layout.tasks) > 1 and policy.task:
        if settings.is_given(TASK):
            faults.append(
                f"{TASK} is {policy.task} ({settings.source(TASK)}), the dataset holds {len(layout.tasks)} tasks: "
                "leave it out"
            )
        layers.add(TASK, "", found)
    chosen = cameras or list(layout.cameras)
    for camera in policy.encoder.pictures:
        if camera not in chosen:
            key = f"{PICTURES}.{camera}"
            faults.append(f"{key} is of no camera of the policy, which are {', '.join(chosen)}: leave it out")
    sizes = {camera: layout.cameras[camera] for camera in chosen}
    faults += _fit_pictures(settings, layers, sizes, layout.fits, found)
    if settings.config.batch_size > layout.ticks:
        faults.append(
            f"batch_size {settings.config.batch_size} ({settings.source('batch_size')}) exceeds the {layout.ticks} "
            "windows of the dataset: lower it or collect more episodes"
        )
    if faults:
        what = "one setting does not fit" if len(faults) == 1 else f"{len(faults)} settings do not fit"
        raise ConfigError(f"{where}: {what} the dataset: {'; '.join(faults)}")
    return layers.settings(type(settings.config))


def describe(settings: Settings[TrainConfig]) -> str:
    """Cameras, rate and sizes of a training with the source of each, in one line."""
    encoder = settings.config.policy.encoder

    def value(text: str, *keys: str) -> str:
        places = dict.fromkeys(s.short if (s := settings.sources.get(key)) else "default" for key in keys)
        return f"{text} ({' and '.join(places)})"

    def of_pictures(field: str) -> list[str]:
        own = [f"{PICTURES}.{camera}.{field}" for camera in encoder.cameras]
        return [f"{ENCODER}{field}", *(key for key in own if key in settings.sources)]

    return "; ".join(
        (
            value(f"cameras {', '.join(encoder.cameras)}", CAMERAS),
            value(f"{settings.config.policy.rate_hz:g} Hz", RATE),
            value(
                encoder.describe(str(encoder.target(camera)) for camera in encoder.cameras),
                *(key for axis in _AXES for key in of_pictures(f"{axis}_px")),
            ),
            value(
                f"cropped to {encoder.describe(encoder.crop_text(camera) for camera in encoder.cameras)}",
                *(key for axis in _AXES for key in of_pictures(f"crop_{axis}_px")),
            ),
        )
    )


def _fit_pictures(
    settings: Settings[TrainConfig],
    layers: Layers,
    sizes: dict[str, Size],
    fits: dict[str, Fit],
    found: Source,
) -> Iterator[str]:
    """Fill in the sizes, crops and fits of the cameras; yields a line for each fault.

    The first camera's become those of all cameras. Cameras that differ get their own in `pictures`, stated in full.
    """
    encoder = settings.config.policy.encoder
    faults: list[str] = []
    wanted: dict[str, dict[str, Any]] = {}
    for camera, (height, width) in sizes.items():
        whose = "" if len(set(sizes.values())) == 1 else f" of {camera}"
        shown = f"the pictures{whose} are {width}x{height} px"
        wanted[camera] = {}
        for axis, actual in zip(_AXES, (width, height), strict=True):
            crop = _fitting_crop(settings, camera, axis, actual)
            faults += _size_faults(settings, camera, axis, actual, crop, shown)
            wanted[camera] |= {f"{axis}_px": actual, f"crop_{axis}_px": crop}
        fit, made = encoder.target(camera).fit, fits.get(camera, "same")
        if "same" not in (fit, made) and fit != made:
            key = _key(encoder, camera, "fit")
            faults.append(
                f"{key} is {fit} ({settings.source(key)}), the pictures of {camera} were made with {made}: leave it out"
            )
        wanted[camera]["fit"] = made if fit == "same" else fit
    yield from dict.fromkeys(faults)
    usual = next((values for camera, values in wanted.items() if camera not in encoder.pictures), {})
    for name, value in usual.items():
        key = f"{ENCODER}{name}"
        is_size = name in ("width_px", "height_px")
        if getattr(encoder, name) != value or (is_size and not settings.is_given(key)):
            layers.add(key, value, found)
    for camera, values in wanted.items():
        own = encoder.pictures.get(camera)
        for name, value in values.items() if own or values != usual else ():
            if getattr(own, name, None) != value:
                layers.add(f"{PICTURES}.{camera}.{name}", value, found)


def _size_faults(
    settings: Settings[TrainConfig], camera: str, axis: str, actual: int, crop: int, shown: str
) -> Iterator[str]:
    """A line where a user set a size that is not the actual one [px], or a crop that is larger."""
    encoder = settings.config.policy.encoder
    size_key, crop_key = (_key(encoder, camera, f"{part}{axis}_px") for part in ("", "crop_"))
    size = getattr(encoder.target(camera), f"{axis}_px")
    if settings.is_given(size_key) and size != actual:
        yield (
            f"{size_key} is {size} ({settings.source(size_key)}), {shown}: leave it out, or make the dataset at that "
            "size"
        )
    elif settings.is_given(crop_key) and crop > actual:
        yield f"{crop_key} is {crop} ({settings.source(crop_key)}), {shown}: lower it"


def _fitting_crop(settings: Settings[TrainConfig], camera: str, axis: str, actual: int) -> int:
    """The crop of a picture with `actual` px: the one that a user set, or the usual share of the picture."""
    encoder = settings.config.policy.encoder
    if (
        _key(encoder, camera, f"{axis}_px") != f"{ENCODER}{axis}_px"
    ):  # a size of its own: as the config means it
        return encoder.crop(camera)[_AXES[::-1].index(axis)]
    key = _key(encoder, camera, f"crop_{axis}_px")
    if key != f"{ENCODER}crop_{axis}_px" or settings.is_given(key):
        return encoder.crop(camera)[_AXES[::-1].index(axis)]
    usual, crop = getattr(encoder, f"{axis}_px"), getattr(encoder, f"crop_{axis}_px")
    return int(crop) if usual == actual else _scaled_crop(usual, crop, actual, encoder.stages)


def _key(encoder: EncoderConfig, camera: str, name: str) -> str:
    """Dotted key of a camera's value: its own where it has one, else that of all cameras."""
    is_own = getattr(encoder.pictures.get(camera), name, None) is not None
    return f"{PICTURES}.{camera}.{name}" if is_own else f"{ENCODER}{name}"


def _scaled_crop(usual_px: int, usual_crop_px: int, size_px: int, stages: int) -> int:
    """A crop with the same share of `size_px`, and no smaller than the encoder allows."""
    least = max(MIN_SIDE_PX, 2 ** (stages + 1) + 1)
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
