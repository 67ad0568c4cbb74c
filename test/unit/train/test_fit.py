"""Settings that a training takes from its dataset, and what is said where they disagree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import DatasetLayout, read_layout
from dp_ros.resources import share_file
from dp_ros.schema import ConfigError, Settings, TrainConfig, override
from dp_ros.train.fit import describe, fit, read_training

LAYOUT = DatasetLayout(
    cameras={"wrist": (48, 64), "front": (48, 64)}, rate_hz=30.0, tasks=("stack",), ticks=500
)


def preset(name: str, *assignments: str) -> Settings[TrainConfig]:
    return read_training(share_file(f"config/train/{name}.yaml"), assignments, is_preset=True)


def refusal(settings: Settings[TrainConfig], layout: DatasetLayout = LAYOUT) -> str:
    with pytest.raises(ConfigError) as caught:
        fit(settings, layout, "D")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["cpu", "cpu-transformer", "paper", "paper-transformer"])
def test_preset_takes_cameras_rate_size_and_task_of_the_dataset(name: str) -> None:
    before = preset(name)
    fitted = fit(before, LAYOUT, "D")
    policy, encoder = fitted.config.policy, fitted.config.policy.encoder
    assert (policy.rate_hz, policy.task) == (30.0, "stack")
    assert encoder.cameras == ("wrist", "front")
    assert (encoder.width_px, encoder.height_px) == (64, 48)
    usual = before.config.policy.encoder
    for cropped, size in ((encoder.crop_width_px, 64), (encoder.crop_height_px, 48)):
        assert cropped == max(
            2 ** (usual.stages + 1) + 1, round(size * usual.crop_width_px / usual.width_px), 32
        )
    taken = ("rate_hz", "task", "encoder")
    assert fitted.config.policy.model_dump(exclude=set(taken)) == before.config.policy.model_dump(
        exclude=set(taken)
    )


def test_dataset_that_fits_the_preset_changes_only_the_task() -> None:
    """Also the order of the cameras, which is part of the weights' meaning, stays."""
    before = preset("cpu").config
    layout = DatasetLayout(
        {"behindGripper": (96, 96), "gripperPOV": (96, 96)}, 80.0, ("drawer-open-v3",), 500
    )
    fitted = fit(preset("cpu"), layout, "D").config
    assert fitted == override(before, {"policy.task": "drawer-open-v3"})


def test_what_a_user_set_stays_and_the_rest_comes_from_the_dataset() -> None:
    settings = preset("cpu", "policy.encoder.cameras=[front]", "policy.encoder.crop_width_px=40")
    encoder = fit(settings, LAYOUT, "D").config.policy.encoder
    assert (encoder.cameras, encoder.width_px, encoder.crop_width_px) == (("front",), 64, 40)
    assert encoder.crop_height_px == 42


def test_every_disagreement_is_listed_at_once_with_value_source_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "batch_size: 600\npolicy:\n  task: sweep\n  encoder:\n    width_px: 96\n    crop_width_px: 80\n    stages: 2\n"
    )
    assignments = [
        "policy.rate_hz=10",
        "policy.encoder.cameras=[wirst, front]",
        "policy.encoder.crop_height_px=50",
    ]
    line = refusal(read_training(path, assignments, is_preset=False))
    assert line.startswith("D: 6 settings do not fit the dataset: ")
    for fault in (
        "policy.rate_hz is 10 (--set policy.rate_hz=10), the dataset was recorded at 30 Hz: leave it out",
        "policy.encoder.cameras names wirst (--set policy.encoder.cameras=[wirst, front]), the dataset has wrist, "
        "front: leave it out",
        "did you mean wrist?",
        f"policy.task is sweep ({path}: line 3), the dataset holds stack: leave it out",
        f"policy.encoder.width_px is 96 ({path}: line 5), the pictures are 64x48 px: leave it out",
        "policy.encoder.crop_height_px is 50 (--set policy.encoder.crop_height_px=50), the pictures are 64x48 px: "
        "lower it",
        f"batch_size 600 ({path}: line 1) exceeds the 500 windows of the dataset: lower it",
    ):
        assert fault in line


def test_plain_config_is_the_users_and_must_fit() -> None:
    line = refusal(Settings.of(TrainConfig(), "config"))
    assert "policy.rate_hz is 80 (config)" in line
    assert "policy.encoder.height_px is 224 (config)" in line
    assert "names gripperPOV (config)" in line


def test_fault_of_the_dataset_itself_is_named_as_its_own() -> None:
    tiny = DatasetLayout({"front": (16, 16)}, 30.0, ("",), 500)
    assert "D: policy.encoder.height_px: Input should be greater than or equal to 32" in refusal(
        preset("cpu"), tiny
    )
    many = DatasetLayout({f"c{i}": (64, 64) for i in range(5)}, 30.0, ("",), 500)
    assert refusal(preset("cpu"), many).startswith(
        "D: policy.encoder.cameras: Tuple should have at most 4 items"
    )
    fit(preset("cpu", "policy.encoder.cameras=[c1, c2]"), many, "D")


def test_task_of_a_user_names_a_dataset_without_one() -> None:
    unnamed = DatasetLayout({"front": (64, 64)}, 30.0, ("",), 500)
    assert fit(preset("cpu", "policy.task=mine"), unnamed, "D").config.policy.task == "mine"


@pytest.mark.parametrize(("size", "crop"), [(64, 56), (128, 112), (34, 32)])
def test_crop_keeps_its_share_of_a_size_that_a_user_set(size: int, crop: int) -> None:
    encoder = preset("cpu", f"policy.encoder.height_px={size}").config.policy.encoder
    assert (encoder.height_px, encoder.crop_height_px) == (size, crop)
    assert (encoder.width_px, encoder.crop_width_px) == (96, 84)


def test_wrong_size_is_refused_with_its_own_option_alone() -> None:
    with pytest.raises(
        ConfigError, match=r"^--set policy.encoder.height_px=big: Input should be a valid integer"
    ):
        preset("cpu", "policy.encoder.height_px=big")


def test_description_names_the_source_of_each_value() -> None:
    line = describe(fit(preset("cpu", "policy.encoder.cameras=[front]"), LAYOUT, "D"))
    assert line == (
        "cameras front (--set policy.encoder.cameras=[front]); 30 Hz (D); 64x48 px (D); cropped to 56x42 px (D)"
    )
    same = DatasetLayout({"gripperPOV": (96, 96), "behindGripper": (96, 96)}, 80.0, ("",), 500)
    assert describe(fit(preset("cpu"), same, "D")).endswith("96x96 px (D); cropped to 84x84 px (cpu.yaml)")


def written(path: Path, attributes: dict[str, Any], **sizes: tuple[int, int]) -> Path:
    from dp_ros.data.reader import StoredEpisode

    with DatasetWriter(path, attributes) as writer:
        episode = StoredEpisode(
            seed=0,
            noise=0.0,
            tried=1,
            images={name: np.zeros((7, *size, 3), np.uint8) for name, size in sizes.items()},
            ee_pose=np.zeros((7, 3)),
            gripper=np.zeros(7),
            action=np.zeros((7, 4)),
            command=np.zeros((7, 4)),
        )
        writer.append(episode, 1)
        writer.finish()
    return path


def test_layout_is_read_from_the_arrays_in_the_order_of_the_recording(tmp_path: Path) -> None:
    collect = {"task": "stack", "cameras": ["wrist", "front"]}
    path = written(tmp_path / "a", {"rate_hz": 25.0, "collect": collect}, front=(40, 50), wrist=(40, 50))
    layout = read_layout(path)
    assert layout == DatasetLayout({"wrist": (40, 50), "front": (40, 50)}, 25.0, ("stack",), 7)
    assert list(layout.cameras) == ["wrist", "front"]
    bare = read_layout(written(tmp_path / "b", {}, left=(32, 33)))
    assert bare == DatasetLayout({"left": (32, 33)}, None, ("",), 7)


SHAPES = DatasetLayout(
    {"wrist": (96, 96), "front": (180, 320), "top": (96, 96)},
    30.0,
    ("",),
    500,
    {"wrist": "crop", "front": "pad"},
)


@pytest.mark.parametrize("name", ["cpu", "cpu-transformer", "paper"])
def test_cameras_of_several_sizes_get_pictures_of_their_own(name: str) -> None:
    usual = preset(name).config.policy.encoder
    encoder = fit(preset(name), SHAPES, "D").config.policy.encoder
    assert [str(encoder.target(camera)) for camera in encoder.cameras] == [
        "96x96 px (crop)",
        "320x180 px (pad)",
        "96x96 px",
    ]
    share = usual.crop_height_px / usual.height_px
    assert encoder.crop("front") == (round(180 * share), round(320 * share))
    assert encoder.crop("wrist") == encoder.crop("top") == (round(96 * share), round(96 * share))
    assert set(encoder.pictures) == {"front", "top"}
    for own in encoder.pictures.values():  # in full, for the checkpoint
        assert None not in own.model_dump().values()


def test_a_fit_that_all_cameras_share_is_that_of_the_encoder() -> None:
    layout = DatasetLayout(
        {"wrist": (48, 64), "front": (48, 64)}, 30.0, ("",), 500, {"wrist": "pad", "front": "pad"}
    )
    encoder = fit(preset("cpu"), layout, "D").config.policy.encoder
    assert (encoder.fit, encoder.pictures) == ("pad", {})


def test_pictures_that_a_user_set_stay_and_the_others_come_from_the_dataset() -> None:
    front = "policy.encoder.pictures.front={width_px: 320, height_px: 180, crop_width_px: 200}"
    encoder = fit(preset("cpu", front), SHAPES, "D").config.policy.encoder
    assert (encoder.crop("front"), encoder.crop("top")) == ((158, 200), (84, 84))
    assert [encoder.target(camera).size for camera in encoder.cameras] == [(96, 96), (180, 320), (96, 96)]
    assert encoder.target("front").fit == "pad"


def test_settings_that_were_fitted_fit_again_unchanged() -> None:
    once = fit(preset("cpu"), SHAPES, "D").config
    assert fit(Settings.of(once, "config"), SHAPES, "D").config == once


def test_pictures_that_do_not_fit_are_listed_with_camera_value_source_and_remedy() -> None:
    own = "policy.encoder.pictures"
    line = refusal(
        preset(
            "cpu",
            "policy.encoder.width_px=96",
            f"{own}.top.fit=pad",
            f"{own}.wrist={{height_px: 90, width_px: 90, fit: pad}}",
            f"{own}.side.fit=pad",
        ),
        SHAPES,
    )
    for fault in (
        "policy.encoder.width_px is 96 (--set policy.encoder.width_px=96), the pictures of front are 320x180 px",
        f"{own}.wrist.width_px is 90 (--set {own}.wrist=",
        "the pictures of wrist are 96x96 px: leave it out, or make the dataset at that size",
        f"{own}.wrist.fit is pad (--set",
        "the pictures of wrist were made with crop: leave it out",
        f"{own}.side is of no camera of the policy, which are wrist, front, top: leave it out",
    ):
        assert fault in line
    assert f"{own}.top" not in line


def test_description_names_size_and_fit_of_each_camera() -> None:
    line = describe(fit(preset("cpu"), SHAPES, "D"))
    assert "wrist 96x96 px (crop), front 320x180 px (pad), top 96x96 px (D)" in line
    assert "cropped to wrist 84x84 px, front 280x158 px, top 84x84 px (cpu.yaml and D)" in line


def test_layout_knows_the_fits_of_the_dataset(tmp_path: Path) -> None:
    path = written(tmp_path / "a", {"fit": {"front": "crop"}}, front=(40, 50), wrist=(36, 40))
    assert read_layout(path).fits == {"front": "crop"}
    assert read_layout(path).cameras == {"front": (40, 50), "wrist": (36, 40)}
