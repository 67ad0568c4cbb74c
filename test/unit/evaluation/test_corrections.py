"""Corrections: the policy moves the arm, and the episode is recorded from where the expert takes over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dp_ros.control.planner import PlanRequest
from dp_ros.data.episodes import Dataset, DatasetError, load
from dp_ros.data.merged import load_merged
from dp_ros.evaluation import corrections
from dp_ros.evaluation.corrections import Corrections
from dp_ros.policy.checkpoint import save_checkpoint
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import CollectConfig, ConfigError, PolicyConfig, override
from dp_ros.sim.arm import ArmSpec, SimulatedArm, make_arm
from dp_ros.train.collect import arm_of_process, collect

TASK = "tiny-push"
pytestmark = [pytest.mark.sim, pytest.mark.usefixtures("one_thread")]


def config(**changes: Any) -> CollectConfig:
    settings = {
        **{"task": TASK, "episodes": 3, "width_px": 36, "height_px": 36, "max_steps": 200, "keep_steps": 0},
        **{"policy": "run", "policy_ticks": 12},
    }
    return CollectConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def checkpoint(
    tiny_policy: PolicyConfig, stats: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    torch.manual_seed(0)
    camera = {"encoder.cameras": ["gripperPOV"], "encoder.width_px": 36, "encoder.height_px": 36}
    policy = override(tiny_policy, {"rate_hz": 20, "diffusion.sampler_iterations": 2, **camera})
    return save_checkpoint(DiffusionPolicy(policy, stats), tmp_path_factory.mktemp("corrections") / "run")


@pytest.fixture
def arm() -> SimulatedArm:
    return make_arm(ArmSpec(TASK))


def first_positions_m(dataset: Dataset) -> NDArray[np.float64]:
    """(E, 3): where the hand is in each episode's first row."""
    return dataset.ee_pose[np.concatenate([[0], dataset.episode_ends[:-1]])][:, :3]


def test_episodes_begin_where_the_policy_got_to_and_end_in_success(
    checkpoint: Path, arm: SimulatedArm, tmp_path: Path
) -> None:
    corrected = Corrections.of(checkpoint, config(), [TASK])
    done = collect(config(), tmp_path / "d", 1, demonstrate=corrected, weights_sha256="ab")
    dataset = load(tmp_path / "d")
    seeds = dataset.seed
    assert seeds is not None
    assert (done, len(seeds)) == ({TASK: (3, done[TASK][1])}, 3)
    starts = np.array([arm.reset(int(seed)).ee_position_m for seed in seeds])
    moved_m = np.abs(first_positions_m(dataset) - starts).max(1)
    assert (moved_m > 1e-3).all()
    np.testing.assert_array_equal(dataset.action, dataset.command)  # without noise, the expert's own
    settings = dataset.attributes["collect"]
    assert (settings["policy"], settings["policy_ticks"], settings["policy_sha256"]) == ("run", 12, "ab")
    merged, _ = load_merged([tmp_path / "d"], ("gripperPOV",), memory_bytes=1e9)
    assert merged.corrected is not None
    assert merged.corrected.all()


def test_episodes_do_not_depend_on_the_number_of_processes(checkpoint: Path, tmp_path: Path) -> None:
    corrected = Corrections.of(checkpoint, config(), [TASK])
    one, two = (
        collect(config(), tmp_path / str(jobs), jobs, demonstrate=corrected) and load(tmp_path / str(jobs))
        for jobs in (1, 2)
    )
    np.testing.assert_array_equal(one.action, two.action)
    np.testing.assert_array_equal(one.images["gripperPOV"], two.images["gripperPOV"])


class Solves:
    """An engine whose plans solve the task: the expert's command, again and again."""

    def __init__(self, policy: PolicyConfig, arm: SimulatedArm) -> None:
        self.config, self._arm = override(policy, {"action.position": "absolute"}), arm

    def __call__(self, request: PlanRequest) -> NDArray[np.float64]:
        return np.repeat(self._arm.expert_command()[None], self.config.horizons.T_p, axis=0)


def test_expert_takes_over_before_the_policy_succeeds(
    checkpoint: Path, tiny_policy: PolicyConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    corrected = Corrections.of(checkpoint, config(policy_ticks=190), [TASK])
    policy = corrections._loaded(corrected)[0].config
    engine = Solves(policy, arm_of_process(ArmSpec.of(config())))
    monkeypatch.setattr(corrections, "_loaded", lambda _: (engine, None))
    done = collect(config(policy_ticks=190), tmp_path / "d", 1, demonstrate=corrected)
    dataset = load(tmp_path / "d")
    assert done == {TASK: (3, 3)}
    lengths = np.diff(dataset.episode_ends, prepend=0)
    assert (lengths > 0).all()
    assert len(np.unique(lengths)) > 1  # the takeover is drawn


def test_other_weights_do_not_continue_a_dataset(checkpoint: Path, tmp_path: Path) -> None:
    corrected = Corrections.of(checkpoint, config(), [TASK])
    collect(config(episodes=1), tmp_path / "d", 1, demonstrate=corrected, weights_sha256="ab")
    with pytest.raises(DatasetError, match=r"collect\.policy_sha256 = 'ab', not 'cd'"):
        collect(config(), tmp_path / "d", 1, demonstrate=corrected, weights_sha256="cd")


def test_policy_that_cannot_move_the_arm_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="needs the camera gripperPOV: add it"):
        Corrections.of(checkpoint, config(cameras=("behindGripper",)), [TASK])
    with pytest.raises(ConfigError, match="runs at 20 Hz, the simulated arm at 80 Hz"):
        Corrections.of(checkpoint, config(), ["reach-v3"])
