"""Settings of `dp_ros bench train --against`; test/smoke runs the command."""

from __future__ import annotations

import pytest

from dp_ros.cli.bench.lerobot import precisions_of


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (None, ["f32", "bf16"]),
        (["batch_size=8"], ["f32", "bf16"]),
        (["precision=bf16", "batch_size=8"], ["bf16"]),
        (["precision=bf16", "precision=f32"], ["f32"]),  # the last one counts, as everywhere
    ],
)
def test_trainings_are_compared_in_both_precisions_unless_one_is_set(
    assignments: list[str] | None, expected: list[str]
) -> None:
    assert precisions_of(assignments) == expected
