"""Checkpoints as enemies: damage is found by hashes; what is forged is refused in one line and runs no code."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from dp_ros.errors import UserError
from dp_ros.policy.checkpoint import load_checkpoint, read_config, save_checkpoint
from dp_ros.policy.checkpoint_config import (
    CheckpointError,
    instructions_of,
    meaning_sha256,
    sealed,
    verify_files,
)
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.instructions import Instructions, Sentence
from dp_ros.schema import PolicyConfig

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG, WEIGHTS, STATS, TOLD = (
    "config.json",
    "policy.safetensors",
    "stats.json",
    "instructions.safetensors",
)
Damage = Callable[..., Iterator[bytes]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tiny_policy: PolicyConfig, stats: dict[str, Any]) -> Path:
    """The smallest checkpoint that has every file."""
    settings = tiny_policy.model_dump(mode="json")
    settings["encoder"] |= {"cameras": ["left"], "width": 16}
    settings["unet"] = {"channels": [8], "groups": 4, "step_embedding_dim": 8}
    settings["instruction"] = {"embedding_dim": 8, "features": 4}
    torch.manual_seed(0)
    policy = DiffusionPolicy(PolicyConfig.model_validate(settings), stats)
    sentences = (Sentence("open the drawer", "drawer-open-v3"), Sentence("push it", "coffee-push-v3"))
    return save_checkpoint(
        policy,
        tmp_path_factory.mktemp("models") / "tiny",
        scene={"width_px": 40, "markers": False},
        training={"step": 7, "data": {"seeds": [[100000, 100199]]}},
        instructions=Instructions(sentences, np.eye(2, 8, dtype=np.float32)),
    )


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def forge(folder: Path) -> None:
    """Write the hashes of the present files: hashes find damage, they prove no origin."""
    config = json.loads((folder / CONFIG).read_text())
    for name in (WEIGHTS, STATS, TOLD):
        config["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    config["sha256"][CONFIG] = meaning_sha256(config)
    (folder / CONFIG).write_text(json.dumps(sealed(config)))


def refusal(folder: Path) -> str:
    """The line with which loading is refused; empty where it loads."""
    said = ""
    try:
        load_checkpoint(folder)
        instructions_of(folder)
    except UserError as error:
        said = str(error)
    assert not said or said.startswith(str(folder))
    assert "\n" not in said
    assert len(said) < 1000
    return said


@pytest.mark.parametrize("name", [WEIGHTS, STATS, TOLD])
def test_any_damage_of_a_file_is_found_by_its_hash(folder: Path, name: str, damaged: Damage) -> None:
    whole = (folder / name).read_bytes()
    for content in damaged(whole, 150, within=400):
        (folder / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=r"is not the file that config\.json describes"):
            verify_files(folder)
    assert name in refusal(folder)
    (folder / name).write_bytes(whole)
    assert refusal(folder) == ""


def test_any_flipped_bit_of_config_json_is_found_or_changes_nothing(folder: Path) -> None:
    """A flipped bit of white space may change nothing. One bit of 37 is tried, so each bit of a byte in turn."""
    path, known = folder / CONFIG, read_config(folder)
    whole = path.read_bytes()
    bits = range(0, 8 * len(whole), 37)
    unchanged = 0
    for bit in bits:
        content = bytearray(whole)
        content[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(content)
        try:
            found = read_config(folder)
        except CheckpointError:
            continue
        assert found == known, f"bit {bit}"
        unchanged += 1
    assert unchanged < 0.01 * len(bits)


def test_checkpoint_without_a_hash_of_all_entries_still_loads(folder: Path) -> None:
    """As older versions wrote them."""
    config = json.loads((folder / CONFIG).read_text())
    del config["config_sha256"]
    (folder / CONFIG).write_text(json.dumps(config))
    assert refusal(folder) == ""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["training"]["data"].update(seeds=[]), "was changed after it was written"),
        (lambda c: c.update(weights_dtype="f16"), "was changed after it was written"),
        (lambda c: c["sha256"].update({"../../.bashrc": "0"}), "unknown entry '../../.bashrc'"),
        (lambda c: c.update(main="run.py"), "unknown entry 'main'"),
    ],
)
def test_changed_facts_of_the_training_and_unknown_entries_are_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps(config))
    assert says in refusal(folder)


@pytest.mark.parametrize("name", [WEIGHTS, STATS, TOLD])
def test_forged_hashes_of_a_damaged_file_lead_to_one_line_or_to_finite_numbers(
    folder: Path, name: str, damaged: Damage
) -> None:
    whole, refused = (folder / name).read_bytes(), 0
    for content in damaged(whole, 24, within=400):
        (folder / name).write_bytes(content)
        forge(folder)
        refused += bool(refusal(folder))
    assert refused >= 6


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*path, key))
    else:
        yield path


STRANGE: list[Any] = [None, -1, 0, 2**63, 10**400, 1e308, float("nan"), True, "", "../..", [], {}, [[1]]]


@pytest.mark.parametrize("name", [CONFIG, STATS])
def test_strange_values_in_a_forged_file_are_refused_in_one_line(folder: Path, name: str) -> None:
    """Each value of the file in turn becomes each of several: none may crash, or take memory without end."""
    whole = json.loads((folder / name).read_text())
    root = whole["policy"] if name == CONFIG else whole
    places, refused = list(leaves(root)), 0
    for i, place in enumerate(places):
        for value in STRANGE[i % 6 :: 6]:
            content = json.loads(json.dumps(whole))
            parent = content["policy"] if name == CONFIG else content
            for key in place[:-1]:
                parent = parent[key]
            parent[place[-1]] = value
            (folder / name).write_text(json.dumps(content))
            forge(folder)
            refused += bool(refusal(folder))
    assert refused > len(places)


def test_network_that_exceeds_the_memory_is_refused_before_it_is_made(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    config["policy"]["unet"]["channels"] = [16_384] * 5
    config["policy"]["encoder"]["feature_dim"] = 1024
    (folder / CONFIG).write_text(json.dumps(config))
    forge(folder)
    assert "the two are of different models" in refusal(folder)


class Bomb:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("name", [WEIGHTS, TOLD, STATS, CONFIG])
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_pickle_in_disguise_is_never_loaded(folder: Path, tmp_path: Path, name: str, kind: str) -> None:
    ran = tmp_path / "ran"
    if kind == "pickle":
        (folder / name).write_bytes(pickle.dumps(Bomb(ran)))
    else:
        torch.save({"policy": Bomb(ran)}, folder / name)
    if name != CONFIG:
        forge(folder)
    assert refusal(folder)
    assert not ran.exists()
    (folder / name).unlink()


def test_code_beside_the_weights_is_never_run(folder: Path, tmp_path: Path) -> None:
    for name in ("__init__.py", "modeling.py", "sitecustomize.py", "policy.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (folder / "policy.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    assert refusal(folder) == ""
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", [CONFIG, STATS, TOLD])
def test_json_without_end_of_its_depth_is_refused(folder: Path, name: str) -> None:
    deep = "[" * 200_000
    if name == TOLD:
        save_file({"embeddings": np.eye(2, 8, dtype=np.float32)}, folder / name, {"sentences": deep})
    else:
        (folder / name).write_text(deep)
    if name != CONFIG:
        forge(folder)
    assert name in refusal(folder)


@pytest.mark.parametrize(
    ("sentences", "embeddings"),
    [
        ([["open", "a", False]], np.eye(2, 8)),
        ([], np.zeros((0, 8))),
        ([["open", "a", False], [3, "b", False]], np.eye(2, 8)),
        ([["open", "a", False], ["close", "b", False]], np.eye(2, 9)),
        ([["open", "a", False], ["close", "b", False]], np.full((2, 8), np.nan)),
        ([["open", "a", False], ["close", "b", False]], np.ones(16)),
    ],
)
def test_sentences_that_do_not_fit_their_embeddings_are_refused(
    folder: Path, sentences: list[Any], embeddings: np.ndarray
) -> None:
    save_file(
        {"embeddings": embeddings.astype(np.float32)}, folder / TOLD, {"sentences": json.dumps(sentences)}
    )
    forge(folder)
    assert TOLD in refusal(folder)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, STATS, TOLD])
def test_file_that_is_a_device_a_folder_or_a_link_elsewhere_is_refused(folder: Path, name: str) -> None:
    elsewhere = shutil.copy(folder / name, folder.parent / name)
    (folder / name).unlink()
    (folder / name).symlink_to(elsewhere)  # as the cache of a hub keeps its files
    assert refusal(folder) == ""
    for target in ("/dev/zero", "/etc/passwd", "missing", folder.parent):
        (folder / name).unlink()
        (folder / name).symlink_to(target)
        assert refusal(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)  # whoever opens it waits for ever
    assert refusal(folder)


def test_checkpoint_that_is_replaced_while_it_is_read_is_read_again(
    saved: Path, folder: Path, stats: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the check of the hashes and the reading of the weights, a training renames others to their place."""
    torch.manual_seed(1)
    other = DiffusionPolicy(load_checkpoint(saved).config, stats)
    instructions = instructions_of(saved)
    left = [1]  # replacements to come

    def verify_then_replace(path: Path) -> None:
        verify_files(path)
        if left[0]:
            left[0] -= 1
            save_checkpoint(other, folder, instructions=instructions)

    monkeypatch.setattr("dp_ros.policy.checkpoint.verify_files", verify_then_replace)
    loaded = load_checkpoint(folder)
    pairs = zip(loaded.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(one, another) for one, another in pairs)
    left[0] = 100
    with pytest.raises(CheckpointError, match="is replaced while it is read"):
        load_checkpoint(folder)
