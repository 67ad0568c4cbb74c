"""The Transformer against PyTorch's own decoder, weight for weight."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dp_ros.actions import ACTION_DIM
from dp_ros.policy.transformer import ConditionalTransformer
from dp_ros.schema import Horizons, TransformerConfig

FRAME_DIM = 3


@pytest.fixture(scope="module", autouse=True)
def _fixed_weights() -> None:
    torch.manual_seed(0)


def transformer(T_o: int, T_p: int, **config: float) -> ConditionalTransformer:
    settings = {"layers": 3, "heads": 2, "embedding_dim": 16, **config}
    model = ConditionalTransformer(
        ACTION_DIM,
        T_o * FRAME_DIM,
        Horizons(T_o=T_o, T_p=T_p, T_a=1),
        TransformerConfig.model_validate(settings),
    )
    with (
        torch.no_grad()
    ):  # with the small initial weights, zero biases and unit norms, a mistake would not show
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def torch_decoder(model: ConditionalTransformer, dropout: float = 0.0) -> nn.TransformerDecoder:
    """PyTorch's decoder with the layers of `model`."""
    width, heads = model.memory_position.shape[1], model.layers[0].to_actions.heads
    layer = nn.TransformerDecoderLayer(
        width, heads, 4 * width, dropout=dropout, activation="gelu", batch_first=True, norm_first=True
    )
    decoder = nn.TransformerDecoder(layer, len(model.layers))
    for ours, theirs in zip(model.layers, decoder.layers, strict=True):
        attentions = ((ours.to_actions, theirs.self_attn), (ours.to_memory, theirs.multihead_attn))
        for attention, reference in attentions:
            for kind in ("weight", "bias"):
                projections = [getattr(attention.query, kind), getattr(attention.key_value, kind)]
                getattr(reference, f"in_proj_{kind}").data = torch.cat(projections).detach()
            reference.out_proj.load_state_dict(attention.project.state_dict())
        theirs.norm1.load_state_dict(ours.norm_actions.state_dict())
        theirs.norm2.load_state_dict(ours.norm_memory.state_dict())
        theirs.norm3.load_state_dict(ours.norm_feed.state_dict())
        theirs.linear1.load_state_dict(ours.feed[0].state_dict())
        theirs.linear2.load_state_dict(ours.feed[3].state_dict())
    return decoder


def reference_transformer(
    model: ConditionalTransformer, decoder: nn.TransformerDecoder, x: Tensor, k: Tensor, obs: Tensor
) -> Tensor:
    """Chi et al.'s Transformer from its published description, T_o frames in `obs` (B, T_o * FRAME_DIM)."""
    weights = dict(model.named_parameters())
    width = model.memory_position.shape[1]
    T_o, T_p = obs.shape[1] // FRAME_DIM, x.shape[1]

    def linear(name: str, v: Tensor) -> Tensor:
        return v @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    half = width // 2
    angles = k[:, None] * torch.tensor([10_000.0 ** (-i / (half - 1)) for i in range(half)])
    tokens = [torch.cat([angles.sin(), angles.cos()], dim=1)]
    tokens += [linear("embed_frame", obs[:, o * FRAME_DIM : (o + 1) * FRAME_DIM]) for o in range(T_o)]
    tokens = [token + weights["memory_position"][i] for i, token in enumerate(tokens)]
    memory = linear("remember.2", F.mish(linear("remember.0", torch.stack(tokens, dim=1))))
    causal = torch.tensor([[0.0 if s <= t else -torch.inf for s in range(T_p)] for t in range(T_p)])
    in_time = [[0.0 if s == 0 or s - 1 <= t else -torch.inf for s in range(1 + T_o)] for t in range(T_p)]
    decoded = decoder(
        linear("embed_action", x) + weights["action_position"],
        memory,
        tgt_mask=causal,
        memory_mask=torch.tensor(in_time),
    )
    decoded = F.layer_norm(decoded, (width,), weights["out.0.weight"], weights["out.0.bias"])
    return linear("out.1", decoded)


@pytest.mark.parametrize(("T_o", "T_p"), [(1, 1), (2, 8), (4, 5)])
def test_transformer_and_its_gradients_are_what_the_paper_describes(T_o: int, T_p: int) -> None:
    model = transformer(T_o, T_p).eval()
    x, k = torch.randn(3, T_p, ACTION_DIM, requires_grad=True), torch.tensor([0, 7, 99])
    obs = torch.randn(3, T_o * FRAME_DIM, requires_grad=True)
    outputs = (model(x, k, obs), reference_transformer(model, torch_decoder(model), x, k, obs))
    torch.testing.assert_close(*outputs, rtol=0, atol=2e-5)
    shared = [x, obs, model.memory_position, model.action_position, *model.out.parameters()]
    gradients = [torch.autograd.grad(out.square().sum(), shared) for out in outputs]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_gradients_inside_the_layers_are_those_of_torch() -> None:
    model = transformer(T_o=2, T_p=8).eval()
    decoder = torch_decoder(model)
    x, k, obs = torch.randn(3, 8, ACTION_DIM), torch.tensor([0, 7, 99]), torch.randn(3, 2 * FRAME_DIM)
    model(x, k, obs).square().sum().backward()
    reference_transformer(model, decoder, x, k, obs).square().sum().backward()
    for ours, theirs in zip(model.layers, decoder.layers, strict=True):
        joined = torch.cat([ours.to_memory.query.weight.grad, ours.to_memory.key_value.weight.grad])
        torch.testing.assert_close(joined, theirs.multihead_attn.in_proj_weight.grad, rtol=1e-4, atol=1e-3)
        joined = torch.cat([ours.to_actions.query.weight.grad, ours.to_actions.key_value.weight.grad])
        torch.testing.assert_close(joined, theirs.self_attn.in_proj_weight.grad, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(ours.feed[3].weight.grad, theirs.linear2.weight.grad, rtol=1e-4, atol=1e-3)


def test_dropout_is_as_strong_as_that_of_torch() -> None:
    """Dropout in the same places as torch's: the spread of the outputs over many draws is the same."""
    model = transformer(T_o=2, T_p=8, dropout=0.3).train()
    decoder = torch_decoder(model, dropout=0.3).train()
    x, k, obs = torch.randn(1, 8, ACTION_DIM), torch.tensor([7]), torch.randn(1, 2 * FRAME_DIM)
    x, k, obs = x.expand(4000, -1, -1), k.expand(4000), obs.expand(4000, -1)
    with torch.no_grad():
        ours, theirs = model(x, k, obs), reference_transformer(model, decoder, x, k, obs)
    torch.testing.assert_close(ours.std(0), theirs.std(0), rtol=0.1, atol=0)
    torch.testing.assert_close(ours.mean(0), theirs.mean(0), rtol=0, atol=0.1 * theirs.std(0).max().item())
