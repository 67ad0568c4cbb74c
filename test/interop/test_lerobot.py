"""Export to the real lerobot, and import of its recordings. It runs in .venv/lerobot (make lerobot)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from dp_ros.actions import ACTION_DIM, POSITION, gripper_of, join
from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import load
from dp_ros.data.lerobot.exporter import export_dataset
from dp_ros.data.lerobot.importer import UNKNOWN_SEED, import_dataset
from dp_ros.data.reader import DatasetReader, StoredEpisode
from dp_ros.schema import ExportConfig, ImportConfig

OVERLAY = Path(sys.prefix) / "lerobot"
INSTALLED = Path(sys.prefix) / ".lerobot-installed"  # written last
LENGTHS = (12, 9, 30)
HEIGHT_PX, WIDTH_PX = 64, 80
CAMERAS = ("left", "right")
SETTINGS = {"rate_hz": 80.0, "collect": {"task": "drawer-open-v3", "noise": [0.0, 0.3]}}
THEIRS = ImportConfig(
    ee_position="observation.state:x,y,z",
    gripper="observation.state:jaw",
    action="action:0,1,2,3",
    gripper_range=(0, 100),
    action_gripper_range=(100, 0),
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not INSTALLED.exists(), reason="needs lerobot: run `make lerobot`"),
]


@dataclass(frozen=True)
class Job:
    ours: Path  # the dataset that was exported
    folder: Path
    items: Any
    window: Any
    facts: dict[str, Any]
    numbers: dict[str, np.ndarray]  # recorded by lerobot


def smooth_pictures(rng: np.random.Generator, length: int) -> np.ndarray:
    """Moving blots of colour: a codec preserves them, and each tick differs from the others."""
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX] / 20.0
    phase = rng.uniform(0, 6, 3)[None] + 0.8 * np.arange(length)[:, None]
    waves = np.sin(x[None, ..., None] + phase[:, None, None]) * np.cos(
        y[None, ..., None] - phase[:, None, None]
    )
    return np.asarray(127 + 100 * waves, dtype=np.uint8)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("lerobot")
    rng = np.random.default_rng(0)
    ours = folder / "ours"
    with DatasetWriter(ours, SETTINGS) as writer:
        for i, length in enumerate(LENGTHS):
            episode = StoredEpisode(
                seed=100_000 + 2 * i,
                noise=0.3 * (i % 2),
                tried=2 * i + 1,
                images={
                    camera: rng.integers(0, 256, (length, HEIGHT_PX, WIDTH_PX, 3), dtype=np.uint8)
                    for camera in CAMERAS
                },
                ee_pose=rng.normal(size=(length, POSITION.size)),
                gripper=rng.random(length),
                action=rng.uniform(-1, 1, size=(length, ACTION_DIM)),
                command=rng.uniform(-1, 1, size=(length, ACTION_DIM)),
            )
            writer.append(episode, episode.tried)
        writer.finish()
    export_dataset(ours, folder / "exported", ExportConfig())
    total = sum(LENGTHS)
    state = rng.normal(size=(total, 6)).astype(np.float32)
    state[:, 5] = rng.uniform(0, 100, total)
    action = join(rng.normal(size=(total, POSITION.size)), rng.uniform(0, 100, total)).astype(np.float32)
    numbers = {
        "pictures": np.concatenate([smooth_pictures(rng, length) for length in LENGTHS]),
        "state": state,
        "action": action,
        "ends": np.cumsum(LENGTHS),
    }
    np.savez(folder / "numbers.npz", **numbers)
    environment = {
        **os.environ,
        "PYTHONPATH": str(OVERLAY),
        "HF_HOME": str(folder / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "lerobot_side.py", folder],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return Job(
        ours,
        folder,
        np.load(folder / "items.npz"),
        np.load(folder / "window.npz"),
        json.loads((folder / "facts.json").read_text()),
        numbers,
    )


def test_lerobot_reads_every_number_we_exported(job: Job) -> None:
    ours = load(job.ours)
    state = join(ours.ee_pose, ours.gripper)
    for name, expected in (
        ("observation.state", state),
        ("action", ours.action),
        ("command", ours.command),
    ):
        assert job.items[name].dtype == np.float32
        np.testing.assert_array_equal(job.items[name], expected.astype(np.float32))
    frames = np.concatenate([np.arange(length) for length in LENGTHS])
    np.testing.assert_array_equal(job.items["index"], np.arange(sum(LENGTHS)))
    np.testing.assert_array_equal(job.items["frame_index"], frames)
    np.testing.assert_array_equal(job.items["episode_index"], np.repeat(np.arange(3), LENGTHS))
    np.testing.assert_allclose(job.items["timestamp"], frames / 80, rtol=1e-6)
    assert job.facts["fps"] == 80
    assert job.facts["tasks"] == ["drawer-open-v3"]
    assert job.facts["to"] == ours.episode_ends.tolist()
    assert job.facts["from"] == [0, *ours.episode_ends[:-1].tolist()]


def test_lerobot_reads_the_same_pixels_at_every_tick(job: Job) -> None:
    for camera, expected in load(job.ours).images.items():
        seen = job.items[f"observation.images.{camera}"]  # (N, 3, H, W) in [0, 1]
        np.testing.assert_array_equal(np.round(seen * 255).astype(np.uint8).transpose(0, 2, 3, 1), expected)


def test_lerobot_cuts_windows_out_of_one_episode(job: Job) -> None:
    ours = load(job.ours)
    now = LENGTHS[0] + 5
    seen = np.round(job.window["observation.images.left"] * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(seen, ours.images["left"][now - 1 : now + 1])
    np.testing.assert_array_equal(job.window["action"], ours.action[now : now + 2].astype(np.float32))


def test_lerobot_has_statistics_and_one_thing_to_predict(job: Job) -> None:
    ours, stats = load(job.ours), job.facts["stats"]
    np.testing.assert_allclose(stats["action"]["mean"], ours.action.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats["action"]["std"], ours.action.std(0), atol=1e-6)
    np.testing.assert_allclose(stats["command"]["max"], ours.command.max(0), atol=1e-6)
    left = ours.images["left"] / 255
    np.testing.assert_allclose(np.ravel(stats["observation.images.left"]["mean"]), left.mean((0, 1, 2)))
    assert np.shape(stats["observation.images.left"]["q99"]) == (3, 1, 1)
    assert job.facts["policy"] == {
        "observation.images.left": "VISUAL",
        "observation.images.right": "VISUAL",
        "observation.state": "STATE",
        "action": "ACTION",
    }


def test_round_trip_gives_the_same_dataset(job: Job) -> None:
    import_dataset(job.folder / "exported", job.folder / "back", ImportConfig())
    before, after = load(job.ours), load(job.folder / "back")
    np.testing.assert_array_equal(after.episode_ends, before.episode_ends)
    for name in ("ee_pose", "gripper", "action", "command"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name).astype(np.float32))
    for camera, pixels in before.images.items():
        np.testing.assert_array_equal(after.images[camera], pixels)
    assert before.attributes.items() <= after.attributes.items()
    one, other = DatasetReader(job.ours), DatasetReader(job.folder / "back")
    assert (one.seed, one.noise, one.tried) == (other.seed, other.noise, other.tried)


@pytest.mark.parametrize(("kind", "tolerance"), [("videos", 6.0), ("pictures", 0.0)])
def test_recording_of_lerobot_becomes_a_dataset(job: Job, kind: str, tolerance: float) -> None:
    out = job.folder / f"from-{kind}"
    import_dataset(job.folder / kind, out, THEIRS)
    found, numbers = load(out), job.numbers
    np.testing.assert_array_equal(found.episode_ends, numbers["ends"])
    np.testing.assert_array_equal(found.ee_pose, numbers["state"][:, :3])
    np.testing.assert_allclose(found.gripper, numbers["state"][:, 5] / 100)
    np.testing.assert_array_equal(POSITION.of(found.action), POSITION.of(numbers["action"]))
    np.testing.assert_allclose(gripper_of(found.action), 1 - gripper_of(numbers["action"]).astype(float) / 50)
    np.testing.assert_array_equal(found.command, found.action)
    assert found.attributes["rate_hz"] == 20
    assert found.attributes["lerobot"]["tasks"] == ["open the drawer", "close it"]
    assert DatasetReader(out).seed == [UNKNOWN_SEED] * 3

    pixels, expected = found.images["wrist_cam"].astype(float), numbers["pictures"].astype(float)
    assert np.abs(pixels - expected).mean() <= tolerance
    if tolerance:  # lossy, but frame-exact: each tick is nearest to its own picture, not to its neighbour's
        for shift in (-1, 1):
            assert np.abs(pixels[1:-1] - np.roll(expected, shift, axis=0)[1:-1]).mean() > 3 * tolerance
