"""The policy as a whole: the inputs of a plan, and its units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dp_ros.actions import ACTION_DIM, STATE_DIM
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.normalizer import INPUT_BOUND, LimitsNormalizer, StatsError
from dp_ros.policy.sampler import sampler_steps
from dp_ros.schema import ConfigError, PolicyConfig, override

finite = st.floats(-100, 100)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def policy(each_policy: PolicyConfig, stats: dict[str, Any]) -> DiffusionPolicy:
    torch.manual_seed(0)
    policy = DiffusionPolicy(each_policy, stats).eval()
    if each_policy.network == "transformer":  # its initial weights are so small that inputs hardly matter
        with torch.no_grad():
            for parameter in policy.network.parameters():
                parameter.mul_(20)
    return policy


@pytest.fixture(scope="module")
def observed() -> Callable[[], tuple[Tensor, Tensor]]:
    def make() -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        return torch.rand(2, 2, 2, 3, 32, 32, generator=generator), torch.rand(
            2, 2, STATE_DIM, generator=generator
        )

    return make


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_plan_follows_from_the_observation_and_the_generator_alone(
    policy: DiffusionPolicy, observed: Callable
) -> None:
    """No hidden state: other plans in between and torch's global random numbers change nothing."""
    images, state = observed()
    first = policy.plan(images, state, generator(3))
    torch.manual_seed(99)
    policy.plan(images.flip(0), state, generator(4))
    before = torch.get_rng_state()
    assert torch.equal(policy.plan(images, state, generator(3)), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(policy.plan(images, state, generator(4)), first)
    assert not torch.allclose(policy.plan(1 - images, state, generator(3)), first)
    assert not torch.allclose(policy.plan(images, state + 1, generator(3)), first)


@pytest.mark.parametrize(("sampler", "iterations"), [("ddim", 5), ("ddim", 20), ("ddpm", 20)])
def test_plan_never_leaves_the_actions_that_were_trained_on(
    policy: DiffusionPolicy, observed: Callable, stats: dict[str, Any], sampler: str, iterations: int
) -> None:
    changes = {"sampler": sampler, "sampler_iterations": iterations}
    steps, noise = sampler_steps(override(policy.config.diffusion, changes)), generator()
    plan = policy.plan_from(*observed(), lambda: torch.randn(2, 8, ACTION_DIM, generator=noise), steps)
    assert plan.shape == (2, 8, ACTION_DIM)
    low, high = torch.tensor(stats["action"]["low"]), torch.tensor(stats["action"]["high"])
    assert (plan >= low - 1e-6).all()
    assert (plan <= high + 1e-6).all()


def test_vision_only_policy_does_not_see_the_state(
    each_policy: PolicyConfig, stats: dict[str, Any], observed: Callable
) -> None:
    blind = DiffusionPolicy(override(each_policy, {"encoder.proprioception": False}), stats).eval()
    images, state = observed()
    assert torch.equal(blind.plan(images, state, generator()), blind.plan(images, state + 9, generator()))


def test_gradient_of_the_loss_reaches_every_weight(
    each_policy: PolicyConfig, stats: dict[str, Any], observed: Callable
) -> None:
    torch.manual_seed(0)
    policy = DiffusionPolicy(each_policy, stats)
    images, state = observed()
    policy.loss(images, state, torch.rand(2, 8, ACTION_DIM), generator(), noise_samples=3).backward()
    still = [name for name, p in policy.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


def test_loss_is_the_error_of_the_predicted_noise(
    each_policy: PolicyConfig, stats: dict[str, Any], observed: Callable
) -> None:
    """The error of a network that predicts 0 is the noise itself, whose mean square is 1."""
    policy = DiffusionPolicy(each_policy, stats)
    with torch.no_grad():
        for parameter in policy.network.out[-1].parameters():
            parameter.zero_()
    images, state = observed()
    actions = torch.zeros(2, 8, ACTION_DIM)
    loss = policy.loss(images, state, actions, generator(5), noise_samples=1)
    noise = torch.randn(2, 8, ACTION_DIM, generator=generator(5))
    assert loss.item() == pytest.approx(noise.square().mean().item(), rel=1e-6)
    many = policy.loss(images, state, actions, generator(5), noise_samples=200)
    assert many.item() == pytest.approx(1.0, abs=0.03)


@given(
    limits=st.lists(st.tuples(finite, finite).map(sorted), min_size=1, max_size=4),
    shares=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_normaliser_maps_the_limits_to_one_and_back(limits: list[list[float]], shares: list[float]) -> None:
    low, high = zip(*limits, strict=True)
    normalizer = LimitsNormalizer(low, high)
    x = torch.tensor([a + share * (b - a) for (a, b), share in zip(limits, shares, strict=False)])
    nx = normalizer.normalise(x)
    assert (nx.abs() <= 1 + 1e-3).all()
    torch.testing.assert_close(normalizer.unnormalise(nx), x, rtol=1e-5, atol=1e-4)
    wide = [i for i, (a, b) in enumerate(limits) if b - a > 1e-2]
    torch.testing.assert_close(normalizer.normalise(torch.tensor(low))[wide], -torch.ones(len(wide)))
    torch.testing.assert_close(normalizer.normalise(torch.tensor(high))[wide], torch.ones(len(wide)))


def test_input_far_outside_the_trained_range_is_clipped_and_one_inside_is_exact() -> None:
    normalizer = LimitsNormalizer([0.0, -1e-5], [1.0, 1e-5])
    inside = torch.tensor([[0.0, 1e-5], [0.3, 0.0], [1.0, -1e-5], [1.4, 0.0]])
    assert torch.equal(normalizer.normalise_input(inside), normalizer.normalise(inside))
    far = normalizer.normalise_input(torch.tensor([[50.0, 0.02], [-50.0, -0.02]]))
    assert far.tolist() == [[INPUT_BOUND, INPUT_BOUND], [-INPUT_BOUND, -INPUT_BOUND]]


def test_state_beyond_the_bound_changes_the_plan_no_further(
    policy: DiffusionPolicy, observed: Callable
) -> None:
    images, state = observed()
    far, farther = (torch.full_like(state, metres) for metres in (100.0, 1e6))
    assert torch.equal(policy.plan(images, far, generator()), policy.plan(images, farther, generator()))


def test_constant_dimension_maps_to_zero_and_back_to_its_constant() -> None:
    normalizer = LimitsNormalizer([0.0, 5.0], [1.0, 5.0])
    assert normalizer.normalise(torch.tensor([0.5, 5.0])).tolist() == [0.0, 0.0]
    assert normalizer.unnormalise(torch.tensor([0.0, 0.0])).tolist() == [0.5, 5.0]


@pytest.mark.parametrize(
    ("stats", "says"),
    [
        ({}, "'action' with low and high is missing"),
        ({"action": {"low": [0.0] * 4}}, "'action' with low and high is missing"),
        ({"action": None}, "'action' with low and high is missing"),
        ({"action": {"low": [0.0] * 3, "high": [1.0] * 3}}, "'action' has 3 dimensions, 4 are needed"),
        ({"action": {"low": [0.0] * 4, "high": [1.0] * 5}}, "low has 4 values and high 5"),
        ({"action": {"low": [0.0] * 4, "high": [1.0, 1.0, 1.0, -1.0]}}, "high is below low"),
        ({"action": {"low": [0.0] * 4, "high": [1.0, 1.0, 1.0, float("nan")]}}, "not finite"),
        ({"action": {"low": [0.0, 0.0, 0.0, float("-inf")], "high": [1.0] * 4}}, "not finite"),
    ],
)
def test_statistics_that_cannot_be_used_are_refused_at_once(stats: dict[str, Any], says: str) -> None:
    with pytest.raises(StatsError) as caught:
        LimitsNormalizer.from_stats(stats, "action", 4)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prefix", [0, 5])
def test_a_prefix_is_shown_as_it_was_executed_and_left_out_of_the_loss(
    tiny_policy: PolicyConfig, stats: dict[str, Any], observed: Callable, prefix: int
) -> None:
    """A network that is wrong where actions are given, and right elsewhere, has no loss; 0 to `prefix` are given."""
    policy = DiffusionPolicy(override(tiny_policy, {"diffusion.prefix": prefix}), stats)
    images, state = observed()
    scale = DiffusionPolicy(tiny_policy, stats).action_normalizer.unnormalise
    actions, executed = scale(torch.full((2, 8, 4), -0.5)), scale(torch.full((2, 8, 4), 0.25))
    lengths: list[int] = []

    class Network(torch.nn.Module):
        def forward(self, x: Tensor, k: Tensor, obs: Tensor) -> Tensor:
            given = torch.isclose(x, torch.full((), 0.25)).all(dim=-1, keepdim=True)
            length = given.sum(dim=(1, 2))
            lengths.extend(length.tolist())
            # Positions go on from the executed ones, the gripper as demonstrated.
            wanted = torch.where((length > 0)[:, None], torch.tensor([0.25, 0.25, 0.25, -0.5]), -0.5)
            abar = policy.schedule.abar[k][:, None, None]
            noise = (x - abar.sqrt() * wanted[:, None]) / (1 - abar).sqrt()
            return torch.where(given, 100.0, noise)

    policy.network = Network()
    loss = policy.loss(images, state, actions, generator(), 40, executed=executed)
    assert loss < 1e-6
    assert set(lengths) == set(range(prefix + 1))


def test_a_prefix_of_the_whole_chunk_is_refused(tiny_policy: PolicyConfig) -> None:
    override(tiny_policy, {"diffusion.prefix": 7})
    with pytest.raises(ConfigError, match="prefix 8 leaves none of T_p = 8 actions to predict"):
        override(tiny_policy, {"diffusion.prefix": 8})
