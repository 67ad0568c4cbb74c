"""Cameras of several shapes in one dataset: each with its own size, cropped or padded as the policy node does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zarr

from dp_ros.data import episodes
from dp_ros.data.bags.reader import BagError
from dp_ros.data.episodes import DatasetError
from dp_ros.ros.bags.convert import Converted, convert
from dp_ros.ros.messages.images import to_picture
from dp_ros.schema import ConfigError, ConvertConfig, EncoderConfig, override

TICKS = 9
RECORDED = {"front": (720, 1280), "wrist": (480, 640)}  # (height, width)
CAMERAS = tuple(RECORDED)


@pytest.fixture(scope="module")
def bag(bag_maker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bags") / "a"
    return bag_maker.episode(path, ticks=TICKS, cameras=CAMERAS, size=RECORDED)


@pytest.fixture(scope="module")
def recorded(bag_maker) -> dict[str, np.ndarray]:
    values = bag_maker.values(0, TICKS, CAMERAS, RECORDED)
    return {camera: values[camera] for camera in CAMERAS}


def run(bags: Path, out: Path, **settings: Any) -> Converted:
    config = override(ConvertConfig(), {"rate_hz": 80.0, "audit.min_duration_s": 0.0, **settings})
    return convert([bags], out, config, jobs=1)


def area(pictures: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.stack([cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in pictures])


def test_each_camera_keeps_its_recorded_size(tmp_path: Path, bag: Path, recorded: dict[str, Any]) -> None:
    run(bag, tmp_path / "data")
    found = episodes.load(tmp_path / "data")
    for camera in CAMERAS:
        np.testing.assert_array_equal(found.images[camera], recorded[camera])
    assert found.attributes["collect"] == {"task": "", "cameras": list(CAMERAS)}
    assert "fit" not in found.attributes


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_each_camera_has_a_size_of_its_own_and_fits_as_it_is_told(
    tmp_path: Path, bag: Path, recorded: dict[str, Any], fit: str
) -> None:
    pictures = {
        "front": {"height_px": 120, "width_px": 160, "fit": fit},
        "wrist": {"height_px": 90, "width_px": 160},
    }
    run(bag, tmp_path / "data", pictures=pictures, fit="pad" if fit == "crop" else "crop")
    found = episodes.load(tmp_path / "data")
    other = "pad" if fit == "crop" else "crop"
    assert found.attributes["fit"] == {"front": fit, "wrist": other}
    if fit == "crop":
        np.testing.assert_array_equal(
            found.images["front"], area(recorded["front"][:, :, 160:1120], 120, 160)
        )
        assert not found.images["wrist"][:, :, [0, 19, 140, 159]].any()
        np.testing.assert_array_equal(found.images["wrist"][:, :, 20:140], area(recorded["wrist"], 90, 120))
    else:
        assert not found.images["front"][:, [0, 14, 105, 119]].any()
        np.testing.assert_array_equal(found.images["front"][:, 15:105], area(recorded["front"], 90, 160))
        np.testing.assert_array_equal(found.images["wrist"], area(recorded["wrist"][:, 60:420], 90, 160))


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_converted_pictures_are_those_that_the_policy_node_sees(
    tmp_path: Path, bag: Path, bag_maker, recorded: dict[str, Any], fit: Any
) -> None:
    """Bit by bit, with the sizes and the fit that a checkpoint states."""
    sizes = {"front": {"height_px": 96, "width_px": 128}, "wrist": {"height_px": 64, "width_px": 64}}
    run(bag, tmp_path / "data", pictures=sizes, fit=fit)
    found = episodes.load(tmp_path / "data")
    encoder = EncoderConfig.model_validate({"cameras": CAMERAS, "fit": fit, "pictures": sizes})
    for camera in CAMERAS:
        seen = [
            to_picture(bag_maker.image(0, rgb)[1], camera, encoder.target(camera)) for rgb in recorded[camera]
        ]
        np.testing.assert_array_equal(found.images[camera], seen)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"height_px": 240, "width_px": 320},
            r"camera 'front' can be used: camera front: its pictures are 1280x720 px, aspect 16:9, but 320x240 px, "
            r"aspect 4:3, are wanted: .* fit: crop, with fit: pad, or with a size of 16:9 such as 320x180",
        ),
        (
            {"pictures": {"wrist": {"height_px": 720, "width_px": 1280, "fit": "pad"}}},
            r"camera wrist: its pictures are 640x480 px, aspect 4:3 \(853x480 after the padding\), fewer than the "
            r"1280x720 px.* never enlarged: raise the camera's resolution, or .* with at most 853x480",
        ),
    ],
)
def test_size_that_does_not_fit_is_refused_with_camera_sizes_aspects_and_remedy(
    tmp_path: Path, bag: Path, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(BagError, match=says) as caught:
        run(bag, tmp_path / "data", **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"fit": "stretch"}, "fit: Input should be 'same', 'crop' or 'pad'"),
        ({"pictures": {"front": {"height_px": 0, "width_px": 0}}}, "pictures.front.height_px: .*greater"),
        ({"pictures": {"front": {"height_px": 90}}}, "give both width_px and height_px"),
        ({"pictures": {"top": {"fit": "crop"}}}, "names camera 'top'; there are front, wrist"),
    ],
)
def test_settings_without_a_meaning_are_refused(
    tmp_path: Path, bag: Path, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        run(bag, tmp_path / "data", **settings)
    assert not (tmp_path / "data").exists()


def test_camera_with_two_sizes_needs_one(tmp_path: Path, bag_maker) -> None:
    """Only the camera that differs from bag to bag."""
    small = {"front": (72, 128), "wrist": (48, 64)}
    bag_maker.episode(tmp_path / "bags/a", ticks=TICKS, cameras=CAMERAS, size=small)
    large = small | {"front": (144, 256)}
    bag_maker.episode(tmp_path / "bags/b", ticks=TICKS, cameras=CAMERAS, size=large)
    says = r"b: camera 'front' is 256x144 px, in .*a it is 128x72: give --size, or --size front=WIDTHxHEIGHT"
    with pytest.raises(ConfigError, match=says):
        run(tmp_path / "bags", tmp_path / "data")
    run(tmp_path / "bags", tmp_path / "data", pictures={"front": {"height_px": 36, "width_px": 64}})
    found = episodes.load(tmp_path / "data")
    assert (found.images["front"].shape, found.images["wrist"].shape) == (
        (2 * TICKS, 36, 64, 3),
        (2 * TICKS, 48, 64, 3),
    )


def test_dataset_grows_only_with_the_fit_it_was_begun_with(tmp_path: Path, bag: Path, bag_maker) -> None:
    size = {"height_px": 48, "width_px": 64}
    run(bag, tmp_path / "data", **size, fit="crop")
    more = bag_maker.episode(tmp_path / "b", seed=1, ticks=TICKS, cameras=CAMERAS, size=(96, 128))
    config = override(ConvertConfig(), {"rate_hz": 80.0, "audit.min_duration_s": 0.0, **size, "fit": "crop"})
    assert convert([bag, more], tmp_path / "data", config, jobs=1).episodes == 2
    for changes in ({"fit": "pad"}, {"pictures": {"front": {"fit": "pad"}}}):
        with pytest.raises(DatasetError, match="give the same settings to resume"):
            convert([bag, more], tmp_path / "data", override(config, changes), jobs=1)


def test_dataset_that_is_begun_without_fits_looks_as_it_always_did(tmp_path: Path, bag_maker) -> None:
    """So that it can be resumed by either version."""
    run(bag_maker.episode(tmp_path / "bag", ticks=TICKS), tmp_path / "data")
    attributes = zarr.open_group(tmp_path / "data", mode="r").attrs.asdict()
    assert not {"fit", "pictures"} & (attributes.keys() | attributes["convert"].keys())
    assert attributes["collect"] == {"task": "", "cameras": ["left"], "width_px": 40, "height_px": 36}
