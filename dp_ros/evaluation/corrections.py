"""Corrections: a policy moves the arm, then the expert takes over and solves the task from where the policy got to.

The policy is trained on the states that it reaches itself, as in DAgger (Ross et al. 2011). The expert's actions move
the arm, so that whole chunks of them are recorded (HG-DAgger, Kelly et al. 2019, with the time of the takeover drawn).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from dp_ros.evaluation.episode import run_episode
from dp_ros.evaluation.rollout import check_rate
from dp_ros.evaluation.told import embedding_of, instruction_for
from dp_ros.inference.engine import Engine, choose_engine, load_engine
from dp_ros.policy.checkpoint_config import check_weights, instructions_of, policy_config, weights_sha256
from dp_ros.policy.instructions import Instructions
from dp_ros.schema import CollectConfig, ConfigError, RuntimeConfig
from dp_ros.sim.arm import ArmSpec
from dp_ros.sim.experts import Demonstration, take_over
from dp_ros.train.collect import arm_of_process

_TAKEOVER = 1  # stream of random numbers, beside the expert's noise


@dataclass(frozen=True)
class Corrections:
    """Maker of the episodes for `dp_ros.train.collect.collect`; each process loads the policy once."""

    checkpoint: str
    runtime: RuntimeConfig
    weights_sha256: str

    @classmethod
    def of(cls, checkpoint: Path, config: CollectConfig, tasks: Sequence[str]) -> Corrections:
        """ConfigError, InstructionError, CheckpointError: the policy cannot move the arm of the config in each task."""
        needed = policy_config(checkpoint).encoder.cameras
        if missing := [camera for camera in needed if camera not in config.cameras]:
            raise ConfigError(
                f"{checkpoint}: needs the camera {', '.join(missing)}: add it, or leave --camera out for those of the "
                "policy"
            )
        known = instructions_of(checkpoint)
        for task in tasks:
            check_rate(policy_config(checkpoint), task, str(checkpoint))
            instruction_for(known, task, config.first_seed)
        # On the processor: each core has a process, and a GPU has no memory for as many.
        wanted = RuntimeConfig(mode="lockstep", threads=1, device="cpu", precision="f32")
        runtime, _ = choose_engine(checkpoint, wanted)
        return cls(str(checkpoint.absolute()), runtime, weights_sha256(checkpoint))

    def __call__(self, config: CollectConfig, index: int) -> Demonstration | None:
        """None where the policy cannot begin, or the expert does not succeed in the time that is left.

        The expert takes over at a tick drawn from 1 to `policy_ticks`; where the policy has succeeded by then, at one
        drawn from the ticks before.
        """
        engine, known = _loaded(self)
        arm, seed = arm_of_process(ArmSpec.of(config)), config.first_seed + index
        sentence = instruction_for(known, config.task, seed)
        embedding = embedding_of(known, sentence) if known else None
        rng = np.random.default_rng([seed, _TAKEOVER])
        ticks = int(rng.integers(1, config.policy_ticks + 1))
        _, trace = run_episode(
            arm, engine, engine.config, self.runtime, seed, max_steps=ticks, instruction=embedding
        )
        if not len(trace.command):
            return None
        if arm.success:
            ticks = int(rng.integers(0, arm.steps))
            arm.reset(seed)
            for command in trace.command[:ticks]:
                arm.advance(command)
        noise = config.noise[index % len(config.noise)]
        return take_over(arm, arm.observe(), seed, noise, config.max_steps, config.keep_steps)


@lru_cache(maxsize=1)
def _loaded(corrections: Corrections) -> tuple[Engine, Instructions | None]:
    """The policy in this process, and the sentences that it knows."""
    engine = load_engine(corrections.checkpoint, corrections.runtime)
    check_weights(corrections.checkpoint, corrections.weights_sha256)
    return engine, instructions_of(corrections.checkpoint)
