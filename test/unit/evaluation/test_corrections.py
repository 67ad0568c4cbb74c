"""Corrections: the policy moves the arm, and the episode is recorded from where the expert takes over."""

from __future__ import annotations

from dataclasses import replace
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


def record(path: Path, corrected: Corrections, **changes: Any) -> Dataset:
    collect(config(**changes), path, 1, demonstrate=corrected, weights_sha256=corrected.weights_sha256)
    return load(path)


def test_episodes_begin_where_the_policy_got_to(checkpoint: Path, arm: SimulatedArm, tmp_path: Path) -> None:
    corrected = Corrections.of(checkpoint, config(), [TASK])
    dataset = record(tmp_path / "d", corrected)
    assert dataset.seed is not None
    starts = np.array([arm.reset(int(seed)).ee_position_m for seed in dataset.seed])
    assert (np.abs(first_positions_m(dataset) - starts).max(1) > 1e-3).all()
    np.testing.assert_array_equal(dataset.action, dataset.command)  # without noise, the expert's own
    settings = dataset.attributes["collect"]
    stored = settings["policy"], settings["policy_ticks"], settings["policy_sha256"]
    assert stored == ("run", 12, corrected.weights_sha256)
    merged, _ = load_merged([tmp_path / "d"], ("gripperPOV",), memory_bytes=1e9)
    for each in (dataset, merged):
        assert each.is_correction.all()


def test_interrupted_collection_continues_to_the_same_dataset(checkpoint: Path, tmp_path: Path) -> None:
    corrected = Corrections.of(checkpoint, config(), [TASK])
    whole = record(tmp_path / "whole", corrected)
    more: dict[str, Any] = {"demonstrate": corrected, "weights_sha256": corrected.weights_sha256}

    def stop(task: str, kept: int, tried: int) -> None:
        if kept:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(config(), tmp_path / "cut", 1, stop, **more)
    collect(config(), tmp_path / "cut", 2, **more)  # nor does the number of processes matter
    other = load(tmp_path / "cut")
    np.testing.assert_array_equal(whole.action, other.action)
    np.testing.assert_array_equal(whole.images["gripperPOV"], other.images["gripperPOV"])


class Solves:
    """An engine whose plans solve the task: the expert's command, again and again."""

    def __init__(self, policy: PolicyConfig, arm: SimulatedArm) -> None:
        self.config, self._arm = override(policy, {"action.position": "absolute"}), arm

    def __call__(self, request: PlanRequest) -> NDArray[np.float64]:
        return np.repeat(self._arm.expert_command()[None], self.config.horizons.T_p, axis=0)


def test_expert_takes_over_before_the_policy_succeeds(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    late = {"policy_ticks": 490, "max_steps": 500}  # most draws are after the success
    corrected = Corrections.of(checkpoint, config(**late), [TASK])
    policy = corrections._loaded(corrected)[0].config
    engine = Solves(policy, arm_of_process(ArmSpec.of(config())))
    monkeypatch.setattr(corrections, "_loaded", lambda _: (engine, None))
    dataset = record(tmp_path / "d", corrected, **late)
    whole = CollectConfig(**{**config().model_dump(), "policy": ""})
    collect(whole, tmp_path / "whole", 1)
    alone = load(tmp_path / "whole")
    assert dataset.seed is not None
    assert alone.seed is not None
    np.testing.assert_array_equal(dataset.seed, alone.seed)
    left, all_ticks = (np.diff(each.episode_ends, prepend=0) for each in (dataset, alone))
    assert (left > 1).all()  # none begins with the task already solved
    assert (left < all_ticks).all()  # the policy has done a part of each
    assert len(np.unique(left)) > 1  # not the same part


def test_policy_that_cannot_begin_makes_no_episode(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    corrected = Corrections.of(checkpoint, config(), [TASK])
    covered = np.zeros((36, 36, 3), dtype=np.uint8)
    arm = arm_of_process(ArmSpec.of(config()))
    monkeypatch.setattr(arm, "render", lambda *_: covered)
    with pytest.raises(DatasetError, match=r"failed 20 times in a row: .* or lower policy_ticks 12"):
        record(tmp_path / "d", corrected)


def test_other_weights_do_not_continue_a_dataset(checkpoint: Path, tmp_path: Path) -> None:
    corrected = Corrections.of(checkpoint, config(), [TASK])
    record(tmp_path / "d", corrected, episodes=1)
    with pytest.raises(DatasetError, match=r"collect\.policy_sha256 = '\w+', not 'cd'"):
        record(tmp_path / "d", replace(corrected, weights_sha256="cd"))


def test_setting_of_a_policy_is_kept_only_where_there_is_one() -> None:
    """So that demonstrations of an older version are resumed."""
    assert "policy_ticks" in config().model_dump()
    assert not {"policy", "policy_ticks"} & CollectConfig().model_dump().keys()


def test_policy_that_cannot_move_the_arm_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="needs the camera gripperPOV: add it"):
        Corrections.of(checkpoint, config(cameras=("behindGripper",)), [TASK])
    with pytest.raises(ConfigError, match="runs at 20 Hz, the simulated arm at 80 Hz"):
        Corrections.of(checkpoint, config(), ["reach-v3"])
