"""Optimiser: weight decay of every weight as in Chi et al.'s code, learning rate, and EMA."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import TrainConfig
from dp_ros.train.optimizer import cosine_with_warmup, ema_decay, parameter_groups, update_ema

pytestmark = pytest.mark.usefixtures("one_thread")

Make = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def decays(stats: dict[str, Any]) -> Callable[[TrainConfig], dict[str, float]]:
    """Every parameter's decay by name; each must be in exactly one group."""

    def find(config: TrainConfig) -> dict[str, float]:
        policy = DiffusionPolicy(config.policy, stats)
        groups = parameter_groups(policy, config.weight_decay, config.encoder_weight_decay)
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
    groups = parameter_groups(policy, config.weight_decay, config.encoder_weight_decay)
    torch.optim.AdamW(groups, lr=0.1, fused=True).step()
    for name, decay in decays(config).items():
        expected = before[name] * (1 - 0.1 * decay)
        torch.testing.assert_close(policy.get_parameter(name), expected, msg=name)


def test_learning_rate_rises_linearly_then_falls_by_half_a_cosine() -> None:
    factors = [cosine_with_warmup(step, steps=110, warmup_steps=10) for step in range(111)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == pytest.approx(1.0)
    assert factors[60] == pytest.approx(0.5)
    assert factors[110] == pytest.approx(0.0)
    assert all(a > b for a, b in pairwise(factors[10:]))


@given(st.integers(0, 300), st.integers(1, 200), st.integers(0, 250))
def test_learning_rate_is_never_negative_nor_above_its_setting(step: int, steps: int, warmup: int) -> None:
    assert 0 <= cosine_with_warmup(step, steps, warmup) <= 1


def test_early_weights_are_soon_forgotten_and_late_ones_averaged_long() -> None:
    decays = [ema_decay(step, power=0.75, largest=0.9999) for step in range(300_000)]
    assert decays[0] == 0.0
    assert decays[15] == pytest.approx(1 - 16**-0.75)
    assert all(a <= b for a, b in pairwise(decays))
    assert decays[-1] == 0.9999


def test_ema_is_the_weighted_mean_in_place() -> None:
    ema, current = [torch.tensor([0.0, 8.0])], [torch.tensor([4.0, 0.0])]
    update_ema(ema, current, decay=0.75)
    assert ema[0].tolist() == [1.0, 6.0]
    assert current[0].tolist() == [4.0, 0.0]
