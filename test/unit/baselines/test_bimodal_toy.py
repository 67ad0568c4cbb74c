"""The bimodal toy: demonstrations, verdicts on paths, and the measures of a method."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dp_ros.baselines.comparison import summarise_toy
from dp_ros.baselines.config import BimodalToyConfig, Method
from dp_ros.baselines.report import fair_minority
from dp_ros.baselines.toy.evaluation import measure, run_toy
from dp_ros.baselines.toy.paths import demonstrations, judge, observations

CONFIG = BimodalToyConfig(demonstrations=200)
STATE = np.array([[0.0, -1.0, 0.0, 1.0]])


def path(*points: tuple[float, float]) -> NDArray[np.float64]:
    return np.array([points])


@pytest.mark.parametrize("T_p", [4, 8, 16])
def test_demonstrations_reach_the_goal_untouched_half_on_each_side(T_p: int) -> None:
    config = BimodalToyConfig(demonstrations=500, T_p=T_p)
    state, paths = demonstrations(config)
    assert paths.shape == (500, T_p, 2)
    verdict = judge(state, paths, config)
    assert verdict.success.all()
    assert verdict.left.sum() == verdict.right.sum() == 250


def test_side_does_not_follow_from_start_and_goal() -> None:
    """Otherwise a regression could learn the side."""
    state, _ = demonstrations(BimodalToyConfig(demonstrations=4000))
    assert np.abs(state[::2].mean(0) - state[1::2].mean(0)).max() < 0.01


def test_mean_of_the_demonstrations_hits_the_disc() -> None:
    _, paths = demonstrations(CONFIG)
    assert judge(STATE, paths.mean(0, keepdims=True), CONFIG).collided.all()


def test_observations_of_the_evaluation_were_not_trained_on() -> None:
    state, _ = demonstrations(CONFIG)
    unseen = observations(CONFIG.observations, np.random.default_rng([CONFIG.data_seed, 1]))
    assert not np.isclose(state[:, None], unseen[None]).all(-1).any()


def test_a_segment_that_cuts_the_disc_between_two_points_outside_collides() -> None:
    verdict = judge(STATE, path((0.0, 1.0)), CONFIG)
    assert verdict.collided.all()
    assert not (verdict.left | verdict.right | verdict.success).any()


@pytest.mark.parametrize(("x", "left"), [(-0.6, True), (0.6, False)])
def test_a_path_beside_the_disc_has_a_side(x: float, left: bool) -> None:
    verdict = judge(STATE, path((x, -0.3), (x, 0.3), (0.0, 1.0)), CONFIG)
    assert (verdict.left[0], verdict.right[0], verdict.success[0]) == (left, not left, True)


def test_a_path_that_ends_beside_its_goal_is_no_success() -> None:
    verdict = judge(STATE, path((0.6, -0.3), (0.6, 0.3), (0.2, 1.0)), CONFIG)
    assert verdict.right.all()
    assert not verdict.success.any()


def test_a_path_that_never_passes_has_no_side() -> None:
    verdict = judge(STATE, path((0.6, -0.5), (0.6, -0.4)), CONFIG)
    assert not (verdict.collided | verdict.left | verdict.right | verdict.success).any()


def test_a_path_that_is_not_finite_collides() -> None:
    verdict = judge(STATE, path((0.6, np.nan), (0.0, 1.0)), CONFIG)
    assert verdict.collided.all()
    assert not (verdict.left | verdict.right | verdict.success).any()


def test_one_answer_for_each_observation_is_not_two_modes() -> None:
    """A method that goes left for one observation and right for another has half of each, but one mode for each."""
    left, right = (path((x, -0.3), (x, 0.3), (0.0, 1.0)) for x in (-0.6, 0.6))
    state = np.repeat(STATE, 2, axis=0)
    stubborn = measure(state, np.stack([np.repeat(left, 4, axis=0), np.repeat(right, 4, axis=0)]), CONFIG)
    free = measure(state, np.stack([np.concatenate([left, right] * 2)] * 2), CONFIG)
    for shares in (stubborn, free):
        assert (shares["left"], shares["right"], shares["success"]) == (0.5, 0.5, 1.0)
    assert (stubborn["minority"], free["minority"]) == (0.0, 0.5)


def test_share_of_the_rarer_side_of_a_fair_coin_accounts_for_few_tosses() -> None:
    assert fair_minority(2) == 0.25  # two tosses differ half of the time
    tosses = np.random.default_rng(0).binomial(32, 0.5, 20_000) / 32
    assert fair_minority(32) == pytest.approx(np.minimum(tosses, 1 - tosses).mean(), abs=0.002)


@pytest.mark.parametrize(("steps", "evaluations"), [(2000, 10), (7, 3), (2, 10), (1, 1)])
def test_last_evaluation_is_the_end_of_training(steps: int, evaluations: int) -> None:
    points = BimodalToyConfig(steps=steps, evaluations=evaluations).evaluation_steps
    assert points == sorted(set(points))
    assert points[-1] == steps
    assert len(points) == min(steps, evaluations)
    assert points[0] > 0


@pytest.mark.parametrize("method", ["diffusion", "implicit"])
def test_same_seed_is_the_same_run(method: Method) -> None:
    config = BimodalToyConfig.model_validate(
        {
            "demonstrations": 16, "batch_size": 4, "steps": 4, "evaluations": 2, "observations": 2, "samples": 2,
            "final_samples": 2, "diffusion": {"iterations": 4, "sampler": "ddim", "sampler_iterations": 2},
            "heads": {"implicit": {"negatives": 4, "candidates": 8}},
        }
    )  # fmt: skip
    first = run_toy(config, method, 3)
    assert run_toy(config, method, 3) == first
    assert run_toy(config, method, 4) != first
    assert [point["step"] for point in first["evaluations"]] == [2, 4]
    assert np.shape(first["paths_m"])[1:] == (9, 2)  # the start, then the chunk


def test_summary_is_the_mean_and_range_over_seeds() -> None:
    def run(seed: int, successes: list[float]) -> dict[str, object]:
        shares = dict.fromkeys(("left", "right", "neither", "minority", "collided"), 0.25)
        points = [{"step": i, "loss": 1.0, **shares, "success": s} for i, s in enumerate(successes)]
        return {"method": "implicit", "seed": seed, "parameters": 7, "evaluations": points}

    row = summarise_toy([run(0, [0.0, 0.1, 0.9, 0.5]), run(1, [0.0, 0.2, 0.3, 0.7])])["implicit"]
    assert row["success"] == {"mean": pytest.approx(0.6), "low": 0.5, "high": 0.7}
    assert row["late_success"] == {"low": 0.3, "high": 0.9}
    assert (row["seeds"], row["parameters"], row["left"]["mean"]) == (2, 7, 0.25)
