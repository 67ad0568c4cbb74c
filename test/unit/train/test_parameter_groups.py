"""Weight decay: every weight is in one group, with the decay that Chi et al.'s code gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import TrainConfig
from dp_ros.train.parameter_groups import parameter_groups

pytestmark = pytest.mark.usefixtures("one_thread")

Make = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def decays(stats: dict[str, Any]) -> Callable[[TrainConfig], dict[str, float]]:
    """Every parameter's decay by name; each must be in exactly one group."""

    def find(config: TrainConfig) -> dict[str, float]:
        policy = DiffusionPolicy(config.policy, stats)
        groups = parameter_groups(policy, config)
        assert all(group["params"] for group in groups)
        grouped = [id(parameter) for group in groups for parameter in group["params"]]
        assert sorted(grouped) == sorted(id(parameter) for parameter in policy.parameters())
        of = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
        return {name: of[id(parameter)] for name, parameter in policy.named_parameters()}

    return find


def test_unet_and_encoder_decay_whole(tiny_train: Make, decays: Callable) -> None:
    assert set(decays(tiny_train("unet", weight_decay=0.5)).values()) == {0.5}


def test_encoder_has_a_decay_of_its_own_where_asked(tiny_train: Make, decays: Callable) -> None:
    for name, decay in decays(tiny_train("unet", weight_decay=0.5, encoder_weight_decay=0.0)).items():
        assert decay == (0.0 if name.startswith("encoder.") else 0.5), name


def test_transformer_decays_without_biases_norms_and_positions(tiny_train: Make, decays: Callable) -> None:
    found = decays(tiny_train("transformer", weight_decay=0.5, encoder_weight_decay=0.25))
    for name, decay in found.items():
        spared = name.endswith("bias") or "norm" in name or "position" in name or ".out.0." in name
        expected = 0.25 if name.startswith("encoder.") else 0.0 if spared else 0.5
        assert decay == expected, name
    assert set(found.values()) == {0.0, 0.25, 0.5}


@pytest.mark.parametrize("network", ["unet", "transformer"])
def test_step_without_gradient_shrinks_what_decays_and_nothing_else(
    tiny_train: Make, decays: Callable, stats: dict[str, Any], network: str
) -> None:
    config = tiny_train(network, weight_decay=0.5, encoder_weight_decay=0.25)
    policy = DiffusionPolicy(config.policy, stats)
    before = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}
    for parameter in policy.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.AdamW(parameter_groups(policy, config), lr=0.1, fused=True).step()
    for name, decay in decays(config).items():
        expected = before[name] * (1 - 0.1 * decay)
        torch.testing.assert_close(policy.get_parameter(name), expected, msg=name)
