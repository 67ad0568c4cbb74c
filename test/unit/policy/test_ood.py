"""Statistics of the training pictures: the score separates, its limit is a quantile, and damage is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dp_ros.policy.checkpoint import add_ood_stats, load_checkpoint, save_checkpoint
from dp_ros.policy.checkpoint_config import (
    OOD,
    CheckpointError,
    ood_stats_of,
    read_config,
    verify_files,
)
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.ood import QUANTILE, OodError, OodStats, fit_ood_stats
from dp_ros.schema import PolicyConfig

D = 8  # keypoints of the tiny policy, x and y
Array = np.ndarray[Any, Any]


def features(n: int, seed: int, scale: float = 1.0) -> Array:
    """(n, D) features that vary far more along some directions than along others."""
    rng = np.random.default_rng([9, seed])
    mixing = np.random.default_rng(5).normal(size=(D, D)) * np.geomspace(1.0, 0.2, D)
    return scale * rng.normal(size=(n, D)) @ mixing.T + 3.0


@pytest.fixture(scope="module")
def fitted() -> OodStats:
    return fit_ood_stats([features(2000, 0), features(2000, 1)], [features(1000, 2), features(1000, 3)])


def test_score_separates_features_that_no_single_dimension_separates(fitted: OodStats) -> None:
    """Along the direction in which the training hardly varied, a small change counts."""
    usual = features(500, 4)
    values, vectors = np.linalg.eigh(np.cov(features(2000, 0).T))
    moved = usual + 15.0 * np.sqrt(values[0]) * vectors[:, 0]
    inside = (moved > features(2000, 0).min(0)) & (moved < features(2000, 0).max(0))
    assert inside.mean() > 0.9
    scores, other = (np.array([fitted.scores([x, x])[0] for x in each]) for each in (usual, moved))
    assert np.mean(scores > 1.0) < 0.02
    assert np.mean(other > 1.0) > 0.95


def test_pictures_between_two_scenes_of_the_training_are_unlike_both() -> None:
    """One mean and covariance would call them the most ordinary of all."""
    both = [np.concatenate([features(500, i, 0.1), features(500, i + 1, 0.1) + 20.0]) for i in (0, 2)]
    stats = fit_ood_stats(both[:1], both[1:])
    assert stats.scores([features(1, 6, 0.1)[0]])[0] < 1.0
    assert stats.scores([features(1, 6, 0.1)[0] + 20.0])[0] < 1.0
    assert stats.scores([features(1, 6, 0.1)[0] + 10.0])[0] > 1.0


def test_each_camera_has_its_own_score(fitted: OodStats) -> None:
    usual, strange = features(1, 4)[0], features(1, 4)[0] + 50.0
    first, second = fitted.scores([usual, strange])
    assert first < 1.0 < second
    np.testing.assert_allclose(fitted.scores([strange, usual])[1], first, rtol=0.5)


def test_limit_is_the_quantile_of_the_held_out_pictures(fitted: OodStats) -> None:
    """A score of 1, and not of the pictures that the statistics were made of."""
    held_out = features(1000, 2)
    scores = np.array([fitted.scores([each, each])[0] for each in held_out])
    assert np.mean(scores <= 1.0 + 1e-6) == pytest.approx(QUANTILE, abs=1e-9)
    wider = fit_ood_stats([features(2000, 0)], [features(1000, 2, scale=3.0)])
    assert wider.limit[0] > 2.0 * fitted.limit[0]


def test_features_that_never_vary_are_scored_without_an_error() -> None:
    stats = fit_ood_stats([np.ones((50, D))], [np.ones((20, D))])
    assert stats.scores([np.ones(D)])[0] <= 1.0
    assert stats.scores([np.full(D, 2.0)])[0] > 1.0


def test_score_of_features_that_are_not_finite_is_not_below_any_limit(fitted: OodStats) -> None:
    assert not fitted.scores([np.full(D, np.nan), np.zeros(D)])[0] <= 1e9


def test_features_of_a_diverged_training_are_refused() -> None:
    with pytest.raises(OodError, match="not finite"):
        fit_ood_stats([np.full((5, D), np.inf)], [np.ones((5, D))])


@pytest.fixture
def checkpoint(tiny_policy: PolicyConfig, stats: dict[str, Any], tmp_path: Path) -> Path:
    return save_checkpoint(DiffusionPolicy(tiny_policy, stats), tmp_path / "tiny", card="# Tiny\n")


def test_statistics_join_a_checkpoint_and_change_nothing_else(checkpoint: Path, fitted: OodStats) -> None:
    assert ood_stats_of(checkpoint) is None
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    config = read_config(checkpoint)
    add_ood_stats(checkpoint, fitted)
    after = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    assert set(after) == {*before, OOD}
    assert {name for name in before if after[name] != before[name]} == {"config.json"}
    new = read_config(checkpoint)
    assert new["sha256"].pop(OOD)
    assert {**new, "config_sha256": None} == {**config, "config_sha256": None}
    found = ood_stats_of(checkpoint)
    assert found is not None
    np.testing.assert_allclose(
        found.scores([features(1, 6)[0]] * 2), fitted.scores([features(1, 6)[0]] * 2), rtol=1e-4
    )
    add_ood_stats(checkpoint, fitted)  # again
    load_checkpoint(checkpoint)


def test_statistics_are_kept_in_a_copy(
    checkpoint: Path, fitted: OodStats, tiny_policy: PolicyConfig, stats: dict[str, Any], tmp_path: Path
) -> None:
    copy = save_checkpoint(DiffusionPolicy(tiny_policy, stats), tmp_path / "copy", ood=fitted)
    verify_files(copy)
    assert ood_stats_of(copy) is not None


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("missing", "not the file that config.json describes"),
        ("cut", "not the file that config.json describes"),
        ("flipped", "not the file that config.json describes"),
        ("nan", "not finite"),
        ("zero", "or a limit of 0"),
        ("shape", "do not fit one another"),
        ("lacks", "cannot be read"),
        ("text", "cannot be read"),
        ("cameras", "is of 1 cameras with 8 coordinates, the policy has 2 with 8"),
    ],
)
def test_bad_statistics_are_refused_in_one_line(
    checkpoint: Path, fitted: OodStats, damage: str, says: str
) -> None:
    add_ood_stats(checkpoint, fitted)
    path = checkpoint / OOD
    content, arrays = bytearray(path.read_bytes()), load_file(path)
    if damage == "missing":
        path.unlink()
    elif damage in ("cut", "flipped"):
        content[-1] ^= 1
        path.write_bytes(content[:-9] if damage == "cut" else content)
    elif damage == "text":
        path.write_text("not a file of tensors")
    else:
        if damage == "cameras":
            arrays = {name: array[:1].copy() for name, array in arrays.items()}
        elif damage == "lacks":
            del arrays["limit"]
        elif damage == "shape":
            arrays["whitening"] = arrays["whitening"][..., :-1].copy()
        else:
            arrays["limit"][0] = np.nan if damage == "nan" else 0.0
        save_file(arrays, path)
    if damage not in ("missing", "cut", "flipped"):
        _describe(checkpoint)
    with pytest.raises(CheckpointError) as caught:
        ood_stats_of(checkpoint)
    line = str(caught.value)
    assert says in line
    assert "dp_ros ood-stats" in line
    assert "\n" not in line


def _describe(checkpoint: Path) -> None:
    """Let config.json describe the file as it is, as a writer with an error would."""
    from dp_ros.policy import checkpoint_config

    config = read_config(checkpoint)
    config["sha256"][OOD] = checkpoint_config.sha256(checkpoint / OOD)
    if sealed := getattr(checkpoint_config, "sealed", None):
        config = sealed(config)
    (checkpoint / "config.json").write_text(json.dumps(config))


def test_damaged_statistics_end_loading(checkpoint: Path, fitted: OodStats) -> None:
    """Fail closed: a gate that needs them would not work."""
    add_ood_stats(checkpoint, fitted)
    (checkpoint / OOD).write_bytes(b"")
    with pytest.raises(CheckpointError, match=OOD):
        load_checkpoint(checkpoint)
