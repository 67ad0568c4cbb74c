"""Settings of `dp_ros bench train --against`; test/smoke runs the command."""

from __future__ import annotations

import pytest

from dp_ros.cli.bench.lerobot import LIKE_FOR_LIKE, precisions_of
from dp_ros.cli.errors import CliError
from dp_ros.cli.train import training_settings
from dp_ros.schema import Layers, Settings, TrainConfig
from dp_ros.train import device as devices


@pytest.fixture(autouse=True)
def bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda: True)


def settings(assignments: list[str] | None) -> Settings[TrainConfig]:
    layers = Layers.of(Settings(TrainConfig(**LIKE_FOR_LIKE), {}))
    layers.assign(assignments)
    return layers.settings(TrainConfig)


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (None, ("f32", "bf16")),
        (["batch_size=8"], ("f32", "bf16")),
        (["precision=bf16", "batch_size=8"], ("bf16",)),
        (["precision=bf16", "precision=f32"], ("f32",)),  # the last one counts, as everywhere
    ],
)
def test_trainings_are_compared_in_both_precisions_unless_one_is_set(
    assignments: list[str] | None, expected: tuple[str, ...]
) -> None:
    assert precisions_of(settings(assignments)) == expected


def test_precision_of_a_preset_is_not_one_that_was_set() -> None:
    assert precisions_of(training_settings("cpu", None)) == ("f32", "bf16")


def test_precision_that_is_not_compared_is_refused() -> None:
    with pytest.raises(CliError, match=r"precision tf32 \(--set precision=tf32\): choose f32 or bf16"):
        precisions_of(settings(["precision=tf32"]))


def test_bf16_is_not_compared_where_the_processor_does_not_multiply_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda: False)
    for assignments in (None, ["precision=bf16"]):
        assert precisions_of(settings([*(assignments or []), "device=cpu"])) == ("f32",)
