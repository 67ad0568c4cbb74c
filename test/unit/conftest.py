"""Small things to test with: nothing here is larger than it must be to behave like the real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import Phase, settings
from numpy.typing import NDArray

from dp_ros.data.episodes import Dataset
from dp_ros.poses import make_pose
from dp_ros.schema import Network, PolicyConfig, TrainConfig, override
from dp_ros.streams import Frame

settings.register_profile(
    "dp_ros",
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],  # explaining a failure can take minutes
)
settings.load_profile("dp_ros")

CAMERAS = ("left", "right")
HEIGHT_PX, WIDTH_PX = 36, 40


class Clock:
    """Time that goes on when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass(frozen=True)
class Recorded:
    """An episode as the dataset writer takes it."""

    seed: int
    noise: float
    images: dict[str, NDArray[np.uint8]]
    ee_pose: NDArray[np.float64]
    gripper: NDArray[np.float64]
    action: NDArray[np.float64]
    command: NDArray[np.float64]


def record(seed: int, length: int, height_px: int = 8, width_px: int = 6) -> Recorded:
    """An episode of arbitrary but reproducible numbers."""
    rng = np.random.default_rng(seed)
    return Recorded(
        seed=seed,
        noise=0.1 * (seed % 3),
        images={
            camera: rng.integers(0, 256, (length, height_px, width_px, 3), dtype=np.uint8)
            for camera in CAMERAS
        },
        ee_pose=rng.normal(size=(length, 3)),
        gripper=rng.random(length),
        action=rng.normal(size=(length, 4)),
        command=rng.normal(size=(length, 4)),
    )


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Of torch's: small tensors gain nothing from more, and bit-identical sums need one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_episode() -> Callable[..., Recorded]:
    return record


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Dataset]:
    """Episodes in memory: a smooth path for the arm, pictures that differ from tick to tick."""

    def make(lengths: tuple[int, ...] = (12, 9), seed: int = 0) -> Dataset:
        total = sum(lengths)
        rng = np.random.default_rng(seed)
        command = np.concatenate(
            [np.cumsum(rng.uniform(-0.01, 0.01, (total, 3)), axis=0), rng.uniform(-1, 1, (total, 1))], axis=1
        )
        return Dataset(
            images={
                camera: rng.integers(0, 256, (total, HEIGHT_PX, WIDTH_PX, 3), dtype=np.uint8)
                for camera in CAMERAS
            },
            ee_pose=command[:, :3] + rng.normal(0, 0.001, (total, 3)),
            gripper=rng.random(total),
            action=command,
            command=command,
            episode_ends=np.cumsum(lengths),
            attributes={},
        )

    return make


@pytest.fixture(scope="session")
def tiny_policy() -> PolicyConfig:
    """The smallest policy that has every part of the large one: two cameras, proprioception, two levels."""
    return PolicyConfig.model_validate(
        {
            "horizons": {"T_o": 2, "T_p": 8, "T_a": 4},
            "encoder": {
                "cameras": CAMERAS,
                "height_px": HEIGHT_PX,
                "width_px": WIDTH_PX,
                "crop_height_px": 32,
                "crop_width_px": 32,
                "stages": 2,
                "keypoints": 4,
                "feature_dim": 8,
                "proprioception": True,
            },
            "unet": {"channels": (16, 32), "groups": 4, "step_embedding_dim": 16},
            "diffusion": {"iterations": 20, "sampler_iterations": 5},
        }
    )


@pytest.fixture(scope="session")
def tiny_transformer(tiny_policy: PolicyConfig) -> PolicyConfig:
    """The same policy with the other network; dropout wherever it has any."""
    network = {"layers": 2, "heads": 2, "embedding_dim": 16, "dropout": 0.3, "embedding_dropout": 0.1}
    shared = tiny_policy.model_dump(exclude={"network", "unet"})
    return PolicyConfig.model_validate({**shared, "network": "transformer", "transformer": network})


@pytest.fixture(scope="session", params=get_args(Network))
def each_policy(
    request: pytest.FixtureRequest, tiny_policy: PolicyConfig, tiny_transformer: PolicyConfig
) -> PolicyConfig:
    """The tiny policy with every network in turn."""
    return {"unet": tiny_policy, "transformer": tiny_transformer}[request.param]


@pytest.fixture(scope="session")
def tiny_train(tiny_policy: PolicyConfig, tiny_transformer: PolicyConfig) -> Callable[..., TrainConfig]:
    """Runs of a few steps, with one camera: building a second ResNet takes longer than training it."""
    policies = {"unet": tiny_policy, "transformer": tiny_transformer}

    def make(network: str = "unet", **changes: Any) -> TrainConfig:
        settings = {
            "policy": override(policies[network], {"encoder.cameras": ["left"]}),
            "batch_size": 4,
            "steps": 6,
            "warmup_steps": 2,
            "device": "cpu",
            "checkpoint_every": 100,
        }
        return TrainConfig.model_validate({**settings, **changes})

    return make


@pytest.fixture(scope="session")
def stats() -> dict[str, dict[str, list[float]]]:
    """Statistics of actions and state that are neither symmetric nor of one scale."""
    return {
        "action": {"low": [-0.02, -0.03, -0.01, -1.0], "high": [0.04, 0.03, 0.02, 1.0]},
        "state": {"low": [-0.3, 0.4, 0.0, 0.0], "high": [0.3, 0.9, 0.4, 1.0]},
    }


@pytest.fixture(scope="session")
def make_frame() -> Callable[..., Frame]:
    """A frame of which only the stamp, and where asked the pose, matter."""

    def make(
        stamp_ns: int,
        position_m: tuple[float, ...] = (0.0, 0.6, 0.2),
        gripper: float = 1.0,
        *,
        orientation: tuple[float, ...] = (0.0, 1.0, 0.0, 0.0),
        **more: Any,
    ) -> Frame:
        picture = np.full((2, 2, 3), stamp_ns % 251, dtype=np.uint8)
        picture[1] ^= 128  # of one colour it would be a covered camera's
        values = {
            "images": (picture,),
            "ee_pose": make_pose(position_m, orientation),
            "gripper": gripper,
            "sampled_ns": stamp_ns,
        }
        return Frame(stamp_ns=stamp_ns, **{**values, **more})

    return make


@pytest.fixture
def random_sentence_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences are encoded as random unit vectors (12,), each always as the same."""

    def vectors(texts: list[str]) -> np.ndarray:
        drawn = [np.random.default_rng(list(text.encode())).normal(size=12) for text in texts]
        return np.stack([each / np.linalg.norm(each) for each in drawn]).astype(np.float32)

    monkeypatch.setattr("dp_ros.policy.instructions._encode", vectors)
