"""One method trained on the bimodal toy. Every random number is drawn from (seed, step), as in the trainer."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from dp_ros.baselines.config import BimodalToyConfig, Method
from dp_ros.baselines.methods.mlp import count_parameters
from dp_ros.baselines.methods.policy import ChunkPolicy, StateEncoder, make_head
from dp_ros.baselines.toy.paths import ACTION_DIM, STATE_DIM, demonstrations
from dp_ros.train.optimizer import Optimizer
from dp_ros.train.stopping import TrainingError


class ToyTraining:
    """A run in memory. It takes seconds, so it cannot be resumed."""

    def __init__(self, config: BimodalToyConfig, method: Method, seed: int) -> None:
        self.config, self.method, self.seed = config, method, seed
        state, paths = demonstrations(config)
        self._state = torch.from_numpy(state).float()[:, None]  # (N, T_o = 1, STATE_DIM)
        self._paths = torch.from_numpy(paths).float()
        stats = {
            name: {"low": values.min((0, 1)).tolist(), "high": values.max((0, 1)).tolist()}
            for name, values in (("action", paths), ("state", state[:, None]))
        }
        torch.manual_seed(seed)  # initial weights
        head = make_head(
            method,
            T_p=config.T_p,
            action_dim=ACTION_DIM,
            obs_dim=STATE_DIM,
            unet=config.unet,
            diffusion=config.diffusion,
            heads=config.heads,
        )
        self.parameters = count_parameters(head)
        policy = ChunkPolicy(StateEncoder(), head, STATE_DIM, stats)
        self._optimizer = Optimizer(policy, config, config.steps)

    def run(self, on_evaluation: Callable[[int, float, ChunkPolicy], None]) -> None:
        """Train; `on_evaluation` gets (step, mean loss since the last call, EMA policy)."""
        config = self.config
        losses: list[float] = []
        for step in range(config.steps):
            losses.append(self._train_step(step))
            if (step + 1) in config.evaluation_steps:
                on_evaluation(step + 1, float(np.mean(losses)), self._optimizer.ema)
                losses.clear()

    def _train_step(self, step: int) -> float:
        config, optimizer = self.config, self._optimizer
        rng = np.random.default_rng([self.seed, 1, step])
        rows = torch.from_numpy(rng.choice(len(self._state), config.batch_size, replace=False))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        state, paths = self._state[rows], self._paths[rows]
        loss = optimizer.policy.loss(None, state, paths, generator, config.noise_samples)
        loss.backward()
        norm, value = optimizer.clip_gradient(), loss.item()
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise TrainingError(
                f"{self.method}, seed {self.seed}: the loss became {value}, its gradient {norm}, at step {step}: "
                "lower lr"
            )
        optimizer.update()
        return value
