"""The Transformer: its attention masks, initial weights, dropout, and that it learns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dp_ros.actions import ACTION_DIM
from dp_ros.policy.noise_schedule import NoiseSchedule
from dp_ros.policy.sampler import sample, sampler_steps
from dp_ros.policy.transformer import ConditionalTransformer
from dp_ros.schema import DiffusionConfig, Horizons, TransformerConfig
from dp_ros.train.optimizer import cosine_with_warmup

pytestmark = pytest.mark.usefixtures("one_thread")

FRAME_DIM = 3
HORIZONS = [(1, 4), (2, 8), (3, 3), (4, 6)]


def transformer(T_o: int = 2, T_p: int = 8, **config: float) -> ConditionalTransformer:
    torch.manual_seed(0)
    settings = {"layers": 2, "heads": 2, "embedding_dim": 16, **config}
    return ConditionalTransformer(
        ACTION_DIM,
        T_o * FRAME_DIM,
        Horizons(T_o=T_o, T_p=T_p, T_a=1),
        TransformerConfig.model_validate(settings),
    )


def initial(model: ConditionalTransformer) -> ConditionalTransformer:
    return model.eval()


def trained(model: ConditionalTransformer) -> ConditionalTransformer:
    """A few large training steps on noise, so that every weight has changed."""
    T_o, T_p = model.T_o, model.action_position.shape[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    for k in range(5):
        x, obs = torch.randn(8, T_p, ACTION_DIM), torch.randn(8, T_o * FRAME_DIM)
        F.mse_loss(model.train()(x, torch.full((8,), k), obs), torch.randn_like(x)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def arbitrary(model: ConditionalTransformer) -> ConditionalTransformer:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.eval()


each_weights = pytest.mark.parametrize("weights", [initial, trained, arbitrary])
Weights = Callable[[ConditionalTransformer], ConditionalTransformer]


def influence(model: ConditionalTransformer, T_o: int, T_p: int) -> tuple[Tensor, Tensor]:
    """Whether an action of the answer depends on each noisy action (T_p, T_p) and each frame (T_p, T_o)."""
    x, obs = torch.randn(1, T_p, ACTION_DIM), torch.randn(1, T_o * FRAME_DIM)
    by_action, by_frame = torch.autograd.functional.jacobian(
        lambda a, o: model(a, torch.tensor([3]), o)[0], (x, obs)
    )
    by_frame = by_frame.reshape(T_p, ACTION_DIM, T_o, FRAME_DIM)
    return (by_action[:, :, 0] != 0).any(3).any(1), (by_frame != 0).any(3).any(1)


@each_weights
@pytest.mark.parametrize(("T_o", "T_p"), HORIZONS)
def test_action_depends_on_itself_and_earlier_ones_alone(T_o: int, T_p: int, weights: Weights) -> None:
    by_action, _ = influence(weights(transformer(T_o, T_p)), T_o, T_p)
    assert by_action.tolist() == [[s <= t for s in range(T_p)] for t in range(T_p)]


@each_weights
@pytest.mark.parametrize(("T_o", "T_p"), HORIZONS)
def test_action_depends_on_the_frames_up_to_its_own_time_alone(T_o: int, T_p: int, weights: Weights) -> None:
    """Index 0 of a chunk is the time of the oldest frame."""
    _, by_frame = influence(weights(transformer(T_o, T_p)), T_o, T_p)
    assert by_frame.tolist() == [[o <= t for o in range(T_o)] for t in range(T_p)]


@each_weights
def test_every_executed_action_depends_on_the_newest_frame(weights: Weights) -> None:
    _, by_frame = influence(weights(transformer()), 2, 8)
    assert by_frame[Horizons().executed, -1].all()


@each_weights
def test_change_of_a_future_action_changes_no_earlier_output(weights: Weights) -> None:
    """However large the change: a masked action has weight 0, not a small one."""
    model = weights(transformer())
    x, k, obs = torch.randn(2, 8, ACTION_DIM), torch.tensor([3, 90]), torch.randn(2, 2 * FRAME_DIM)
    with torch.no_grad():
        before = model(x, k, obs)
        for t in range(8):
            changed = x.clone()
            changed[:, t] = 1e6
            after = model(changed, k, obs)
            assert torch.equal(after[:, :t], before[:, :t])
            assert not torch.allclose(after[:, t], before[:, t], rtol=0, atol=1e-6)


@each_weights
def test_change_of_the_newest_frame_leaves_the_action_before_it(weights: Weights) -> None:
    model = weights(transformer())
    x, k, obs = torch.randn(2, 8, ACTION_DIM), torch.tensor([3, 90]), torch.randn(2, 2 * FRAME_DIM)
    changed = obs.clone()
    changed[:, FRAME_DIM:] = 1e6
    with torch.no_grad():
        before, after = model(x, k, obs), model(x, k, changed)
    assert torch.equal(after[:, 0], before[:, 0])
    assert (after[:, 1:] != before[:, 1:]).any(-1).all()


@each_weights
def test_every_action_depends_on_the_iteration(weights: Weights) -> None:
    model = weights(transformer())
    x, obs = torch.randn(1, 8, ACTION_DIM), torch.randn(1, 2 * FRAME_DIM)
    with torch.no_grad():
        out = [model(x, torch.tensor([k]), obs) for k in (3, 4)]
    assert (out[0] != out[1]).any(-1).all()


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    model = arbitrary(transformer())
    x, k, obs = torch.randn(3, 8, ACTION_DIM), torch.tensor([0, 5, 9]), torch.randn(3, 2 * FRAME_DIM)
    together = model(x, k, obs)
    for b in range(3):
        alone = model(x[b : b + 1], k[b : b + 1], obs[b : b + 1])
        torch.testing.assert_close(together[b : b + 1], alone, rtol=0, atol=1e-5)


def test_initial_weights_are_those_of_the_authors() -> None:
    """Normal with 0.02 for matrices and positions, zeros for biases, ones for norms."""
    model = transformer(T_p=64, embedding_dim=64)
    for name, parameter in model.named_parameters():
        kind = name.rsplit(".", 1)[-1]
        norm = "norm" in name or name.startswith("out.0.")
        if kind == "bias" or norm:
            assert torch.equal(parameter, torch.full_like(parameter, float(norm and kind == "weight"))), name
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.2), name
            assert abs(parameter.mean().item()) < 0.005, name


def test_weight_decay_spares_all_but_the_matrices() -> None:
    model = transformer()
    spared = {id(parameter) for parameter in model.no_decay_parameters()}
    decayed = {name for name, p in model.named_parameters() if id(p) not in spared}
    attention = {f"{to}.{part}.weight" for to in ("to_actions", "to_memory") for part in
                 ("query", "key_value", "project")}  # fmt: skip
    in_layer = attention | {"feed.0.weight", "feed.3.weight"}
    assert decayed == {f"layers.{i}.{name}" for i in range(2) for name in in_layer} | {
        "embed_frame.weight", "embed_action.weight", "remember.0.weight", "remember.2.weight", "out.1.weight",
    }  # fmt: skip


@pytest.mark.parametrize("dropouts", [{"dropout": 0.3}, {"dropout": 0.0, "embedding_dropout": 0.3}])
def test_dropout_acts_in_training_only(dropouts: dict[str, float]) -> None:
    model = arbitrary(transformer(**dropouts))
    x, k, obs = torch.randn(1, 8, ACTION_DIM), torch.tensor([3]), torch.randn(1, 2 * FRAME_DIM)
    before = torch.get_rng_state()
    assert torch.equal(model(x, k, obs), model(x, k, obs))
    assert torch.equal(torch.get_rng_state(), before)
    model.train()
    assert not torch.equal(model(x, k, obs), model(x, k, obs))


def test_dropout_of_zero_changes_nothing_in_training() -> None:
    model = arbitrary(transformer(dropout=0.0))
    x, k, obs = torch.randn(1, 8, ACTION_DIM), torch.tensor([3]), torch.randn(1, 2 * FRAME_DIM)
    assert torch.equal(model.train()(x, k, obs), model.eval()(x, k, obs))


@pytest.mark.slow
def test_transformer_overfits_two_windows_and_plans_each_its_own_chunk() -> None:
    model = transformer(T_p=4, dropout=0.0).train()
    diffusion = DiffusionConfig(iterations=20, sampler_iterations=10)
    schedule = NoiseSchedule(diffusion)
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(2, 2 * FRAME_DIM, generator=generator)
    chunks = torch.rand(2, 4, ACTION_DIM, generator=generator) * 2 - 1
    batch_obs, batch, losses = obs.repeat(16, 1), chunks.repeat(16, 1, 1), []
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 1e-2 * cosine_with_warmup(step, steps=400, warmup_steps=20)
        noise = torch.randn(batch.shape, generator=generator)
        k = torch.randint(0, 20, (len(batch),), generator=generator)
        loss = F.mse_loss(model(schedule.add_noise(batch, noise, k), k, batch_obs), noise)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert sum(losses[-20:]) / 20 < 0.05  # a network that predicts 0 has 1
    model.eval()
    x_K = torch.randn(chunks.shape, generator=generator)
    with torch.no_grad():
        planned = sample(
            lambda x, k: model(x, torch.full((len(x),), k), obs), x_K, sampler_steps(diffusion), clip=1.0
        )
    assert (planned - chunks).abs().mean() < 0.1 < (planned - chunks.flip(0)).abs().mean()
