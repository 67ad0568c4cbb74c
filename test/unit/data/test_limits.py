"""Limits proposed from demonstrations: they let the motion pass, in SI units at any rate, and no leap sets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from dp_ros.cli import main
from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import Dataset, DatasetError
from dp_ros.data.limits import motion_of, proposed_gate
from dp_ros.data.reader import StoredEpisode
from dp_ros.schema import GateConfig, parse

PATH = Path("data")


def dataset(positions: list[np.ndarray], rate_hz: float = 20.0, gripper: float | np.ndarray = 0.0) -> Dataset:
    """Episodes whose commands are at these positions, and whose arm is 5 mm behind in x."""
    commands = [np.column_stack([p, np.broadcast_to(gripper, len(p))]) for p in positions]
    command = np.concatenate(commands)
    return Dataset(
        images={},
        ee_pose=command[:, :3] - [0.005, 0.0, 0.0],
        gripper=np.zeros(len(command)),
        action=command,
        command=command,
        episode_ends=np.cumsum([len(p) for p in positions]),
        attributes={"rate_hz": rate_hz},
    )


def sweep(rate_hz: float, amplitude_m: float = 0.1, seconds: float = 10.0) -> np.ndarray:
    """Along x, as a sine of one second; its highest speed is 2 pi amplitude."""
    at_s = np.arange(0.0, seconds, 1.0 / rate_hz)
    zero = np.zeros(len(at_s))
    return np.column_stack([amplitude_m * np.sin(2 * np.pi * at_s), 0.6 + zero, 0.2 + zero])


@pytest.mark.parametrize("rate_hz", [50.0, 200.0])
def test_speeds_are_si_units_whatever_the_rate(rate_hz: float) -> None:
    motion = motion_of(PATH, dataset([sweep(rate_hz)], rate_hz))
    assert motion.speed_m_s.max == pytest.approx(2 * np.pi * 0.1, rel=0.02)
    assert motion.acceleration_m_s2.max == pytest.approx((2 * np.pi) ** 2 * 0.1, rel=0.02)
    assert motion.jerk_m_s3.max == pytest.approx((2 * np.pi) ** 3 * 0.1, rel=0.05)
    assert motion.step_m.max == pytest.approx(motion.speed_m_s.max / rate_hz)
    assert motion.distance_m.max == pytest.approx(0.005)


def test_the_limits_let_the_motion_pass_with_a_margin() -> None:
    motion = motion_of(PATH, dataset([sweep(100.0)], 100.0))
    gate = proposed_gate(motion)
    assert motion.speed_m_s.max < gate["max_speed_m_s"] < 1.4 * motion.speed_m_s.max
    assert motion.acceleration_m_s2.max < gate["max_acceleration_m_s2"] < 1.7 * motion.acceleration_m_s2.max
    assert gate["max_distance_m"] == pytest.approx(0.01)
    assert np.all(np.array(gate["workspace_low_m"]) < motion.lowest_m)
    assert np.all(np.array(gate["workspace_high_m"]) > motion.highest_m)
    assert gate["workspace_low_m"][0] == pytest.approx(-0.105 - 0.05 * 0.205, abs=2e-3)


def test_no_step_counts_from_one_episode_to_the_next() -> None:
    apart = [sweep(100.0), np.add(sweep(100.0), [5.0, 0.0, 0.0])]
    assert motion_of(PATH, dataset(apart, 100.0)).speed_m_s.max < 1.0


def test_one_leap_sets_no_limit_and_is_shown() -> None:
    leaping = sweep(100.0, seconds=40.0)
    leaping[1000:1001] += [3.0, 0.0, 0.0]
    motion = motion_of(PATH, dataset([leaping], 100.0))
    gate = proposed_gate(motion)
    assert motion.speed_m_s.max > 100.0
    assert gate["max_speed_m_s"] < 1.0
    assert gate["workspace_high_m"][0] < 0.2
    assert motion.highest_m[0] > 2.9


def test_episodes_with_injected_noise_set_no_rate_where_others_have_none() -> None:
    rng = np.random.default_rng(0)
    both = [sweep(100.0), sweep(100.0) + rng.normal(scale=0.02, size=(1000, 3))]
    clean = motion_of(PATH, dataset(both, 100.0), np.array([0.0, 0.3]))
    assert clean.speed_m_s.max < 0.7
    assert "1 of 2 episodes without injected noise" in clean.measured_rates
    noisy = motion_of(PATH, dataset(both, 100.0), np.array([0.3, 0.3]))
    assert noisy.speed_m_s.max > 2.0
    assert "include" in noisy.measured_rates


def test_a_gripper_that_switches_gets_no_limit_and_one_that_moves_does() -> None:
    switched = np.where(np.arange(1000) < 500, -1.0, 1.0)
    assert (
        proposed_gate(motion_of(PATH, dataset([sweep(100.0)], 100.0, switched)))["max_gripper_rate_per_s"]
        == 0.0
    )
    moved = np.linspace(-1.0, 1.0, 1000)
    gate = proposed_gate(motion_of(PATH, dataset([sweep(100.0)], 100.0, moved)))
    assert gate["max_gripper_rate_per_s"] == pytest.approx(0.2 * 1.2, rel=0.05)


def test_a_dataset_without_rate_or_steps_is_refused() -> None:
    still = dataset([np.zeros((1, 3)), np.zeros((1, 3))])
    with pytest.raises(DatasetError, match="two commands in a row"):
        motion_of(PATH, still)
    still.attributes.clear()
    with pytest.raises(DatasetError, match="no control rate"):
        motion_of(PATH, still)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    positions = sweep(20.0)
    action = np.column_stack([positions, np.ones(len(positions))])
    with DatasetWriter(tmp_path / "data", {"rate_hz": 20.0}) as writer:
        episode = StoredEpisode(
            seed=0, noise=0.0, tried=1, images={"wrist": np.zeros((len(action), 32, 32, 3), np.uint8)},
            ee_pose=positions, gripper=np.ones(len(action)), action=action, command=action,
        )  # fmt: skip
        writer.append(episode, 1)
        writer.finish()
    return tmp_path / "data"


def test_the_command_prints_a_parameter_file_that_the_node_takes(
    stored: Path, tmp_path: Path, capsys
) -> None:
    assert (
        main(["limits", str(stored), "--out", str(tmp_path / "l.yaml"), "--json", str(tmp_path / "l.json")])
        == 0
    )
    out = capsys.readouterr().out
    text = (tmp_path / "l.yaml").read_text()
    assert text in out
    gate = yaml.safe_load(text)["/**/policy_node"]["ros__parameters"]["gate"]
    assert gate == json.loads((tmp_path / "l.json").read_text())["gate"]
    if "max_speed_m_s" in GateConfig.model_fields:
        parse(GateConfig, gate, "proposal")
    assert main(["limits", str(stored), "--out", str(tmp_path / "l.yaml")]) == 2
    assert "exists: choose another file" in capsys.readouterr().err
