"""The table of samplers: it agrees with the schema, and a new row can be planned with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dp_ros.actions import ACTION_DIM, STATE_DIM
from dp_ros.inference.engine import sampler_settings
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.sampler import SAMPLERS, Known, SamplerStep, sample, sampler_steps
from dp_ros.schema import (
    FULL_SAMPLERS,
    ConfigError,
    DiffusionConfig,
    PolicyConfig,
    RuntimeConfig,
    SamplerName,
    Spacing,
    parse,
)

pytestmark = pytest.mark.usefixtures("one_thread")

K, SHAPE = 12, (2, 8, ACTION_DIM)
Array = NDArray[np.float64]


def config(name: str, iterations: int, spacing: str) -> DiffusionConfig:
    return DiffusionConfig.model_validate(
        {"iterations": K, "sampler": name, "sampler_iterations": iterations, "spacing": spacing}
    )


def run(denoise: Callable[[Array, int], Array], name: str, iterations: int, spacing: str) -> Array:
    rng = np.random.default_rng(0)
    steps = sampler_steps(config(name, iterations, spacing))
    return sample(denoise, rng.standard_normal(SHAPE), steps, 1.0, lambda: rng.standard_normal(SHAPE))


def test_table_and_schema_name_the_same_samplers() -> None:
    assert list(SAMPLERS) == list(get_args(SamplerName))
    assert set(SAMPLERS) >= FULL_SAMPLERS
    for name in SAMPLERS:
        DiffusionConfig.model_validate({"iterations": K, "sampler": name, "sampler_iterations": K})
        RuntimeConfig.model_validate({"sampler": name})


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("iterations", [3, K])
@pytest.mark.parametrize("spacing", get_args(Spacing))
def test_sampler_denoises_once_an_iteration_and_keeps_the_shape(
    name: str, iterations: int, spacing: str
) -> None:
    iterations = K if name in FULL_SAMPLERS else iterations
    calls: list[int] = []

    def denoise(x_k: Array, k: int) -> Array:
        calls.append(k)
        return np.zeros_like(x_k)

    x_0 = run(denoise, name, iterations, spacing)
    assert len(calls) == iterations
    assert calls == sorted(calls, reverse=True)
    assert x_0.shape == SHAPE
    assert np.abs(x_0).max() <= 1.0 + 1e-6


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_a_network_that_predicts_the_chunk_samples_as_one_that_predicts_its_noise(
    name: str, spacing: str
) -> None:
    """The two outputs are each other's by (x_k - alpha * x_0) / sigma; the chunks stay inside the clip here."""
    settings = config(name, K if name in FULL_SAMPLERS else 5, spacing)
    noise_steps = sampler_steps(settings)
    chunk_steps = sampler_steps(settings.model_copy(update={"prediction": "sample"}))
    at = {step.k: step for step in noise_steps}

    def chunk(x: Array, k: int) -> Array:
        return 0.5 * np.tanh(x + k)

    def noise(x: Array, k: int) -> Array:
        return (x - at[k].alpha * chunk(x, k)) / at[k].sigma

    def sampled(predict: Callable[[Array, int], Array], steps: Sequence[SamplerStep]) -> Array:
        rng = np.random.default_rng(1)
        return sample(predict, rng.standard_normal(SHAPE), steps, 1.0, lambda: rng.standard_normal(SHAPE))

    np.testing.assert_allclose(sampled(chunk, chunk_steps), sampled(noise, noise_steps), atol=1e-6)


def test_a_student_is_refused_at_iterations_that_it_never_saw() -> None:
    student = DiffusionConfig(
        iterations=100,
        prediction="sample",
        sampler_iterations=2,
        spacing="trailing",
        distilled_for=(99, 49),
    )
    for fits in ({}, {"sampler_iterations": 1}, {"sampler": "dpm_solver"}):
        sampler_settings(student, RuntimeConfig(**fits))
    for other in ({"sampler_iterations": 3}, {"sampler_spacing": "leading"}, {"sampler": "ddpm"}):
        with pytest.raises(ConfigError, match="distilled for iterations 99, 49, and") as caught:
            sampler_settings(student, RuntimeConfig(**other))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SAMPLERS)
def test_arrays_and_tensors_give_the_same(name: str) -> None:
    steps = sampler_steps(config(name, K, "trailing"))
    rng = np.random.default_rng(0)
    x_K, noise = rng.standard_normal(SHAPE), rng.standard_normal((K, *SHAPE))
    draws, torch_draws = iter(noise), iter(torch.from_numpy(noise))
    array = sample(lambda x, k: np.sin(x + k), x_K, steps, 1.0, lambda: next(draws))
    tensor = sample(
        lambda x, k: torch.sin(x + k), torch.from_numpy(x_K), steps, 1.0, lambda: next(torch_draws)
    )
    np.testing.assert_allclose(array, tensor.numpy(), atol=1e-12)


def either_way(steps: Sequence[SamplerStep]) -> Callable[[Array, int], Array]:
    """The exact denoiser of chunks (B, T_p, D) that are 0.5 everywhere or -0.5 everywhere."""
    levels = {step.k: (step.alpha, step.sigma) for step in steps}

    def denoise(x: Array, k: int) -> Array:
        alpha, sigma = levels[k]
        log_ratio = (2 * 0.5 * alpha * x / sigma**2).sum(axis=(1, 2), keepdims=True)
        clean = 0.5 * np.tanh(log_ratio / 2)
        return (x - alpha * clean) / sigma

    return denoise


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("side", [-0.5, 0.5])
def test_known_actions_are_kept_and_most_chunks_follow_them(name: str, side: float) -> None:
    """Two ways are equally likely. The first actions decide which one the whole chunk takes."""
    iterations = K if name in FULL_SAMPLERS else 3
    steps = sampler_steps(config(name, iterations, "trailing"))
    committed = np.full(SHAPE[1:], np.nan)
    committed[:3] = side
    known = Known.of(committed, np.zeros(ACTION_DIM, np.float32), np.ones(ACTION_DIM, np.float32))
    free, given = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x_K = rng.standard_normal((1, *SHAPE[1:]))
        for chosen, chunks in ((None, free), (known, given)):
            chunks.append(
                sample(either_way(steps), x_K, steps, 1.0, lambda: rng.standard_normal(x_K.shape), chosen)  # noqa: B023
            )
    np.testing.assert_array_equal(np.array(given)[:, :, :3], side)
    others = np.array(given)[:, 0, 3:].mean(axis=(1, 2)) * np.sign(side)
    assert (others > 0).sum() > 21  # of 30; replacement is not exact inference
    assert 10 < sum(chunk.mean() > 0 for chunk in free) < 20


def test_policy_trained_with_a_prefix_sees_it_clean_at_every_iteration() -> None:
    """At most the trained number of actions, and only whole ones; the others stay free."""
    steps, seen = sampler_steps(config("ddim", 3, "trailing")), []
    centre, half_range = np.float32([0.1] * ACTION_DIM), np.float32([0.7] * ACTION_DIM)
    committed = np.linspace(-0.5, 0.5, 8 * ACTION_DIM).reshape(8, ACTION_DIM)
    committed[5:] = committed[0, -1] = np.nan
    known = Known.of(committed, centre, half_range, 4)

    def denoise(x: Array, k: int) -> Array:
        seen.append(x)
        return np.sin(x + k)

    x_K = np.random.default_rng(0).standard_normal((1, 8, ACTION_DIM))
    chunk = sample(denoise, x_K, steps, 1.0, known=known)
    clean = (committed[1:4] - 0.1) / 0.7
    for x in (*seen, chunk):
        np.testing.assert_allclose(x[0, 1:4], clean, atol=1e-6)
    np.testing.assert_array_equal(seen[0][0, [0, 4, 5, 6, 7]], x_K[0, [0, 4, 5, 6, 7]])


def test_known_actions_of_arrays_and_tensors_give_the_same() -> None:
    steps = sampler_steps(config("ddim", 3, "trailing"))
    rng = np.random.default_rng(0)
    x_K, committed = rng.standard_normal(SHAPE), rng.uniform(-1, 1, SHAPE[1:])
    committed[4:] = np.nan
    known = Known.of(committed, np.float32([0.1] * ACTION_DIM), np.float32([0.7] * ACTION_DIM))
    tensors = Known(torch.from_numpy(known.clean), torch.from_numpy(known.kept))
    array = sample(lambda x, k: np.sin(x + k), x_K, steps, 1.0, known=known)
    tensor = sample(lambda x, k: torch.sin(x + k), torch.from_numpy(x_K), steps, 1.0, known=tensors)
    np.testing.assert_allclose(array, tensor.numpy(), atol=1e-12)
    np.testing.assert_allclose(array[0, :4] * 0.7 + 0.1, committed[:4], atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("last", [1, 2])
def test_last_steps_from_a_guess_recover_the_target_with_a_perfect_denoiser(name: str, last: int) -> None:
    """The first call sees the guess, clipped, at the noise level of its step."""
    steps = sampler_steps(config(name, K if name in FULL_SAMPLERS else 3, "trailing"))[-last:]
    rng = np.random.default_rng(0)
    target, guess, noise = (
        rng.uniform(-0.9, 0.9, SHAPE),
        rng.uniform(-2, 2, SHAPE),
        rng.standard_normal(SHAPE),
    )
    levels, seen = {step.k: (step.alpha, step.sigma) for step in steps}, []

    def denoise(x: Array, k: int) -> Array:
        seen.append(x)
        alpha, sigma = levels[k]
        return (x - alpha * target) / sigma

    chunk = sample(denoise, noise, steps, 1.0, lambda: rng.standard_normal(SHAPE), guess=guess)
    np.testing.assert_allclose(seen[0], guess.clip(-1, 1) * steps[0].alpha + noise * steps[0].sigma)
    assert len(seen) == last
    if name != "dpm_solver" or last == 1:  # its second order trusts the guess as the step before
        np.testing.assert_allclose(chunk, target, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"warm_start": 3}, "warm_start 3: it must be less than the sampler's 3 iterations"),
        ({"warm_start": 1, "sampler_spacing": "leading"}, "warm_start 1: the last iteration is k = 0, where"),
    ],
)
def test_warm_start_that_saves_nothing_or_changes_nothing_is_refused(
    changes: dict[str, Any], why: str
) -> None:
    settings = config("ddim", 3, "trailing")
    for last in (0, 1, 2):
        assert sampler_settings(settings, RuntimeConfig(warm_start=last)) == settings
    with pytest.raises(ConfigError, match=why) as caught:
        sampler_settings(settings, RuntimeConfig(**changes))
    assert "\n" not in str(caught.value)


def test_sampler_that_adds_noise_is_refused_without_any() -> None:
    with pytest.raises(ValueError, match="`draw` is missing"):
        sample(lambda x, k: x, np.zeros(SHAPE), sampler_steps(config("ddpm", K, "leading")), 1.0)


def test_unknown_sampler_is_refused_with_the_known_ones() -> None:
    settings = DiffusionConfig().model_copy(update={"sampler": "euler"})
    with pytest.raises(ValueError, match="unknown sampler 'euler': choose one of ddpm, ddim"):
        sampler_steps(settings)


def test_one_iteration_from_a_clean_chunk_is_refused_with_the_reason() -> None:
    with pytest.raises(
        ConfigError, match=r"leading spacing visits only k = 0.*set spacing to trailing"
    ) as caught:
        parse(DiffusionConfig, {"sampler_iterations": 1}, where="here")
    assert "\n" not in str(caught.value)
    DiffusionConfig.model_validate({"sampler_iterations": 1, "spacing": "trailing"})


def test_policy_plans_with_a_sampler_that_is_only_in_the_table(
    tiny_policy: PolicyConfig, stats: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One denoising of pure noise, not used; a chunk of 0 is the middle of each action's range."""

    def centre(abar: NDArray[np.float64], visited: Sequence[int]) -> list[SamplerStep]:
        assert (len(abar), list(visited)) == (20, [12, 6, 0])
        return [SamplerStep(k=0, alpha=1.0, sigma=0.0)]

    monkeypatch.setitem(SAMPLERS, "centre", centre)
    policy = DiffusionPolicy(tiny_policy, stats).eval()
    images, state = torch.rand(1, 2, 2, 3, 32, 32), torch.zeros(1, 2, STATE_DIM)
    settings = tiny_policy.diffusion.model_copy(update={"sampler": "centre", "sampler_iterations": 3})
    plan = policy.plan_from(images, state, lambda: torch.zeros(1, 8, ACTION_DIM), sampler_steps(settings))
    middle = (torch.tensor(stats["action"]["low"]) + torch.tensor(stats["action"]["high"])) / 2
    torch.testing.assert_close(plan, middle.expand(1, 8, ACTION_DIM))
