"""The parts of a policy that an exported engine runs, as torch modules of batch 1 and fixed shapes.

instruction: embedding of a sentence -> what is learned from it, once for each sentence; only of policies that are told
what to do. encoder: one picture of one camera -> features, once for each new frame. condition: the features of a window
-> what the network takes from the observation, once per plan. denoiser: one call of the network, once per iteration.
What the network takes from the iteration k is a table, computed here once.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.encoder import ResNetEncoder

Module = TypeVar("Module", bound=nn.Module)


class PlainGroupNorm(nn.Module):
    """nn.GroupNorm (Wu & He 2018) written out: OpenVINO 2025.4 and 2026.4 crash on its own form in a ResNet."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, ...) -> the same shape."""
        grouped = x.reshape(x.shape[0], self.groups, -1)
        centred = grouped - grouped.mean(-1, keepdim=True)
        normed = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + self.eps)
        affine = (1, -1, *(1,) * (x.ndim - 2))
        return normed.reshape(x.shape) * self.weight.view(affine) + self.bias.view(affine)


class EncoderGraph(nn.Module):
    """One camera's encoder with the conversion of its picture."""

    def __init__(self, encoder: ResNetEncoder) -> None:
        super().__init__()
        self.encoder = _exportable(encoder)

    def forward(self, picture: Tensor, told: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """picture (H, W, 3) uint8, cropped; told (1, F) of `InstructionGraph`, where the policy has one -> features (1,
        feature_dim), keypoints (1, 2 * keypoints)."""
        described: tuple[Tensor, Tensor] = self.encoder.describe(
            picture.permute(2, 0, 1)[None].float() / 255.0, told
        )
        return described


class InstructionGraph(nn.Module):
    """Learned features of the instruction."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(policy.encoder.instruction)

    def forward(self, embedding: Tensor) -> Tensor:
        """embedding (1, embedding_dim) of a sentence -> (1, F)."""
        assert self.encoder is not None
        told: Tensor = self.encoder(embedding)
        return told


class ConditionGraph(nn.Module):
    """The network's share of the observation."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        super().__init__()
        self.network = _exportable(policy.network)

    def forward(self, obs: Tensor) -> Tensor:
        """obs (1, obs_dim), as `ObservationEncoder` lays it out -> condition, as the network's `condition`."""
        condition: Tensor = self.network.condition(obs)
        return condition


class DenoiserGraph(nn.Module):
    """One call of the network."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        super().__init__()
        self.network = _exportable(policy.network)

    def forward(self, x: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """x (1, T_p, D), step: a row of the table, condition -> predicted noise (1, T_p, D)."""
        noise: Tensor = self.network.denoise(x, step, condition)
        return noise


@dataclass(frozen=True)
class Graph:
    """A module with the inputs that fix its shapes."""

    module: nn.Module
    inputs: dict[str, Tensor]
    output: str
    more_outputs: tuple[str, ...] = ()


def graphs_of(policy: DiffusionPolicy) -> tuple[dict[str, Graph], Tensor]:
    """Graphs by name (instruction, encoder_V for each camera, condition, denoiser), and the table of iterations (K,
    ...)."""
    config = policy.config
    with torch.inference_mode():
        table = policy.network.embed(torch.arange(config.diffusion.iterations))
        obs = torch.zeros(1, policy.encoder.out_dim)
        condition = policy.network.condition(obs)
    graphs = {}
    told = config.instruction
    if told:
        embedding = {"embedding": torch.zeros(1, told.embedding_dim)}
        graphs["instruction"] = Graph(InstructionGraph(policy).eval(), embedding, "told")
    for view, camera in enumerate(config.encoder.cameras):
        encoder = policy.encoder.cameras[view % len(policy.encoder.cameras)]
        picture = torch.zeros(*config.encoder.crop(camera), 3, dtype=torch.uint8)
        seen = {"picture": picture} | ({"told": torch.zeros(1, told.features)} if told else {})
        assert isinstance(encoder, ResNetEncoder)
        graphs[f"encoder_{view}"] = Graph(EncoderGraph(encoder).eval(), seen, "features", ("keypoints",))
    graphs["condition"] = Graph(ConditionGraph(policy).eval(), {"obs": obs}, "condition")
    x = torch.zeros(1, config.horizons.T_p, config.action.dim)
    inputs = {"x": x, "step": table[:1].clone(), "condition": condition.clone()}
    graphs["denoiser"] = Graph(DenoiserGraph(policy).eval(), inputs, "noise")
    return graphs, table.clone()


def _exportable(module: Module) -> Module:
    """A copy in the plain memory layout, without nn.GroupNorm."""
    module = copy.deepcopy(module).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(parent, name, PlainGroupNorm(child))
    return module
