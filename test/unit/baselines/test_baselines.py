"""The compared methods: losses and searches against oracles, and one signature for all."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dp_ros.actions import ACTION_DIM, STATE_DIM
from dp_ros.baselines.config import METHODS, HeadsConfig, ImplicitConfig, Method, MixtureConfig
from dp_ros.baselines.methods.head import ActionHead
from dp_ros.baselines.methods.implicit import ImplicitHead, info_nce, minimise, search
from dp_ros.baselines.methods.mixture import MixtureHead
from dp_ros.baselines.methods.mlp import count_parameters
from dp_ros.baselines.methods.policy import ChunkPolicy, camera_policy, make_head
from dp_ros.baselines.methods.regression import RegressionHead
from dp_ros.data.windows import Windows
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import DiffusionConfig, PolicyConfig, UNetConfig
from dp_ros.train.run_folder import BEST, CHECKPOINT
from dp_ros.train.stopping import TrainingPaused
from dp_ros.train.trainer import Trainer
from dp_ros.train.validation import Validation

pytestmark = pytest.mark.usefixtures("one_thread")

HEADS = HeadsConfig.model_validate(
    {"blocks": 2, "implicit": {"negatives": 8, "candidates": 16, "iterations": 2}}
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    return request.param


@pytest.fixture
def head(method: Method) -> ActionHead:
    torch.manual_seed(0)
    return make_head(
        method,
        T_p=4,
        action_dim=2,
        obs_dim=3,
        unet=UNetConfig(channels=(16, 32), groups=4, step_embedding_dim=16),
        diffusion=DiffusionConfig(iterations=20, sampler_iterations=5),
        heads=HEADS,
    )


def test_sample_follows_from_observation_and_generator_alone(head: ActionHead, method: Method) -> None:
    obs = torch.rand(5, 3, generator=generator(1))
    with torch.no_grad():
        first = head.sample(obs, generator(2))
        torch.manual_seed(99)
        before = torch.get_rng_state()
        assert torch.equal(head.sample(obs, generator(2)), first)
        assert torch.equal(torch.get_rng_state(), before)
        assert first.shape == (5, 4, 2)
        assert not torch.allclose(head.sample(obs + 1, generator(2)), first)
        same = torch.equal(head.sample(obs, generator(3)), first)
    assert same == (method == "regression"), "of the four, only regression is deterministic"


@pytest.mark.parametrize("bf16", [False, True])
def test_gradient_of_the_loss_reaches_every_weight(head: ActionHead, method: Method, bf16: bool) -> None:
    """Under autocast too: a weight that it converted without gradients must not be used again."""
    nactions, obs = torch.rand(6, 4, 2, generator=generator(1)), torch.rand(6, 3, generator=generator(2))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = head.loss(nactions, obs, generator(), noise_samples=3)
    assert loss.dtype == torch.float32
    loss.backward()
    still = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()]
    # A constant added to every energy changes nothing, so the gradient of the last bias is only rounding.
    assert not set(still) - ({"network.out.1.bias"} if method == "implicit" else set())


@pytest.mark.parametrize("channels", [(16, 32), (96, 192, 384)])
@pytest.mark.parametrize("obs_dim", [4, 256])
def test_every_method_has_as_many_weights_as_the_unet(channels: tuple[int, ...], obs_dim: int) -> None:
    with torch.device("meta"):
        sizes = {
            method: count_parameters(
                make_head(
                    method,
                    T_p=8,
                    action_dim=ACTION_DIM,
                    obs_dim=obs_dim,
                    unet=UNetConfig(channels=channels, groups=4, step_embedding_dim=32),
                    diffusion=DiffusionConfig(),
                    heads=HeadsConfig(),
                )
            )
            for method in METHODS
        }
    assert max(sizes.values()) < 1.08 * min(sizes.values()), sizes


def test_regression_of_two_answers_converges_to_their_mean() -> None:
    """The argument against it: the mean of two demonstrated answers was not demonstrated."""
    torch.manual_seed(0)
    head = RegressionHead(4, 2, 3, blocks=1, parameters=2_000)
    obs = torch.rand(32, 3, generator=generator(1))
    left, right = torch.full((4, 2), -0.8), torch.full((4, 2), 0.4)
    nactions = torch.stack([left, right] * 16)
    obs[1::2] = obs[::2]  # each observation once with each answer
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        head.loss(nactions, obs, generator()).backward()
        optimizer.step()
    torch.testing.assert_close(
        head.sample(obs, generator()), torch.full((32, 4, 2), -0.2), atol=0.03, rtol=0.0
    )


def mixture(sample_noise: float = 0.0) -> MixtureHead:
    torch.manual_seed(0)
    config = MixtureConfig(components=3, min_std=0.05, sample_noise=sample_noise)
    return MixtureHead(4, 2, 3, config, blocks=1, parameters=2_000)


def test_mixture_loss_is_the_negative_log_likelihood_computed_by_hand() -> None:
    head = mixture()
    obs, nactions = torch.rand(5, 3, generator=generator(1)), torch.rand(5, 4, 2, generator=generator(2))
    logits, mean, std = (part.double() for part in head(obs))
    expected = 0.0
    for b in range(5):
        weights = logits[b].exp() / logits[b].exp().sum()
        likelihood = 0.0
        for m in range(3):
            z = (nactions[b].double() - mean[b, m]) / std[b, m]
            densities = torch.exp(-(z**2) / 2) / (std[b, m] * math.sqrt(2 * math.pi))
            likelihood += weights[m].item() * densities.prod().item()
        expected -= math.log(likelihood) / 5
    loss = head.loss(nactions, obs, generator())
    assert loss.item() == pytest.approx(expected / 8, rel=1e-5)  # for each of the 4 x 2 numbers


def test_mixture_draws_its_components_by_their_weights() -> None:
    head = mixture()
    obs = torch.rand(1, 3, generator=generator(1)).expand(4000, 3)
    with torch.no_grad():
        sampled = head.sample(obs, generator(2))
        logits, mean, _ = head(obs[:1])
    for m, weight in enumerate(logits[0].softmax(-1)):
        share = (sampled - mean[0, m]).abs().amax((1, 2)).lt(1e-5).float().mean()
        assert share.item() == pytest.approx(weight.item(), abs=0.03)


def test_mixture_with_noise_samples_its_own_spread() -> None:
    head = mixture(sample_noise=1.0)
    obs = torch.rand(1, 3, generator=generator(1)).expand(8000, 3)
    with torch.no_grad():
        sampled = head.sample(obs, generator(2))
        logits, mean, std = (part[0] for part in head(obs[:1]))
    weights = logits.softmax(-1)[:, None, None]
    centre = (weights * mean).sum(0)
    variance = (weights * (std**2 + (mean - centre) ** 2)).sum(0)
    torch.testing.assert_close(sampled.mean(0), centre, atol=0.05, rtol=0.0)
    torch.testing.assert_close(sampled.var(0), variance, atol=0.0, rtol=0.08)


def test_info_nce_is_the_cross_entropy_of_picking_the_demonstrated_chunk() -> None:
    energies = torch.tensor([[1.0, 2.0, -0.5], [0.0, 0.0, 0.0]])
    by_hand = [
        -math.log(math.exp(-1.0) / (math.exp(-1.0) + math.exp(-2.0) + math.exp(0.5))),
        math.log(3),  # equal energies
    ]
    assert info_nce(energies).item() == pytest.approx(sum(by_hand) / 2, rel=1e-6)


SEARCH = ImplicitConfig(candidates=512, iterations=8, noise_std=0.33, last_noise_std=0.01, margin=0.05)


def uniform(windows: int, seed: int) -> Tensor:
    return 2 * torch.rand(windows, SEARCH.candidates, 2, 2, generator=generator(seed)) - 1


def test_search_finds_the_minimum_of_a_known_energy() -> None:
    target = torch.tensor([[[0.3, -0.7], [0.9, 0.1]], [[-0.2, 0.5], [0.0, -1.0]]])
    found = minimise(
        lambda chunks: 20 * (chunks - target[:, None]).square().sum((-1, -2)),
        uniform(2, 1),
        SEARCH,
        generator(2),
    )
    torch.testing.assert_close(found, target, atol=0.05, rtol=0.0)


def test_search_finds_one_of_two_equal_minima_and_each_about_as_often() -> None:
    target = torch.full((2, 2), 0.6)

    def energy(chunks: Tensor) -> Tensor:
        return 20 * torch.minimum(*((chunks - side * target).square().sum((-1, -2)) for side in (-1.0, 1.0)))

    found = minimise(energy, uniform(200, 1), SEARCH, generator(2))
    distance = torch.stack([(found - side * target).abs().amax((1, 2)) for side in (-1.0, 1.0)])
    assert (distance.amin(0) < 0.1).all()
    assert 0.3 < (distance[0] < 0.1).float().mean().item() < 0.7


def test_search_stays_in_its_box() -> None:
    rounds = list(search(lambda chunks: -100 * chunks.sum((-1, -2)), uniform(2, 1), SEARCH, 4, generator(2)))
    assert len(rounds) == 4
    for found in rounds:
        assert found.shape == (2, SEARCH.candidates, 2, 2)
        assert found.abs().max().item() <= 1.05 + 1e-6
    assert rounds[-1].mean().item() > 0.5


@pytest.mark.parametrize("searched", [0.0, 0.4, 1.0])
def test_counter_examples_have_the_configured_number_and_the_searched_ones_are_harder(
    searched: float,
) -> None:
    config = ImplicitConfig(negatives=10, training_rounds=2, searched=searched)
    torch.manual_seed(0)
    head = ImplicitHead(2, 2, 3, config, blocks=1, parameters=2_000)
    seen: list[Tensor] = []
    head.energy = lambda chunks, obs: seen.append(chunks) or 50 * chunks.square().sum((-1, -2))  # type: ignore
    nactions = torch.zeros(64, 2, 2)
    head.loss(nactions, torch.zeros(64, 3), generator())
    judged = seen[-1]
    assert judged.shape == (64, 11, 2, 2)
    assert torch.equal(judged[:, 0], nactions)
    easy = 10 - round(10 * searched)
    if 0 < easy < 10:
        assert judged[:, 1 + easy :].abs().mean() < 0.7 * judged[:, 1 : 1 + easy].abs().mean()
    if searched == 0:
        assert judged[:, 1:].std().item() == pytest.approx(1.05 / math.sqrt(3), abs=0.03)


@pytest.fixture
def observed() -> tuple[Tensor, Tensor]:
    return torch.rand(2, 2, 2, 3, 32, 32, generator=generator(1)), torch.rand(
        2, 2, STATE_DIM, generator=generator(2)
    )


def test_policy_has_the_signature_and_units_of_diffusion_policy(
    method: Method, tiny_policy: PolicyConfig, stats: dict[str, Any], observed: tuple[Tensor, Tensor]
) -> None:
    torch.manual_seed(0)
    policy = camera_policy(tiny_policy, stats, method, HEADS).eval()
    images, state = observed
    low, high = torch.tensor(stats["action"]["low"]), torch.tensor(stats["action"]["high"])
    actions = low + (high - low) * torch.rand(2, 8, ACTION_DIM, generator=generator(3))
    assert policy.loss(images, state, actions, generator(), noise_samples=2).isfinite()
    plan = policy.plan(images, state, generator())
    assert plan.shape == (2, 8, ACTION_DIM)
    assert torch.equal(policy.plan(images, state, generator()), plan)
    middle, half = (low + high) / 2, (high - low) / 2
    assert ((plan - middle).abs() < 3 * half).all(), "not in the units of the actions"


def test_diffusion_head_is_diffusion_policy_to_the_last_bit(
    tiny_policy: PolicyConfig, stats: dict[str, Any], observed: tuple[Tensor, Tensor]
) -> None:
    """So results on the toy are results of the network that drives the arm."""
    torch.manual_seed(0)
    policy = DiffusionPolicy(tiny_policy, stats).eval()
    head = camera_policy(tiny_policy, stats, "diffusion", HEADS).eval()
    head.encoder.load_state_dict(policy.encoder.state_dict())
    head.head.network.load_state_dict(policy.network.state_dict())
    images, state = observed
    actions = torch.rand(2, 8, ACTION_DIM, generator=generator(3))
    assert torch.equal(
        policy.loss(images, state, actions, generator(4), 3),
        head.loss(images, state, actions, generator(4), 3),
    )
    assert torch.equal(policy.plan(images, state, generator(5)), head.plan(images, state, generator(5)))


def test_trainer_trains_a_baseline_and_leaves_no_checkpoint_to_serve(
    tiny_train: Any, make_dataset: Any, tmp_path: Path
) -> None:
    config = tiny_train()
    policy = config.policy
    windows = Windows(make_dataset(), policy.horizons, policy.action, policy.encoder)
    build = partial(camera_policy, method="implicit", heads=HEADS)
    whole = Trainer(config, windows, tmp_path / "whole", build=build)
    assert isinstance(whole.policy, ChunkPolicy)
    whole.run()
    assert not (tmp_path / "whole" / CHECKPOINT).exists()

    half = Trainer(config, windows, tmp_path / "half", build=build)
    with pytest.raises(TrainingPaused):
        half.run(time_is_over=lambda: half.step >= 3)
    resumed = Trainer(config, windows, tmp_path / "half", build=build, resume=True)
    resumed.run()
    for name, parameter in whole.ema.named_parameters():
        assert torch.equal(parameter, dict(resumed.ema.named_parameters())[name]), name


def test_trainer_measures_a_baseline_on_held_out_episodes(
    method: Method, tiny_train: Any, make_dataset: Any, tmp_path: Path
) -> None:
    config = tiny_train(steps=2, validation=0.5)
    policy = config.policy
    windows = Windows(make_dataset(), policy.horizons, policy.action, policy.encoder)
    run = Trainer(config, windows, tmp_path, build=partial(camera_policy, method=method, heads=HEADS))
    found: list[Validation] = []
    run.run(on_validation=found.append)
    (measured,) = found
    assert len(measured.position_m) == 8
    assert math.isfinite(measured.score)
    assert not (tmp_path / BEST).exists()
