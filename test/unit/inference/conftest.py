"""A tiny checkpoint, and requests to plan from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dp_ros.actions import POSITION, STATE_DIM
from dp_ros.control.planner import PlanRequest
from dp_ros.policy.checkpoint import save_checkpoint
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import PolicyConfig


@pytest.fixture(scope="session")
def checkpoint(
    tiny_policy: PolicyConfig, stats: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    torch.manual_seed(0)
    return save_checkpoint(DiffusionPolicy(tiny_policy, stats), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def of_network(
    each_policy: PolicyConfig, stats: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint of each network."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("models") / each_policy.network
    return save_checkpoint(DiffusionPolicy(each_policy, stats), folder)


@pytest.fixture(scope="session")
def make_request(tiny_policy: PolicyConfig) -> Callable[..., PlanRequest]:
    """A request of random pictures and state, the same each time but for the seed of the noise."""
    encoder, T_o = tiny_policy.encoder, tiny_policy.horizons.T_o

    def make(seed: tuple[int, ...] = (0, 3)) -> PlanRequest:
        rng = np.random.default_rng(0)
        images = tuple(
            tuple(
                rng.integers(0, 256, (*encoder.target(camera).size, 3), dtype=np.uint8)
                for camera in encoder.cameras
            )
            for _ in range(T_o)
        )
        return PlanRequest(images, rng.random((T_o, STATE_DIM)), np.zeros(POSITION.size), 0, seed)

    return make
