"""What a GPU changes in a training, tried on the CPU: where pictures are kept, compiled layers, precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import Dataset
from dp_ros.data.merged import load_merged
from dp_ros.data.windows import Windows
from dp_ros.schema import TrainConfig
from dp_ros.train import device as devices
from dp_ros.train.gpu_pictures import PicturesOnDevice, move_pictures
from dp_ros.train.run import make_trainer

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


@pytest.fixture
def dataset(tmp_path: Path, make_episode: Callable[..., Any]) -> Path:
    with DatasetWriter(tmp_path / "data", {"rate_hz": 80.0, "collect": {}}) as writer:
        for i in range(2):
            writer.append(make_episode(i, 9, 36, 40), tried=i + 1, task="open")
        writer.finish()
    return tmp_path / "data"


@pytest.mark.parametrize("is_streamed", [False, True])
def test_pictures_on_a_device_are_cropped_as_those_in_memory(
    dataset: Path, tiny_train: Callable[..., TrainConfig], is_streamed: bool
) -> None:
    policy = tiny_train().policy
    in_memory, other = (
        load_merged([dataset], policy.encoder.cameras, most)[0]
        for most in (1e12, 0.0 if is_streamed else 1e12)
    )
    plain, from_ = (Windows(d, policy.horizons, policy.action, policy.encoder) for d in (in_memory, other))
    assert from_.streamed == is_streamed
    moved = from_.with_stores([PicturesOnDevice(store, CPU) for store in from_.stores])
    rows = np.random.default_rng(0).permutation(len(plain))[:7]
    expected, *_ = plain.batch(rows, np.random.default_rng(1))
    images, *_ = moved.batch(rows, np.random.default_rng(1))
    for own, of_memory in zip(images, expected, strict=True):
        assert isinstance(own, torch.Tensor)
        np.testing.assert_array_equal(own.numpy(), of_memory)


def test_pictures_stay_where_they_are_without_a_gpu(
    make_dataset: Callable[..., Dataset], tiny_train: Callable[..., TrainConfig]
) -> None:
    policy = tiny_train().policy
    windows = Windows(make_dataset((9,)), policy.horizons, policy.action, policy.encoder)
    assert move_pictures(windows, tiny_train(), CPU) is None


def test_compiled_layers_learn_what_the_others_do(
    dataset: Path, tiny_train: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Mock(side_effect=partial(torch.compile, backend="eager"))  # traced, and run as it is
    monkeypatch.setattr(torch, "compile", asked)
    plain, compiled = (
        make_trainer(tiny_train(steps=2, compile=each), dataset, tmp_path / str(each))
        for each in (False, True)
    )
    assert len(asked.mock_calls) == len(list(compiled.policy.children()))
    for trainer in (plain, compiled):
        trainer.run()
    for name, weight in plain.ema.state_dict().items():
        torch.testing.assert_close(compiled.ema.state_dict()[name], weight, msg=name)


def test_bf16_is_left_to_processors_that_multiply_it(
    dataset: Path, tiny_train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda: False)
    said: list[str] = []
    trainers = [
        make_trainer(
            tiny_train(steps=2, precision=precision), dataset, tmp_path / precision, on_warning=said.append
        )
        for precision in ("f32", "bf16")
    ]
    for trainer in trainers:
        trainer.run()
    whole, short = (trainer.ema.state_dict() for trainer in trainers)
    assert all(torch.equal(weight, short[name]) for name, weight in whole.items())
    assert all(trainer.hardware.endswith(", f32") for trainer in trainers)
    assert said == ["precision bf16: this processor multiplies no bf16, so the training computes in f32"]
