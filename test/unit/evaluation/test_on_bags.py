"""Errors of a policy along recorded episodes: means by step and by episode, of bags and of the dataset made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dp_ros.actions import POSITION
from dp_ros.cli import main
from dp_ros.data.episodes import load
from dp_ros.data.windows import Windows
from dp_ros.evaluation.on_bags import ErrorsAlong, errors_along
from dp_ros.policy.checkpoint import save_checkpoint
from dp_ros.policy.checkpoint_config import policy_config
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import Horizons, PolicyConfig

HORIZONS = {"T_o": 2, "T_p": 8, "T_a": 4}
STATS = {
    "action": {"low": [-0.2, -0.2, -0.2, -1.0], "high": [0.2, 0.2, 0.2, 1.0]},
    "state": {"low": [-0.3, -0.3, -0.3, 0.0], "high": [0.3, 0.3, 0.3, 1.0]},
}
TOPICS = "cameras: {gripperPOV: /color/image_raw}\n"


@pytest.fixture(scope="module")
def checkpoint(small_policy: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights for pictures of 32x32, from which `convert` must make them."""
    encoder = {
        **small_policy["encoder"],
        "height_px": 32,
        "width_px": 32,
        "crop_height_px": 32,
        "crop_width_px": 32,
    }
    pictures = {"pictures": {"gripperPOV": {"fit": "crop"}}}
    torch.manual_seed(0)
    config = PolicyConfig.model_validate(
        {**small_policy, "encoder": encoder | pictures, "horizons": HORIZONS, "rate_hz": 20.0}
    )
    return save_checkpoint(DiffusionPolicy(config, STATS), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def bags(bag_maker: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes, of 30 and of 20 ticks at 20 Hz, with pictures on a topic of another name."""
    folder = tmp_path_factory.mktemp("bags")
    for seed, ticks in enumerate((30, 20)):
        bag_maker.episode(
            folder / f"episode_{seed}", seed=seed, ticks=ticks, period_ns=50_000_000, cameras=("gripperPOV",),
            size=(36, 48), moved=lambda stream, i, at: 0.1 * at + [0.0, 0.0, 0.001 * i],
        )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def dataset(bags: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bags, converted."""
    folder = tmp_path_factory.mktemp("converted") / "data"
    settings = ("--size", "32x32", "--fit", "crop", "--rate", "20", "--jobs", "1")
    assert main(["convert", str(bags), "--out", str(folder), *settings]) == 0
    return folder


def test_the_command_shows_and_writes_the_errors_of_bags_and_of_a_dataset_alike(
    checkpoint: Path, bags: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "errors.json"
    assert main(["eval", str(checkpoint), "--on-bags", str(bags), "--json", str(out)]) == 0, (
        capsys.readouterr()
    )
    said = capsys.readouterr().out
    written = json.loads(out.read_text())
    assert [row["windows"] for row in written["episodes"]] == [30, 20]
    assert [row["name"] for row in written["episodes"]] == ["episode_0", "episode_1"]
    assert [row["executed"] for row in written["steps"]] == [False, *[True] * 4, False, False, False]
    assert [row["after_s"] for row in written["steps"]] == pytest.approx(np.arange(-1, 7) / 20)
    assert "standing still" in said
    assert f"executed actions: {1e3 * written['executed']['position_m']:.2f} mm" in said
    assert main(["eval", str(checkpoint), "--on-bags", str(dataset), "--json", str(out)]) == 0
    again = json.loads(out.read_text())
    assert again["steps"] == written["steps"]
    assert again["episodes"] == written["episodes"]


def test_standing_still_is_the_way_of_the_demonstration_from_the_last_command(
    checkpoint: Path, dataset: Path
) -> None:
    errors = errors_along(checkpoint, dataset)
    config = policy_config(checkpoint)
    windows = Windows(
        load(dataset), config.horizons, config.action, config.encoder
    )  # relative to the last command
    np.testing.assert_allclose(
        errors.still_m, np.linalg.norm(POSITION.of(windows.actions), axis=-1), atol=1e-6
    )
    np.testing.assert_array_equal(errors.still_m[:, 0], 0.0)


def test_means_are_of_the_executed_steps_and_of_each_episode() -> None:
    position = np.arange(24, dtype=np.float64).reshape(3, 8)
    errors = ErrorsAlong(
        position, position / 10, position * 2, ("a", "b"), np.array([2, 3]), Horizons(**HORIZONS), 10.0
    )
    assert errors.means() == pytest.approx({"position_m": 10.5, "gripper": 1.05, "still_m": 21.0})
    assert [row["position_m"] for row in errors.of_episodes()] == pytest.approx([6.5, 18.5])
    assert [row["position_m"] for row in errors.of_steps()] == pytest.approx([8 + i for i in range(8)])


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--on-bags", "{bags}", "{checkpoint}"), 2, "--on-bags takes one checkpoint"),
        (("--on-bags", "{empty}"), 1, "no bag"),
        (
            ("--on-bags", "{bags}", "--topics-file", "{topics}"),
            1,
            "/color/image_raw has no messages; it has /camera/gripperPOV/image_raw",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    words: tuple[str, ...], code: int, says: str, checkpoint: Path, bags: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "topics.yaml").write_text(TOPICS)
    (tmp_path / "empty").mkdir()
    places = {
        "bags": bags,
        "checkpoint": checkpoint,
        "empty": tmp_path / "empty",
        "topics": tmp_path / "topics.yaml",
    }
    assert main(["eval", str(checkpoint), *(word.format(**places) for word in words)]) == code
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said
