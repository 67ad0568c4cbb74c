"""Student of a diffusion policy: the same network, trained to give the teacher's chunk in one or two calls.

The teacher's DDIM sampler is deterministic: a window and a first noise give one chunk. The student learns this map by
regression (the direct form of progressive distillation, Salimans & Ho 2022), from the first noise and, for the calls
after the first, from the states to which its own calls lead. It predicts the clean chunk, because no chunk can be
computed from noise predicted at the noisiest iteration, where alpha is near 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dp_ros.policy.diffusion_policy import DiffusionPolicy, Relabel, denoiser
from dp_ros.policy.encoder import Pictures
from dp_ros.policy.sampler import sampler_steps
from dp_ros.schema import PolicyConfig


class Student(DiffusionPolicy):
    """A policy that begins with its teacher's weights; `loss` is the distance from given chunks.

    It has no dropout, because its labels are exact. Its checkpoint is that of any DiffusionPolicy.
    """

    def __init__(self, config: PolicyConfig, teacher: DiffusionPolicy, *, train_encoder: bool) -> None:
        """config: the teacher's, with the student's sampler."""
        super().__init__(config, teacher.stats())
        self.load_state_dict(teacher.state_dict())
        self._steps = sampler_steps(config.diffusion)
        self.encoder.requires_grad_(train_encoder)
        self.eval()

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
        noise: Tensor | None = None,
    ) -> Tensor:
        """Mean squared distance, normalised, between `actions` and the network's chunk after each call: a scalar.

        Arguments as in `DiffusionPolicy.loss`; a student has no `prefix` and no `relabel`. actions: the teacher's
        chunks for the first noise (B, T_p, D). Without a noise, it is drawn, and the demonstrated actions are compared
        with.
        """
        obs = self.encode(images, state, frames)
        wanted = self.action_normalizer.normalise(actions)
        if noise is None:
            noise = torch.randn(wanted.shape, generator=generator).to(wanted.device)
        denoise = denoiser(self.network, obs, self._steps)
        x, before, losses = noise, None, []
        for step in self._steps:
            predicted = denoise(x, step.k).float()
            losses.append(F.mse_loss(predicted, wanted))
            x, before = step.update(x, predicted.detach(), before, self.config.diffusion.clip)
        return torch.stack(losses).mean()
