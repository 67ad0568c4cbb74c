"""Floor, ratios and sizes of `dp_ros bench inference`; test/smoke runs the command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dp_ros.cli.bench.floor import Phase, Rates, floor_ms, phases, products_of
from dp_ros.cli.bench.inference import (
    ALL_SIZES,
    LEROBOT,
    LEROBOT_BF16,
    Size,
    check_engines,
    policy_of,
    sizes_of,
    summary,
)
from dp_ros.cli.bench.lerobot_model import find_overlay
from dp_ros.cli.errors import CliError
from dp_ros.policy.diffusion_policy import DiffusionPolicy


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(3, 4, 5, padding=2), (1, 3, 2)),
        (nn.Conv1d(3, 4, 3, stride=2, padding=1), (2, 3, 9)),
        (nn.ConvTranspose1d(3, 4, 4, stride=2, padding=1), (2, 3, 5)),
        (nn.Conv2d(3, 4, 7, stride=2, padding=3), (2, 3, 9, 12)),
        (nn.Linear(3, 4), (2, 5, 3)),
    ],
)
def test_products_with_padding_are_not_counted(layer: Any, shape: tuple[int, ...]) -> None:
    """With ones as weights and input, the output is the number of products."""
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(0.0)
        output = layer(torch.ones(shape))
    assert products_of(layer, shape, output.shape) == output.sum().item()


@pytest.mark.slow
def test_every_layer_of_a_plan_is_counted() -> None:
    """Against torch's counter, which counts padding: little of a long chunk and of a large picture."""
    config = policy_of(Size((16, 32), 64, 160))
    limits = {"low": [-1.0] * 4, "high": [1.0] * 4}
    policy = DiffusionPolicy(config, {"action": limits, "state": limits})
    work = phases(policy, config)

    images, state = [torch.zeros(1, 2, 3, *config.encoder.crop("camera"))], torch.zeros(1, 2, 4)
    with torch.no_grad():
        with FlopCounterMode(display=False) as encoder:
            obs = policy.encode(images, state)
        with FlopCounterMode(display=False) as condition:
            features = policy.network.condition(obs)
        step = policy.network.embed(torch.zeros(1).long())
        with FlopCounterMode(display=False) as iteration:
            policy.network.denoise(torch.zeros(1, 64, 4), step, features)
    assert work["condition"].flops == condition.get_total_flops()
    for name, counter in (("encoder", encoder), ("iterations", iteration)):
        assert 0.85 < work[name].flops / counter.get_total_flops() <= 1.0, name
    assert work["iterations"].runs == config.diffusion.sampler_iterations
    assert work["encoder"].weights == sum(p.numel() for p in policy.encoder.parameters())


def test_floor_is_the_slower_of_arithmetic_and_memory_in_each_phase() -> None:
    rates = Rates({"f32": 1e9, "bf16": 2e9}, 1e9)
    work = {
        "encoder": Phase(flops=8e6, weights=1_000_000),  # 8 ms of arithmetic, 4 ms of reading
        "iterations": Phase(flops=1e6, weights=1_000_000, runs=10),  # 1 ms, 4 ms
    }
    assert floor_ms(work, rates, "f32", cache_bytes=0) == pytest.approx(8 + 10 * 4)
    assert floor_ms(work, rates, "f32", cache_bytes=4_000_000) == pytest.approx(8 + 4 + 9 * 1)
    assert floor_ms(work, rates, "bf16", cache_bytes=0) == pytest.approx(4 + 10 * 2)


def _result(**median_ms: float) -> dict[str, Any]:
    """Rows by name: "openvino_f32" is "openvino f32"."""
    rows = {
        name.replace("_", " "): {"wall": {"median_ms": ms}, "ours": not name.startswith("lerobot")}
        for name, ms in median_ms.items()
    }
    return {"rows": rows, "device": "a processor"}


def test_ratio_is_the_least_over_the_sizes_of_the_fastest_engine() -> None:
    small = _result(lerobot_f32=40, lerobot_bf16=30, torch_f32=20, openvino_f32=10, openvino_bf16=5)
    large = _result(lerobot_f32=90, lerobot_bf16=60, torch_f32=30, openvino_f32=45, openvino_bf16=10)
    data = summary([small, large])
    assert (data["ratio"], data["ratio_bf16"], data["ratio_bf16_autocast"]) == (3.0, 8.0, 6.0)


def test_ratios_that_were_not_measured_are_null() -> None:
    data = summary([_result(lerobot_f32=40, torch_f32=20)])
    assert (data["ratio"], data["ratio_bf16"], data["ratio_bf16_autocast"]) == (2.0, None, None)
    assert LEROBOT in data["sizes"][0]["rows"]
    assert LEROBOT_BF16 not in data["sizes"][0]["rows"]


def test_sizes_are_all_combinations() -> None:
    assert sizes_of(["16,32"], [4, 8], [48]) == [Size((16, 32), 4, 48), Size((16, 32), 8, 48)]
    assert sizes_of(None, None, None) == [Size((128, 256, 512), 8, 96), Size((256, 512, 1024), 8, 96)]
    assert len(ALL_SIZES) == 12


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(CliError, match="whole numbers"):
        sizes_of(["16.5"], None, None)
    with pytest.raises(CliError, match=r"T_p 12.*multiples of 8"):
        policy_of(Size((8, 16, 32), 12, 96))


def test_unknown_engine_names_the_known_ones() -> None:
    with pytest.raises(CliError, match="'magic' is unknown: choose from torch"):
        check_engines(["magic"])


def test_missing_lerobot_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(CliError, match="make lerobot"):
        find_overlay()
