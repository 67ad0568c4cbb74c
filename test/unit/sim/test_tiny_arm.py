"""The tiny arm: its task, its tool at an angle, and a policy that learns it in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco")

from dp_ros.poses import angle_rad, orientation_of
from dp_ros.schema import CollectConfig, RuntimeConfig, TrainConfig
from dp_ros.sim.arm import ArmSpec
from dp_ros.sim.rendering import RenderingError, choose_backend
from dp_ros.sim.tiny_arm import GOAL_Y_M, TILT_DEG, TinyArm

pytestmark = pytest.mark.sim

DOWN = np.array([0.0, 1.0, 0.0, 0.0])


def solved(arm: TinyArm, seed: int, command: Callable[[TinyArm], np.ndarray]) -> bool:
    arm.reset(seed)
    while not arm.success and arm.steps < 60:
        arm.advance(command(arm))
    return arm.success


def straight_ahead(arm: TinyArm) -> np.ndarray:
    x, _, _ = arm.target_m
    return np.array([x, GOAL_Y_M, 0.03, 1.0])


def test_expert_solves_every_seed_and_pushing_straight_ahead_few() -> None:
    arm = TinyArm(ArmSpec("tiny-push"))
    assert all(solved(arm, seed, TinyArm.expert_command) for seed in range(40))
    assert 2 < sum(solved(arm, seed, straight_ahead) for seed in range(40)) < 20


def test_block_stays_where_it_was_pushed_to() -> None:
    arm = TinyArm(ArmSpec("tiny-push"))
    assert solved(arm, 0, TinyArm.expert_command)
    for _ in range(40):
        arm.advance(arm.expert_command())
    assert arm.success
    pushed = arm.simulator_state()
    arm.advance(arm.expert_command())
    np.testing.assert_allclose(arm.simulator_state(), pushed, atol=1e-4)


@pytest.mark.parametrize(("task", "tilt_deg"), TILT_DEG.items())
def test_tool_is_measured_at_its_angle_and_moves_as_without(task: str, tilt_deg: float) -> None:
    plain, tilted = TinyArm(ArmSpec("tiny-push")), TinyArm(ArmSpec(task))
    a, b = plain.reset(3), tilted.reset(3)
    for _ in range(10):
        orientation = orientation_of(b.ee_pose)
        assert np.degrees(angle_rad(orientation, DOWN)) == pytest.approx(tilt_deg, abs=1e-6)
        np.testing.assert_array_equal(b.ee_position_m, a.ee_position_m)
        a, b = plain.step(plain.expert_command()), tilted.step(tilted.expert_command())


def test_arm_is_made_in_milliseconds() -> None:
    """Of the processor's time: a busy machine takes longer."""
    TinyArm(ArmSpec("tiny-push"))  # what is loaded once does not count
    took_s = []
    for _ in range(5):
        began = time.thread_time()
        arm = TinyArm(ArmSpec("tiny-push", ("gripperPOV",)))
        took_s.append(time.thread_time() - began)
        arm.close()
    assert min(took_s) < 0.05


@pytest.mark.slow
def test_policy_trained_for_seconds_solves_unseen_seeds(tmp_path: Path, one_thread: None) -> None:
    """From the camera and the proprioception, of which the latter shows most of what varies: the hand's start."""
    from dp_ros.evaluation.disturbances import NONE
    from dp_ros.evaluation.rollout import EvalConfig, run_episodes
    from dp_ros.train.collect import collect
    from dp_ros.train.run import make_trainer

    try:
        choose_backend()
    except RenderingError as error:
        pytest.skip(str(error))
    demonstrations = CollectConfig(
        task="tiny-push", episodes=30, width_px=36, height_px=36, noise=(0.0, 0.5), keep_steps=3
    )
    assert collect(demonstrations, tmp_path / "data", jobs=1) == {demonstrations.task: (30, 30)}
    encoder = {"height_px": 36, "width_px": 36, "crop_height_px": 32, "crop_width_px": 32, "stages": 2}
    policy = {
        "task": "tiny-push",
        "rate_hz": 20,
        "horizons": {"T_o": 1, "T_p": 4, "T_a": 4},
        "encoder": {**encoder, "keypoints": 16, "feature_dim": 32, "proprioception": True},
        "unet": {"channels": [64], "groups": 4, "step_embedding_dim": 32},
        "diffusion": {"iterations": 20, "sampler_iterations": 10},
    }
    lengths = {"steps": 250, "batch_size": 8, "noise_samples": 32, "warmup_steps": 10, "log_every": 50}
    training = TrainConfig.model_validate({"policy": policy, "lr": 3e-3, "device": "cpu", **lengths})
    make_trainer(training, tmp_path / "data", tmp_path / "run").run(lambda progress: None)
    # By name: `auto` takes the engine that is faster at the moment, and its export takes longer than all episodes.
    runtime = RuntimeConfig(mode="lockstep", threads=1, engine="torch")
    setting = EvalConfig(str(tmp_path / "run" / "checkpoint"), "tiny-push", runtime, max_steps=60)
    results = [episode.result for episode in run_episodes(setting, [(seed, NONE) for seed in range(10)])]
    assert sum(result.success for result in results) >= 7
