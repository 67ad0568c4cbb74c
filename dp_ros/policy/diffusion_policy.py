"""Diffusion Policy: a window of frames in, a chunk of actions out. The whole method in one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dp_ros.actions import POSITION, STATE_DIM, PositionKind
from dp_ros.policy.encoder import ObservationEncoder, Pictures
from dp_ros.policy.noise_schedule import NoiseSchedule
from dp_ros.policy.normalizer import LimitsNormalizer
from dp_ros.policy.sampler import Known, SamplerStep, sample, sampler_steps
from dp_ros.policy.transformer import ConditionalTransformer
from dp_ros.policy.unet import ConditionalUnet1D
from dp_ros.schema import PolicyConfig

Relabel = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # see `DiffusionPolicy.loss`


class DiffusionPolicy(nn.Module):
    """Encoder, denoising network, noise schedule and normalisers. No episode state; randomness is an argument."""

    def __init__(self, config: PolicyConfig, stats: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = config
        self.encoder = ObservationEncoder(config.encoder, config.horizons.T_o, config.instruction)
        self.network = _network(config, self.encoder.out_dim)
        self.schedule = NoiseSchedule(config.diffusion)
        self.action_normalizer = LimitsNormalizer.from_stats(stats, "action", config.action.dim)
        self.state_normalizer = LimitsNormalizer.from_stats(stats, "state", STATE_DIM)

    def stats(self) -> dict[str, dict[str, list[float]]]:
        """Statistics of the normalisers, as stats.json holds them."""
        return {"action": self.action_normalizer.stats(), "state": self.state_normalizer.stats()}

    def no_decay_parameters(self) -> list[nn.Parameter]:
        """Parameters of the network without weight decay."""
        return self.network.no_decay_parameters()

    def encode(
        self,
        images: Pictures,
        state: Tensor,
        frames: Tensor | None = None,
        instruction: Tensor | None = None,
    ) -> Tensor:
        """images: V of (B, T_o, 3, H, W) in [0, 1], cropped; state (B, T_o, STATE_DIM), not normalised; instruction (B,
        embedding_dim) where the config has one -> (B, obs_dim).

        For one tensor of images, and for `frames` of windows that share images: see ObservationEncoder. images may also
        be features that were computed before, V of (B, T_o, feature_dim).
        """
        nstate = self.state_normalizer.normalise_input(state)
        if not isinstance(images, Tensor) and images[0].ndim == 3:
            return self.encoder.join(images, nstate, self.encoder.tell(instruction))
        return self.encoder(images, nstate, frames, instruction)

    def loss(
        self,
        images: Pictures,
        state: Tensor,
        actions: Tensor,
        generator: torch.Generator,
        noise_samples: int = 1,
        *,
        frames: Tensor | None = None,
        instruction: Tensor | None = None,
        part: tuple[int, int] = (0, 1),
        executed: Tensor | None = None,
        relabel: Relabel | None = None,
    ) -> Tensor:
        """Mean squared error of the predicted noise (Chi et al. 2023, eq. 5) or of the predicted chunk: a scalar.

        images, state, frames and instruction as in `encode`; actions (B, T_p, D) of the declared kinds, not normalised.
        noise_samples: targets drawn for each window. The encoder, the most expensive part, runs once for all of them.
        part (i, n): these windows are part i of n equal parts of a batch. The noise of the whole batch is drawn, so
        the number of parts does not change the loss.

        With a `prefix`, 0 to `prefix` first actions of each chunk are given to the network as they were `executed` (as
        actions; None: equal to them), and do not count (training-time action conditioning, Black et al. 2025b). The
        others continue from them: see `continued`.

        relabel: gives what the network shall predict, from its input (noisy actions (B, T_p, D), k (B,), obs (B,
        obs_dim)) and from what it would predict otherwise, (B, T_p, D).
        """
        obs = self.encode(images, state, frames, instruction).repeat_interleave(noise_samples, dim=0)
        nactions = self.action_normalizer.normalise(actions).repeat_interleave(noise_samples, dim=0)
        i, n = part
        whole = (n * len(nactions), *nactions.shape[1:])
        noise = torch.randn(whole, generator=generator).chunk(n)[i].to(nactions.device)
        k = torch.randint(0, self.schedule.iterations, whole[:1], generator=generator).chunk(n)[i]
        k = k.to(nactions.device)
        predicts_noise, prefix = self.config.diffusion.prediction == "epsilon", self.config.diffusion.prefix

        def label(shown: Tensor, nactions: Tensor) -> Tensor:
            wanted = noise if predicts_noise else nactions
            return relabel(shown, k, obs, wanted) if relabel else wanted

        if not prefix:
            noisy = self.schedule.add_noise(nactions, noise, k)
            return F.mse_loss(self.network(noisy, k, obs).float(), label(noisy, nactions))
        length = torch.randint(0, prefix + 1, whole[:1], generator=generator).chunk(n)[i].to(nactions.device)
        nexecuted = nactions
        if executed is not None:
            nexecuted = self.action_normalizer.normalise(executed).repeat_interleave(noise_samples, dim=0)
        nactions = continued(nactions, nexecuted, length, self.config.action.position)
        is_free = (torch.arange(whole[1], device=length.device) >= length[:, None])[..., None]
        shown = torch.where(is_free, self.schedule.add_noise(nactions, noise, k), nexecuted)
        error = self.network(shown, k, obs).float() - label(shown, nactions)
        return (error.square() * is_free).sum() / (is_free.sum() * whole[2])

    @torch.inference_mode()
    def plan(
        self,
        images: Pictures,
        state: Tensor,
        generator: torch.Generator,
        *,
        instruction: Tensor | None = None,
    ) -> Tensor:
        """One plan: encode once, denoise, un-normalise. images and instruction as in `encode`; state (B, T_o,
        STATE_DIM) -> actions (B, T_p, D) of the declared kinds, in metres and [-1, 1].

        generator: a CPU generator, so that a plan is the same on every device up to rounding.
        """
        shape = (len(state), self.config.horizons.T_p, self.config.action.dim)
        return self.plan_from(
            images, state, lambda: torch.randn(shape, generator=generator), instruction=instruction
        )

    @torch.inference_mode()
    def plan_from(
        self,
        images: Pictures,
        state: Tensor,
        draw: Callable[[], Tensor],
        steps: Sequence[SamplerStep] | None = None,
        known: Known[Tensor] | None = None,
        instruction: Tensor | None = None,
        guess: Tensor | None = None,
    ) -> Tensor:
        """`plan` with the noise that `draw` gives, (B, T_p, D) on the CPU; the sampler's steps, None: the config's;
        actions that the chunk must contain; and a normalised chunk to begin at: see `sample`."""
        steps = sampler_steps(self.config.diffusion) if steps is None else steps
        nactions = sample(
            denoiser(self.network, self.encode(images, state, instruction=instruction), steps),
            draw().to(state.device),
            steps,
            self.config.diffusion.clip,
            lambda: draw().to(state.device),
            known,
            guess,
        )
        return self.action_normalizer.unnormalise(nactions)


def continued(nactions: Tensor, nexecuted: Tensor, length: Tensor, kind: PositionKind) -> Tensor:
    """Labels (B, T_p, D) that continue where the first `length` (B,) actions, as executed, have led; all normalised.

    Relative positions are sums of the expert's steps, so they are moved to begin there. Other kinds do not depend on
    the actions before.
    """
    if kind != "relative":
        return nactions
    last = (length - 1).clamp(min=0)[:, None, None].expand(-1, 1, nactions.shape[2])
    moved = (nexecuted - nactions).gather(1, last) * (length > 0)[:, None, None]
    shift = torch.zeros_like(nactions)
    shift[..., POSITION.slice] = moved[..., POSITION.slice]
    return nactions + shift


def denoiser(
    network: ConditionalUnet1D | ConditionalTransformer, obs: Tensor, steps: Sequence[SamplerStep]
) -> Callable[[Tensor, int], Tensor]:
    """The `denoise` of `sample`, for obs (B, obs_dim): all that does not depend on the actions is computed once."""
    condition = network.condition(obs)
    ks = torch.tensor([step.k for step in steps], device=obs.device)
    embedded = dict(zip(ks.tolist(), network.embed(ks, obs.dtype).split(1), strict=True))
    return lambda x, k: network.denoise(x, embedded[k], condition)


def _network(config: PolicyConfig, obs_dim: int) -> ConditionalUnet1D | ConditionalTransformer:
    """The network that the config names: (noisy actions (B, T_p, D), k (B,), obs (B, obs_dim)) -> predicted noise."""
    if config.network == "unet":
        return ConditionalUnet1D(config.action.dim, obs_dim, config.unet)
    return ConditionalTransformer(config.action.dim, obs_dim, config.horizons, config.transformer)
