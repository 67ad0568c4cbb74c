"""Implicit policy (Florence et al. 2021): an energy of observation and chunk, lowest at the demonstrated chunk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from dp_ros.baselines.config import ImplicitConfig
from dp_ros.baselines.methods.head import ActionHead
from dp_ros.baselines.methods.mlp import matched_mlp

Energy = Callable[[Tensor], Tensor]  # chunks (B, N, T_p, D) -> (B, N)


class ImplicitHead(ActionHead):
    """Energy network, trained to tell the demonstrated chunk from counter-examples."""

    def __init__(
        self, T_p: int, action_dim: int, obs_dim: int, config: ImplicitConfig, blocks: int, parameters: int
    ) -> None:
        super().__init__(T_p, action_dim)
        self.config = config
        self.network = matched_mlp((obs_dim, self.chunk_dim), 1, blocks, parameters)

    def energy(self, nactions: Tensor, obs: Tensor) -> Tensor:
        """nactions (B, N, T_p, D); obs (B, obs_dim) -> (B, N)."""
        return self.network(obs[:, None], nactions.flatten(2))[..., 0].float()

    def loss(
        self, nactions: Tensor, obs: Tensor, generator: torch.Generator, noise_samples: int = 1
    ) -> Tensor:
        """InfoNCE (eq. 2). The share `searched` of the counter-examples comes from the present search, some from each
        of its rounds, as in the paper's Langevin variant; uniform ones are soon too easy. The rest is uniform."""
        config = self.config
        uniform = self._uniform(len(obs), config.negatives, generator).to(obs.device)
        each = round(config.searched * config.negatives / config.training_rounds)
        rounds = config.training_rounds if each else 0
        with torch.no_grad():
            found = search(lambda chunks: self.energy(chunks, obs), uniform, config, rounds, generator)
            hard = [candidates[:, :each] for candidates in found]
        easy = uniform[:, : config.negatives - each * len(hard)]
        return info_nce(self.energy(torch.cat([nactions[:, None], easy, *hard], dim=1), obs))

    def sample(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        config = self.config
        candidates = self._uniform(len(obs), config.candidates, generator).to(obs.device)
        return minimise(lambda chunks: self.energy(chunks, obs), candidates, config, generator)

    def _uniform(self, windows: int, count: int, generator: torch.Generator) -> Tensor:
        """Uniform chunks in [-1 - margin, 1 + margin]: (windows, count, T_p, D)."""
        unit = torch.rand(windows, count, self.T_p, self.action_dim, generator=generator)
        return (2.0 * unit - 1.0) * (1.0 + self.config.margin)


def info_nce(energies: Tensor) -> Tensor:
    """Mean of -log(exp(-E_0) / sum_n exp(-E_n)), where E_0 is of the demonstrated chunk. energies (B, 1 + N)."""
    return F.cross_entropy(-energies, torch.zeros(len(energies), dtype=torch.long, device=energies.device))


def minimise(
    energy: Energy, candidates: Tensor, config: ImplicitConfig, generator: torch.Generator
) -> Tensor:
    """Chunk of the lowest energy that the search finds. candidates (B, N, T_p, D) -> (B, T_p, D)."""
    found = candidates
    for found in search(energy, candidates, config, config.iterations, generator):  # noqa: B007 - keep the last
        pass
    return found[torch.arange(len(found), device=found.device), energy(found).argmin(dim=-1)]


def search(
    energy: Energy, candidates: Tensor, config: ImplicitConfig, rounds: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Derivative-free search (algorithm 1) from candidates (B, N, T_p, D); yields (B, N, T_p, D) after each round.

    Each round resamples the candidates by their probability, then adds noise. The noise shrinks from `noise_std` in
    the first round to `last_noise_std` in the last.
    """
    bound = 1.0 + config.margin
    rows = torch.arange(len(candidates), device=candidates.device)[:, None]
    for std in torch.logspace(
        math.log10(config.noise_std), math.log10(config.last_noise_std), rounds
    ).tolist():
        probability = torch.softmax(-energy(candidates), dim=-1).cpu()
        chosen = torch.multinomial(probability, candidates.shape[1], replacement=True, generator=generator)
        noise = torch.randn(candidates.shape, generator=generator).to(candidates.device)
        candidates = (candidates[rows, chosen.to(candidates.device)] + std * noise).clamp(-bound, bound)
        yield candidates
