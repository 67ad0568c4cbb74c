"""Training and planning with cameras of several shapes: crops of their own, and the dataset's fit in the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dp_ros.control.planner import PlanRequest
from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import Dataset
from dp_ros.data.windows import Windows
from dp_ros.inference.engine import load_engine
from dp_ros.policy.checkpoint import load_checkpoint
from dp_ros.policy.checkpoint_config import bridge_for, policy_config
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.encoder import ObservationEncoder
from dp_ros.schema import ConfigError, PolicyConfig, RuntimeConfig, TrainConfig, override
from dp_ros.train.batches import Batches
from dp_ros.train.run import make_trainer, train

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = {"left": (45, 80), "right": (36, 40)}  # (height, width)
WIDE = {"left": {"height_px": 45, "width_px": 80, "crop_height_px": 40, "crop_width_px": 72}}


@pytest.fixture(scope="module")
def two_shapes(each_policy: PolicyConfig) -> PolicyConfig:
    """The tiny policy with each network, and a left camera of its own shape."""
    return override(each_policy, {"encoder.pictures": WIDE})


def located(ticks: int) -> dict[str, np.ndarray]:
    """Pictures of which each pixel holds its row, its column and its tick."""
    pictures = {}
    for camera, (height, width) in SIZES.items():
        row, column, tick = np.meshgrid(np.arange(height), np.arange(width), np.arange(ticks), indexing="ij")
        pictures[camera] = np.moveaxis(np.stack([row, column, tick], axis=-1), 2, 0).astype(np.uint8)
    return pictures


@pytest.fixture(scope="module")
def dataset(make_dataset: Callable[..., Dataset]) -> Dataset:
    made = make_dataset((12, 9))
    return replace(made, images=located(len(made)))


@pytest.fixture
def data(tmp_path: Path, make_episode: Callable[..., Any]) -> Callable[..., Path]:
    """data(**attributes) -> folder of a dataset of both shapes."""

    def make(**attributes: Any) -> Path:
        path = tmp_path / "data"
        with DatasetWriter(path, {"rate_hz": 80.0, **attributes}) as writer:
            for seed in range(2):
                episode = replace(make_episode(seed, 8), images=located(8))
                writer.append(episode, seed + 1)
            writer.finish()
        return path

    return make


def training(policy: PolicyConfig, **changes: Any) -> TrainConfig:
    settings = {"batch_size": 4, "run_length": 2, "steps": 2, "warmup_steps": 1, "device": "cpu"}
    return TrainConfig.model_validate({"policy": policy, **settings, **changes})


@pytest.mark.parametrize("length", [1, 2])
def test_each_camera_has_a_crop_of_its_own(two_shapes: PolicyConfig, dataset: Dataset, length: int) -> None:
    windows = Windows(dataset, two_shapes.horizons, two_shapes.action, two_shapes.encoder)
    config = training(two_shapes, batch_size=16, run_length=length, augmentation={"cover": 0.5})
    batches = Batches(config, windows, np.arange(len(windows)))
    clear = Batches(override(config, {"augmentation.cover": 0.0}), windows, np.arange(len(windows)))
    seen: dict[str, set[tuple[int, int]]] = {"left": set(), "right": set()}
    for step in range(3):
        (batch, _), (covered, _) = (
            clear.arrays(step % clear.per_epoch),
            batches.arrays(step % clear.per_epoch),
        )
        for camera, size, pictures, others in zip(
            ("left", "right"), ((40, 72), (32, 32)), batch.images, covered.images, strict=True
        ):
            assert pictures.shape[-3:] == others.shape[-3:] == (*size, 3)
            assert (pictures != others).any()
            flat = pictures.reshape(-1, *size, 3).astype(int)
            top, left = flat[:, 0, 0, 0], flat[:, 0, 0, 1]
            assert (flat[..., 0] == top[:, None, None] + np.arange(size[0])[:, None]).all()
            assert (flat[..., 1] == left[:, None, None] + np.arange(size[1])).all()
            seen[camera] |= set(zip(top.tolist(), left.tolist(), strict=True))
    assert max(seen["left"]) > (4, 4)  # places that only the larger picture has
    assert all(len(places) > 4 for places in seen.values())


def test_training_of_two_shapes_ends_in_a_checkpoint_that_plans(
    two_shapes: PolicyConfig, data: Callable[..., Path], tmp_path: Path
) -> None:
    config = training(
        two_shapes,
        augmentation={"brightness": 0.2, "cover": 0.5},
        validation=0.5,
        validate_every=1,
        validation_windows=4,
    )
    checkpoint = train(config, data(fit={"left": "crop", "right": "pad"}), tmp_path / "run")
    assert checkpoint is not None
    encoder = policy_config(checkpoint).encoder
    assert (str(encoder.target("left")), encoder.crop("left")) == ("80x45 px (crop)", (40, 72))
    assert (str(encoder.target("right")), encoder.crop("right")) == ("40x36 px (pad)", (32, 32))
    engine = load_engine(checkpoint, RuntimeConfig(device="cpu", engine="torch"))
    images = tuple(
        np.random.default_rng(0).integers(0, 256, (2, *SIZES[camera], 3), dtype=np.uint8)
        for camera in encoder.cameras
    )
    request = PlanRequest(tuple(zip(*images, strict=True)), np.full((2, 4), 0.1), np.zeros(3), 0, (0,))
    chunk = engine(request)
    assert chunk.shape == (8, 4)
    assert np.isfinite(chunk).all()
    cropped = [
        torch.from_numpy(images[0][None, :, 2:42, 4:76]),
        torch.from_numpy(images[1][None, :, 2:34, 4:36]),
    ]
    noise = int(np.random.SeedSequence(request.seed).generate_state(1, np.uint64)[0] >> 1)
    plan = load_checkpoint(checkpoint).plan(
        [pictures.movedim(-1, -3).float() / 255 for pictures in cropped],
        torch.full((1, 2, 4), 0.1),
        torch.Generator().manual_seed(noise),
    )
    np.testing.assert_allclose(chunk, plan[0].numpy(), atol=1e-5)  # of metres
    assert (bridge_for(checkpoint).width_px, bridge_for(checkpoint).height_px) == (80, 45)


def test_stopped_training_of_two_shapes_is_resumed(
    tiny_policy: PolicyConfig, data: Callable[..., Path], tmp_path: Path
) -> None:
    policy, folder = override(tiny_policy, {"encoder.pictures": WIDE}), data(fit={"left": "pad"})
    trainer = make_trainer(training(policy, checkpoint_every=1), folder, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        trainer.run(lambda progress: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert train(training(policy, checkpoint_every=1), folder, tmp_path / "run", resume=True) is not None


@pytest.mark.parametrize("share", [False, True])
def test_windows_of_two_shapes_give_the_features_of_each_camera_alone(
    tiny_policy: PolicyConfig, share: bool
) -> None:
    """Also with shared weights: spatial softmax gives coordinates from -1 to 1 for every size."""
    config = override(
        tiny_policy.encoder, {"pictures": WIDE, "share_weights": share, "proprioception": False}
    )
    encoder = ObservationEncoder(config, T_o=2).eval()
    images = [torch.rand(3, 2, 3, 40, 72), torch.rand(3, 2, 3, 32, 32)]
    with torch.no_grad():
        features = encoder(images, torch.zeros(3, 2, 4)).unflatten(1, (2, 2, config.feature_dim))
        for view, pictures in enumerate(images):
            alone = encoder.cameras[0 if share else view](pictures.flatten(0, 1)).unflatten(0, (3, 2))
            torch.testing.assert_close(features[:, :, view], alone)


def test_policy_takes_the_fit_of_its_dataset(tiny_policy: PolicyConfig, data: Callable[..., Path]) -> None:
    policy = override(tiny_policy, {"encoder.pictures": WIDE})
    folder = data(fit={"left": "pad"})
    fitted = make_trainer(training(policy), folder, folder.parent / "a").config.policy.encoder
    assert (fitted.target("left").fit, fitted.target("right").fit) == ("pad", "same")
    wider = override(policy, {"encoder.fit": "pad"})  # trained on the same pictures, and takes others, too
    fitted = make_trainer(training(wider), folder, folder.parent / "b").config.policy.encoder
    assert (fitted.target("left").fit, fitted.target("right").fit) == ("pad", "pad")
    with pytest.raises(
        ConfigError, match=r"encoder.fit is crop .config., the pictures of left were made with pad"
    ):
        make_trainer(training(override(policy, {"encoder.fit": "crop"})), folder, folder.parent / "c")


def test_config_of_one_size_is_written_as_before(
    tiny_policy: PolicyConfig, stats: dict[str, Any], tmp_path: Path
) -> None:
    from dp_ros.policy.checkpoint import save_checkpoint

    folder = save_checkpoint(DiffusionPolicy(tiny_policy, stats), tmp_path / "one")
    encoder = json.loads((folder / "config.json").read_text())["policy"]["encoder"]
    assert not {"fit", "pictures"} & encoder.keys()
