"""LeRobot folders without lerobot: round trips, refusals, interrupted runs. test/interop has the real one."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from dp_ros.actions import GRIPPER, POSITION, gripper_of
from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import DatasetError, load
from dp_ros.data.lerobot import LeRobotError, layout
from dp_ros.data.lerobot.arrow import pa, pq
from dp_ros.data.lerobot.exporter import encoding, export_dataset
from dp_ros.data.lerobot.files import TableFiles, VideoFiles, place
from dp_ros.data.lerobot.importer import import_dataset
from dp_ros.data.lerobot.mapping import camera_name
from dp_ros.data.lerobot.stats import QUANTILES, merge, picture_stats, vector_stats
from dp_ros.data.reader import DatasetReader
from dp_ros.data.video import read_pictures
from dp_ros.pictures import fit_image
from dp_ros.schema import ConfigError, ExportConfig, ImportConfig, Target

LENGTHS = (5, 40, 3)
SETTINGS = {"rate_hz": 80.0, "collect": {"task": "any", "noise": [0.0, 0.3]}}
MakeEpisode = Callable[..., Any]


def make(path: Path, make_episode: MakeEpisode, settings: dict[str, Any] = SETTINGS, **changes: Any) -> Path:
    with DatasetWriter(path, settings) as writer:
        for i, length in enumerate(LENGTHS):
            episode = dataclasses.replace(make_episode(i, length), **changes)
            GRIPPER.of(episode.action)[:] = GRIPPER.of(episode.command)[:] = np.linspace(-1, 1, length)[
                :, None
            ]
            writer.append(episode, tried=2 * (i + 1))
        writer.finish()
    return path


@pytest.fixture
def dataset(tmp_path: Path, make_episode: MakeEpisode) -> Path:
    return make(tmp_path / "data", make_episode)


@pytest.fixture
def exported(dataset: Path, tmp_path: Path) -> Path:
    export_dataset(dataset, tmp_path / "exported", ExportConfig())
    return tmp_path / "exported"


@pytest.fixture
def foreign(exported: Path) -> Path:
    """A folder as from another program."""
    (exported / layout.OURS).unlink()
    return exported


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def import_refusal(folder: Path, kind: type[Exception] = LeRobotError, **settings: Any) -> str:
    """The message of the refusal; no part of the dataset may be left."""
    out = folder.parent / "refused"
    with pytest.raises(kind) as caught:
        import_dataset(folder, out, ImportConfig(**settings))
    assert "\n" not in str(caught.value)
    assert not out.exists()
    return str(caught.value)


def test_round_trip_gives_the_same_dataset(dataset: Path, exported: Path, tmp_path: Path) -> None:
    """Equal pixels and provenance; numbers in the float32 of LeRobot."""
    import_dataset(exported, tmp_path / "back", ImportConfig())
    before, after = load(dataset), load(tmp_path / "back")
    np.testing.assert_array_equal(after.episode_ends, before.episode_ends)
    for camera, pixels in before.images.items():
        np.testing.assert_array_equal(after.images[camera], pixels)
    for name in ("ee_pose", "gripper", "action", "command"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name).astype(np.float32))
    assert before.attributes.items() <= after.attributes.items()
    assert after.attributes["lerobot"]["lossless_video"] is True
    one, other = DatasetReader(dataset), DatasetReader(tmp_path / "back")
    assert (one.seed, one.noise, one.tried) == (other.seed, other.noise, other.tried)


def test_imported_dataset_can_be_exported_again(dataset: Path, tmp_path: Path) -> None:
    exported = tmp_path / "exported"
    export_dataset(dataset, exported, ExportConfig(task="open the drawer"))
    import_dataset(exported, tmp_path / "back", ImportConfig())
    export_dataset(tmp_path / "back", tmp_path / "again", ExportConfig())
    for name in ("data/chunk-000/file-000.parquet", layout.STATS, layout.INFO, layout.TASKS):
        assert (tmp_path / "again" / name).read_bytes() == (exported / name).read_bytes()


def test_lossy_export_says_so_and_keeps_its_pictures_in_place(
    tmp_path: Path, make_episode: MakeEpisode
) -> None:
    """Flat pictures with one level for each tick: compression keeps the level, which identifies the picture."""
    smooth = np.broadcast_to(np.arange(40, 45)[:, None, None, None] * 4, (5, 32, 32, 3)).astype(np.uint8)
    with DatasetWriter(tmp_path / "data", SETTINGS) as writer:
        writer.append(dataclasses.replace(make_episode(0, 5), images={"left": smooth}), tried=1)
        writer.finish()
    export_dataset(tmp_path / "data", tmp_path / "exported", ExportConfig(crf=18))
    import_dataset(tmp_path / "exported", tmp_path / "back", ImportConfig())
    after = load(tmp_path / "back")
    assert np.abs(after.images["left"].astype(int) - smooth).max() <= 2
    assert after.attributes["lerobot"]["lossless_video"] is False
    described = json.loads((tmp_path / "exported" / layout.INFO).read_text())["features"]
    assert described["observation.images.left"]["info"]["video.pix_fmt"] == "yuv420p"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_export_that_fails_midway_leaves_nothing(
    dataset: Path, tmp_path: Path, error: type[BaseException]
) -> None:
    def fail(done: int, of: int) -> None:
        if done == 2:
            raise error

    with pytest.raises(error):
        export_dataset(dataset, tmp_path / "exported", ExportConfig(), fail)
    assert list(tmp_path.iterdir()) == [dataset]


def test_export_never_overwrites(dataset: Path, exported: Path) -> None:
    before = sorted(exported.rglob("*"))
    for out in (exported, exported / layout.INFO):
        with pytest.raises(LeRobotError, match="exists already: give another --out"):
            export_dataset(dataset, out, ExportConfig())
    assert sorted(exported.rglob("*")) == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({**SETTINGS, "rate_hz": 12.5}, "was recorded at 12.5 Hz and LeRobot takes whole numbers only"),
        ({"collect": {"task": "any"}}, "was recorded at 0 Hz"),
        ({"rate_hz": 80.0}, "names no task: give one in words, e.g. --task"),
    ],
)
def test_dataset_that_lerobot_cannot_hold_is_not_exported(
    tmp_path: Path, make_episode: MakeEpisode, settings: dict[str, Any], said: str
) -> None:
    path = make(tmp_path / "data", make_episode, settings)
    with pytest.raises(LeRobotError, match=said):
        export_dataset(path, tmp_path / "exported", ExportConfig())
    assert list(tmp_path.iterdir()) == [path]


def test_lossy_video_of_odd_sides_is_refused_before_anything_is_written(
    tmp_path: Path, make_episode: MakeEpisode
) -> None:
    odd = {"left": np.zeros((5, 7, 8, 3), dtype=np.uint8)}
    with DatasetWriter(tmp_path / "data", SETTINGS) as writer:
        writer.append(dataclasses.replace(make_episode(0, 5), images=odd), tried=1)
        writer.finish()
    with pytest.raises(LeRobotError, match="'left' is 8x7 px and lossy video takes even sides only"):
        export_dataset(tmp_path / "data", tmp_path / "exported", ExportConfig(crf=18))
    export_dataset(tmp_path / "data", tmp_path / "exported", ExportConfig())


def test_unfinished_and_damaged_datasets_are_not_exported(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        export_dataset(tmp_path / "none", tmp_path / "exported", ExportConfig())
    chunk = max((dataset / "images/left/c").rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    chunk.unlink()
    with pytest.raises(DatasetError, match="are lost"):
        export_dataset(dataset, tmp_path / "exported", ExportConfig())


def test_task_and_robot_are_what_was_asked_for(dataset: Path, tmp_path: Path) -> None:
    export_dataset(dataset, tmp_path / "exported", ExportConfig(task="open the drawer", robot="sawyer"))
    assert layout.read_tasks(tmp_path / "exported") == ["open the drawer"]
    assert json.loads((tmp_path / "exported" / layout.INFO).read_text())["robot_type"] == "sawyer"


@pytest.mark.slow
def test_neither_way_holds_the_pictures_of_all_episodes(tmp_path: Path, make_episode: MakeEpisode) -> None:
    episodes, length, side = 8, 32, 128
    dark = {"left": np.zeros((length, side, side, 3), dtype=np.uint8)}  # quick to compress
    with DatasetWriter(tmp_path / "data", SETTINGS) as writer:
        for i in range(episodes):
            writer.append(dataclasses.replace(make_episode(i, length), images=dark), tried=i + 1)
        writer.finish()
    of_all = episodes * dark["left"].nbytes
    peaks = []
    for run in (
        lambda: export_dataset(tmp_path / "data", tmp_path / "exported", ExportConfig()),
        lambda: import_dataset(tmp_path / "exported", tmp_path / "back", ImportConfig()),
    ):
        tracemalloc.start()
        try:
            run()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert max(peaks) < 0.6 * of_all, [peak / of_all for peak in peaks]


def test_killed_import_resumes(exported: Path, tmp_path: Path) -> None:
    def fail(done: int, of: int) -> None:
        raise KeyboardInterrupt

    done: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        import_dataset(exported, tmp_path / "back", ImportConfig(), fail)
    with pytest.raises(DatasetError, match="is unfinished"):
        load(tmp_path / "back")
    import_dataset(exported, tmp_path / "back", ImportConfig(), lambda index, of: done.append(index))
    assert done == [2, 3]
    import_dataset(exported, tmp_path / "whole", ImportConfig())
    one, other = load(tmp_path / "back"), load(tmp_path / "whole")
    np.testing.assert_array_equal(one.images["left"], other.images["left"])
    np.testing.assert_array_equal(one.episode_ends, other.episode_ends)
    with pytest.raises(DatasetError, match=r"was begun with lerobot\.cameras = \[\], not \['left'\]"):
        import_dataset(exported, tmp_path / "back", ImportConfig(cameras=("left",)))


def test_dataset_from_elsewhere_has_no_seeds_and_executes_its_actions(foreign: Path, tmp_path: Path) -> None:
    import_dataset(foreign, tmp_path / "back", ImportConfig(cameras=("right",)))
    found = load(tmp_path / "back")
    assert list(found.images) == ["right"]
    np.testing.assert_array_equal(found.command, found.action)
    assert found.attributes["rate_hz"] == 80
    assert "collect" not in found.attributes
    reader = DatasetReader(tmp_path / "back")
    assert (reader.seed, reader.noise, reader.tried) == ([-1] * 3, [0.0] * 3, [1, 2, 3])


def test_numbers_are_chosen_by_index_or_name_and_rescaled(
    foreign: Path, dataset: Path, tmp_path: Path
) -> None:
    config = ImportConfig(
        ee_position="action:2,ee_y,0",
        gripper="action:gripper",
        action="action:0,1,2,3",
        command="command:0,1,2,3",
        gripper_range=(1, -1),
        action_gripper_range=(-2, 2),
    )
    import_dataset(foreign, tmp_path / "back", config)
    before, after = load(dataset), load(tmp_path / "back")
    np.testing.assert_allclose(after.ee_pose, before.action[:, [2, 1, 0]], rtol=1e-6)
    np.testing.assert_allclose(after.gripper, (1 - gripper_of(before.action)) / 2, atol=1e-6)
    np.testing.assert_allclose(gripper_of(after.action), gripper_of(before.action) / 2, atol=1e-6)
    np.testing.assert_allclose(POSITION.of(after.command), POSITION.of(before.command), rtol=1e-6)


def test_pictures_are_shrunk_to_the_size_asked_for(tmp_path: Path, make_episode: MakeEpisode) -> None:
    with DatasetWriter(tmp_path / "data", SETTINGS) as writer:
        writer.append(make_episode(0, 5, 48, 64), tried=1)
        writer.finish()
    export_dataset(tmp_path / "data", tmp_path / "exported", ExportConfig())
    import_dataset(tmp_path / "exported", tmp_path / "back", ImportConfig(width_px=32, height_px=24))
    assert load(tmp_path / "back").images["left"].shape == (5, 24, 32, 3)


def test_cameras_are_imported_in_sizes_of_their_own(tmp_path: Path, make_episode: MakeEpisode) -> None:
    """To squares, by crop and by pad."""
    with DatasetWriter(tmp_path / "data", SETTINGS) as writer:
        writer.append(make_episode(0, 5, 48, 64), tried=1)
        writer.finish()
    foreign = tmp_path / "exported"
    export_dataset(tmp_path / "data", foreign, ExportConfig())
    (foreign / layout.OURS).unlink()
    own = {
        "left": {"height_px": 16, "width_px": 16, "fit": "crop"},
        "right": {"height_px": 24, "width_px": 24},
    }
    import_dataset(foreign, tmp_path / "back", ImportConfig.model_validate({"fit": "pad", "pictures": own}))
    before, after = load(tmp_path / "data"), load(tmp_path / "back")
    assert after.attributes["fit"] == {"left": "crop", "right": "pad"}
    for camera, fit in after.attributes["fit"].items():
        target = Target(own[camera]["height_px"], own[camera]["width_px"], fit)
        expected = [fit_image(picture, target) for picture in before.images[camera]]
        np.testing.assert_array_equal(after.images[camera], expected)
    assert "names camera 'top'" in import_refusal(foreign, ConfigError, pictures={"top": {"fit": "pad"}})


def test_fit_of_a_dataset_outlives_its_export(tmp_path: Path, make_episode: MakeEpisode) -> None:
    with DatasetWriter(tmp_path / "data", {**SETTINGS, "fit": {"left": "crop"}}) as writer:
        writer.append(make_episode(0, 5, 48, 64), tried=1)
        writer.finish()
    exported = tmp_path / "exported"
    export_dataset(tmp_path / "data", exported, ExportConfig())
    import_dataset(exported, tmp_path / "back", ImportConfig(width_px=32, height_px=24))
    assert load(tmp_path / "back").attributes["fit"] == {"left": "crop"}
    said = import_refusal(exported, width_px=24, height_px=24, fit="pad")
    assert "'left' was made with fit: crop before its export" in said
    own = {"right": {"height_px": 24, "width_px": 24, "fit": "pad"}}
    import_dataset(exported, tmp_path / "own", ImportConfig.model_validate({"pictures": own}))
    assert load(tmp_path / "own").attributes["fit"] == {"left": "crop", "right": "pad"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"ee_position": "observation.pose:0,1,2"},
            "has no numbers 'observation.pose': name others with --ee-position, out of observation.state, action",
        ),
        (
            {"action": "action:x,y,z,gripper"},
            "'action' has no 'x', it has ee_x, ee_y, ee_z, gripper: name one of them, e.g. --action action:0,1,2,3",
        ),
        ({"action": "action:0,1,2,4"}, "'action' has no '4'"),
        ({"cameras": ("front",)}, "has no camera 'front'; it has left, right"),
        (
            {"gripper": "action:3"},
            "in state of episode 0 run from -1 to 1, outside 0 to 1: give the values that mean 0 and 1 with "
            "--gripper-range",
        ),
        (
            {"action_gripper_range": (50, 100)},
            "give the values that mean -1 and 1 with --action-gripper-range FROM,TO",
        ),
    ],
)
def test_mapping_that_does_not_fit_is_refused(foreign: Path, settings: dict[str, Any], said: str) -> None:
    assert said in import_refusal(foreign, **settings)


def test_old_and_new_formats_are_refused(foreign: Path) -> None:
    edit(foreign / layout.INFO, codebase_version="v2.1")
    assert "is of format v2.1, dp_ros reads v3.0: convert it with LeRobot's `python -m" in import_refusal(
        foreign
    )
    edit(foreign / layout.INFO, codebase_version="v4.0")
    assert "is of format v4.0, this dp_ros reads v3.0" in import_refusal(foreign)


def test_other_folders_than_lerobot_datasets_are_refused(tmp_path: Path, dataset: Path) -> None:
    assert "does not exist" in import_refusal(tmp_path / "none")
    assert "has no meta/info.json: give the folder of a LeRobotDataset v3.0" in import_refusal(dataset)


def test_folder_changed_after_our_export_is_refused(exported: Path) -> None:
    """Its provenance would belong to other episodes."""
    edit(exported / layout.OURS, length=[5, 40, 4])
    assert "remove it to import them as a dataset from elsewhere" in import_refusal(exported)
    edit(exported / layout.OURS, version=9)
    assert "is of version 9, this dp_ros reads 1" in import_refusal(exported)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: (root / layout.INFO).write_text("{"), "meta/info.json: is not JSON"),
        (lambda root: edit(root / layout.INFO, total_episodes=4), "counts 4 episodes, meta/episodes lists 3"),
        (lambda root: edit(root / layout.INFO, total_episodes=0), "counts 0 episodes"),
        (lambda root: (root / layout.TASKS).unlink(), "meta/tasks.parquet cannot be read"),
        (lambda root: shutil.rmtree(root / "data"), "data/chunk-000/file-000.parquet cannot be read"),
        (lambda root: cut(root / "data/chunk-000/file-000.parquet"), "file-000.parquet cannot be read"),
        (lambda root: cut(root / "meta/episodes/chunk-000/file-000.parquet"), "meta/episodes cannot be read"),
        (
            lambda root: drop_row(root / "data/chunk-000/file-000.parquet"),
            "frames of episode 1 are not 0 to 39",
        ),
        (lambda root: shutil.rmtree(root / "videos/observation.images.right"), "right/chunk-000"),
    ],
)
def test_damaged_folder_is_refused(foreign: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(foreign)
    assert said in import_refusal(foreign)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_row(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.take([i for i in range(len(table)) if i != 20]), path)


def test_value_that_is_not_finite_is_refused_before_anything_is_written(foreign: Path) -> None:
    """In the last episode, which would be read last."""
    path = foreign / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    state = np.array(table["observation.state"].to_pylist(), dtype=np.float32)
    state[-1, 1] = np.nan
    changed = pa.FixedSizeListArray.from_arrays(pa.array(state.ravel()), 4)
    pq.write_table(table.set_column(0, "observation.state", changed), path)
    assert "'observation.state' of episode 2 holds values that are not finite" in import_refusal(foreign)


def test_damaged_video_is_named_when_its_episode_is_read(foreign: Path, tmp_path: Path) -> None:
    """Earlier episodes are kept, and the dataset stays unfinished."""
    cut(foreign / "videos/observation.images.left/chunk-000/file-000.mp4")
    with pytest.raises(LeRobotError, match=r"episode \d in videos/observation.images.left/chunk-000"):
        import_dataset(foreign, tmp_path / "back", ImportConfig())
    with pytest.raises(DatasetError, match="is unfinished"):
        load(tmp_path / "back")


def test_files_roll_over_when_full(tmp_path: Path) -> None:
    assert place(0) == {"chunk_index": 0, "file_index": 0}
    assert place(1001) == {"chunk_index": 1, "file_index": 1}
    table = pa.table({"a": np.arange(10)})
    with TableFiles(tmp_path, layout.DATA_PATH, limit_bytes=150) as tables:
        places = []
        for _ in range(5):
            places.append(tables.next_place()["file_index"])
            tables.write(table)
    assert places == [0, 0, 1, 1, 2]
    assert pq.read_metadata(tmp_path / layout.DATA_PATH.format(**place(1))).num_rows == 20

    pictures = np.random.default_rng(0).integers(0, 256, (5, 4, 16, 16, 3), dtype=np.uint8)
    with VideoFiles(tmp_path, "left", 10, encoding(ExportConfig()), limit_s=0.7) as videos:
        where = [videos.write(episode) for episode in pictures]
    assert [w["videos/left/file_index"] for w in where] == [0, 0, 1, 1, 2]
    assert [w["videos/left/from_timestamp"] for w in where] == [0, 0.4, 0, 0.4, 0]
    for facts, episode in zip(where, pictures, strict=True):
        path = tmp_path / layout.VIDEO_PATH.format(video_key="left", **place(facts["videos/left/file_index"]))
        times_s = facts["videos/left/from_timestamp"] + np.arange(4) / 10
        np.testing.assert_array_equal(list(read_pictures(path, times_s, 0.05)), episode)


def test_picture_statistics_are_those_of_every_pixel() -> None:
    pictures = np.random.default_rng(0).integers(10, 240, (6, 5, 7, 3), dtype=np.uint8)
    stats, pixels = picture_stats(pictures), pictures.reshape(-1, 3) / 255
    for name, expected in {
        "min": pixels.min(0),
        "max": pixels.max(0),
        "mean": pixels.mean(0),
        "std": pixels.std(0),
        **{q: np.quantile(pixels, share, axis=0, method="inverted_cdf") for q, share in QUANTILES.items()},
    }.items():
        assert stats[name].shape == (3, 1, 1)
        np.testing.assert_allclose(stats[name].ravel(), expected)
    assert stats["count"] == [6]


def test_merged_statistics_are_those_of_all_values() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(i, i + 1, (10 * (i + 1), 4)) for i in range(3)]
    merged = merge(merge(merge(None, vector_stats(parts[0])), vector_stats(parts[1])), vector_stats(parts[2]))
    expected = vector_stats(np.concatenate(parts))
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(merged[name], expected[name])


def test_camera_names_are_valid_here() -> None:
    names = {
        "observation.images.front": "front",
        "observation.images.wrist.left": "wrist_left",
        "observation.image": "image",
        "observation.images.0": "camera_0",
    }
    assert {feature: camera_name(feature) for feature in names} == names
