"""Paired comparison: tests against their definitions, and reports that cannot be paired."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp_ros.evaluation.comparison import compare
from dp_ros.evaluation.statistics import paired_interval
from dp_ros.schema import ConfigError

cells = st.tuples(*[st.integers(0, 40)] * 4).filter(lambda table: sum(table) > 0)


def report(outcomes: Sequence[bool], steps: Sequence[int] | None = None, **changes: Any) -> dict[str, Any]:
    """The compared part of a report of `dp_ros eval --json`."""
    steps = steps or [50] * len(outcomes)
    return {
        "task": "drawer-open-v3",
        "checkpoint": "models/x",
        "settings": {"max_steps": 200},
        "per_episode": [
            {"seed": seed, "success": success, "steps": ticks, "reason": ""}
            for seed, (success, ticks) in enumerate(zip(outcomes, steps, strict=True))
        ],
        **changes,
    }


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def test_interval_has_the_published_value() -> None:
    """Newcombe 1998, table II, method 10, of the counts 36, 12, 2, 0."""
    assert paired_interval(36, 12, 2, 0) == (pytest.approx(0.0569, abs=5e-5), pytest.approx(0.3404, abs=5e-5))


@given(cells)
def test_interval_holds_the_difference_and_mirrors_when_the_two_change_places(
    table: tuple[int, int, int, int],
) -> None:
    both, first, second, neither = table
    low, high = paired_interval(both, first, second, neither)
    difference = (first - second) / sum(table)
    assert -1 - 1e-12 <= low <= difference + 1e-12
    assert difference - 1e-12 <= high <= 1 + 1e-12
    mirrored = paired_interval(both, second, first, neither)
    assert mirrored == (pytest.approx(-high), pytest.approx(-low))


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 5), (0, 6), (2, 9), (9, 2), (7, 7), (1, 0)])
def test_p_counts_the_tosses_of_a_coin_that_are_no_likelier(only_a: int, only_b: int) -> None:
    """Exact McNemar from its definition: both tails of the binomial distribution."""
    n = only_a + only_b
    tail = sum(comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    compared = compare(*(report(of) for of in outcomes(10, only_a, only_b, 3)))
    assert compared.p == pytest.approx(min(1.0, 2 * tail))
    assert compared.differs is (compared.p < 0.05)
    assert compared.disagree == n


def test_first_line_says_whether_they_differ_and_how_many_seeds_disagree() -> None:
    a, b = (report(of, checkpoint=name) for of, name in zip(outcomes(20, 0, 8, 2), "AB", strict=True))
    first = compare(a, b).lines()[0]
    assert (
        first
        == "drawer-open-v3: they differ at 5 %: B is better; 8 of 30 seeds disagree (exact McNemar p = 0.0078)"
    )
    assert "A is better" in compare(b | {"checkpoint": "A"}, a).lines()[0]
    few = compare(*(report(of) for of in outcomes(20, 0, 5, 5))).lines()[0]
    assert "no difference shown at 5 %; 5 of 30 seeds disagree" in few
    assert "at least 6 must" in few


def test_steps_are_compared_on_the_seeds_that_both_solve() -> None:
    a = report([True] * 8 + [False], [50] * 8 + [200])
    b = report([True] * 7 + [False, True], [41, 42, 43, 44, 45, 46, 50, 200, 10])
    compared = compare(a, b)
    assert (compared.both, compared.steps_pairs, compared.steps_median) == (7, 6, -6.0)
    assert compared.steps_p == pytest.approx(2 / 2**6)  # all six signs are equal
    assert "-6, median of the 7 seeds that both solve" in compared.lines()[2]


def test_without_a_seed_that_both_solve_nothing_is_said_of_steps() -> None:
    compared = compare(*(report(of) for of in outcomes(0, 2, 3, 0)))
    assert (compared.steps_median, compared.steps_p) == (None, None)
    assert len(compared.lines()) == 2


def test_a_report_does_not_differ_from_itself() -> None:
    same = report([True, False, True])
    compared = compare(same, same)
    assert (compared.p, compared.disagree, compared.difference, compared.steps_p) == (1.0, 0, 0.0, 1.0)


def test_order_of_the_episodes_does_not_matter() -> None:
    a, b = (report(of) for of in outcomes(3, 1, 4, 2))
    shuffled = b | {"per_episode": b["per_episode"][::-1]}
    assert compare(a, shuffled) == compare(a, b)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"task": "push-v3"}, "A is of drawer-open-v3, B of push-v3"),
        ({"settings": {"max_steps": 100}}, "A has max_steps 200, B 100"),
        ({"settings": {}}, "B does not say its max_steps: evaluate it again"),
        ({"per_episode": []}, "B has no episode"),
    ],
)
def test_what_is_not_the_same_test_is_refused_in_one_line(other: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compare(report([True, False]), report([True, False]) | other)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unpaired_and_repeated_seeds_are_refused() -> None:
    a = report([True] * 5)
    with pytest.raises(
        ConfigError, match=r"2 seeds, the first 3, are in one report only \(A 0 to 4, B 0 to 2\)"
    ):
        compare(a, report([True] * 3))
    twice = a | {"per_episode": [*a["per_episode"][:4], a["per_episode"][0]]}
    with pytest.raises(ConfigError, match="B has a seed twice"):
        compare(a, twice)
