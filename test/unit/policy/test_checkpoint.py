"""Checkpoint folder: the same plans after loading, and one line for every defect."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dp_ros.actions import STATE_DIM
from dp_ros.files import clear_leftovers
from dp_ros.policy.checkpoint import (
    CheckpointError,
    load_checkpoint,
    policy_config,
    read_config,
    save_checkpoint,
)
from dp_ros.policy.checkpoint_config import bridge_for, meaning_sha256, sealed, serving_beside
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import PolicyConfig, RuntimeConfig

FILES = {"policy.safetensors", "config.json", "stats.json", "card.md"}


pytestmark = pytest.mark.usefixtures("one_thread")


def build(config: PolicyConfig, stats: dict[str, Any], seed: int) -> DiffusionPolicy:
    torch.manual_seed(seed)
    return DiffusionPolicy(config, stats).eval()


def plan(policy: DiffusionPolicy) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(1, 2, 2, 3, 32, 32, generator=generator)
    return policy.plan(images, torch.rand(1, 2, STATE_DIM, generator=generator), generator)


@pytest.fixture(scope="module")
def policy(tiny_policy: PolicyConfig, stats: dict[str, Any]) -> DiffusionPolicy:
    return build(tiny_policy, stats, seed=0)


@pytest.fixture(scope="module")
def saved(policy: DiffusionPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return save_checkpoint(policy, folder, card="# Tiny\n", scene={"width_px": 40}, training={"step": 7})


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def rehash(folder: Path) -> None:
    """Write the hashes of the present files, so that loading passes that check and reaches the next one."""
    hashes = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("policy.safetensors", "stats.json")
    }
    edit_json(folder / "config.json", lambda config: config["sha256"].update(hashes))
    edit_json(
        folder / "config.json",
        lambda config: config["sha256"].update({"config.json": meaning_sha256(config)}),
    )
    edit_json(folder / "config.json", lambda config: config.update(sealed(config)))


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert "\n" not in message
    return message


def test_loaded_policy_plans_as_the_saved_one(
    each_policy: PolicyConfig, stats: dict[str, Any], tmp_path: Path
) -> None:
    policy = build(each_policy, stats, seed=0)
    loaded = load_checkpoint(save_checkpoint(policy, tmp_path / "tiny"))
    assert loaded.config == policy.config
    assert loaded.stats() == policy.stats()
    assert not loaded.training
    assert torch.equal(plan(loaded), plan(policy))


def test_folder_holds_no_code_and_says_how_it_was_made(saved: Path, policy: DiffusionPolicy) -> None:
    assert {path.name for path in saved.iterdir()} == FILES
    assert [path.name for path in saved.parent.iterdir()] == ["tiny"]
    config = read_config(saved)
    assert (config["scene"], config["training"]) == ({"width_px": 40}, {"step": 7})
    assert policy_config(saved) == policy.config
    assert (saved / "card.md").read_text() == "# Tiny\n"


def test_config_names_the_network_and_holds_no_settings_of_another(
    each_policy: PolicyConfig, stats: dict[str, Any], tmp_path: Path
) -> None:
    config = read_config(save_checkpoint(build(each_policy, stats, seed=0), tmp_path / "tiny"))
    assert config["network"] == config["policy"]["network"] == each_policy.network
    assert config["policy"].keys() & {"unet", "transformer"} == {each_policy.network}


def test_half_precision_halves_the_file_and_plans_almost_the_same(
    each_policy: PolicyConfig, tmp_path: Path, stats: dict[str, Any]
) -> None:
    policy = build(each_policy, stats, seed=0)
    saved = save_checkpoint(policy, tmp_path / "large")
    small = save_checkpoint(policy, tmp_path / "small", dtype="f16")
    loaded = load_checkpoint(small)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
    sizes = [(f / "policy.safetensors").stat().st_size for f in (small, saved)]
    assert sizes[0] < 0.55 * sizes[1]
    span = torch.tensor(stats["action"]["high"]) - torch.tensor(stats["action"]["low"])
    assert ((plan(loaded) - plan(policy)).abs() < 0.02 * span).all()


def test_saving_again_replaces_the_whole_folder(
    folder: Path, tiny_policy: PolicyConfig, stats: dict[str, Any]
) -> None:
    (folder / "notes.txt").write_text("of the old one")
    other = build(tiny_policy, stats, seed=5)
    save_checkpoint(other, folder)
    assert torch.equal(plan(load_checkpoint(folder)), plan(other))
    assert {path.name for path in folder.iterdir()} == FILES
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_folder_that_holds_something_else_is_never_replaced(policy: DiffusionPolicy, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match="not a checkpoint: choose another folder"):
        save_checkpoint(policy, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    save_checkpoint(policy, tmp_path / "empty")


def test_failed_save_leaves_the_old_checkpoint_and_nothing_else(
    folder: Path, tiny_policy: PolicyConfig, stats: dict[str, Any], policy: DiffusionPolicy
) -> None:
    with pytest.raises(TypeError):
        save_checkpoint(build(tiny_policy, stats, seed=5), folder, training={"step": object()})
    assert torch.equal(plan(load_checkpoint(folder)), plan(policy))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


# Kills itself at the n-th file operation below the folder's parent, for every n.
CRASH = """
import os, shutil, signal, sys
root, count, repository = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sys.path.insert(0, repository)
import torch
torch.set_num_threads(1)
from dp_ros.policy.checkpoint import load_checkpoint, save_checkpoint
policy = load_checkpoint(os.path.join(root, "new"))
children = []
for n in range(count):
    folder = os.path.join(root, str(n), "tiny")
    shutil.copytree(os.path.join(root, "old"), folder)
    inside = os.path.dirname(folder) + os.sep
    children.append(os.fork())
    if children[-1] == 0:
        seen = 0
        def hook(event, args):
            global seen
            touches = event.startswith(("os.", "shutil.", "tempfile.")) or (
                event == "open" and isinstance(args[1], str) and args[1][0] in "wxa"
            )
            if touches and any(str(a).startswith(inside) for a in args if isinstance(a, (str, os.PathLike))):
                seen += 1
                if seen > n:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        save_checkpoint(policy, folder)
        os._exit(0)
for child in children:
    status = os.waitpid(child, 0)[1]
    print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, flush=True)
"""


@pytest.mark.slow
def test_crash_at_any_moment_of_a_save_leaves_a_whole_checkpoint(
    saved: Path, tiny_policy: PolicyConfig, stats: dict[str, Any], tmp_path: Path
) -> None:
    """The old one until the new one is whole; never none."""

    def content(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    shutil.copytree(saved, tmp_path / "old")
    save_checkpoint(build(tiny_policy, stats, seed=5), tmp_path / "new")
    count = 14
    ended = subprocess.run(
        [sys.executable, "-c", CRASH, str(tmp_path), str(count), str(Path(__file__).parents[3])],
        capture_output=True,
        check=True,
        timeout=300,
    )
    signals = [int(line) for line in ended.stdout.split()]
    assert len(signals) == count
    assert signals[0] == signal.SIGKILL
    assert signals[-1] == 0, "the last crash point must come after the save"
    old, new = content(tmp_path / "old"), content(tmp_path / "new")
    found = [content(tmp_path / str(n) / "tiny") for n in range(count)]
    assert all(files in (old, new) for files in found)
    assert [files == new for files in found] == sorted(files == new for files in found)  # old, ..., new, ...
    assert found[-1] == new


@pytest.mark.slow
def test_a_policy_is_loaded_without_the_seconds_of_torchs_compiler() -> None:
    program = """
import sys
from dp_ros.policy.checkpoint import load_checkpoint
for network in ("unet", "transformer"):
    load_checkpoint(f"models/drawer-open-v3-{network}")
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], check=True, timeout=300)


@pytest.mark.parametrize("name", ["policy.safetensors", "stats.json"])
def test_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"{name} is missing: copy the checkpoint again" in refusal(folder)


def test_folder_that_is_no_checkpoint_is_refused(folder: Path) -> None:
    assert "does not exist" in refusal(folder.parent / "none")
    (folder / "config.json").unlink()
    assert "has no config.json" in refusal(folder)


@pytest.mark.parametrize("name", ["policy.safetensors", "stats.json"])
def test_one_changed_byte_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert f"{name} is not the file that config.json describes" in refusal(folder)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", "null", "{}", '{"schema_version": 1}'),
        '{"schema_version": [1], "policy": {}, "sha256": {}}',
        '{"schema_version": 2, "policy": {}, "sha256": ["a"]}',
        '{"schema_version": 2, "policy": 3, "sha256": {}}',
    ],
)
def test_file_that_is_no_config_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    assert "is not a checkpoint's config.json" in refusal(folder)


@pytest.mark.parametrize("version", [0, 3, 99])
def test_other_schema_version_is_refused(folder: Path, version: int) -> None:
    edit_json(folder / "config.json", lambda config: config.update(schema_version=version))
    assert f"schema version {version}, this dp_ros reads 2" in refusal(folder)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ((), "unknown key 'horizon'; did you mean 'horizons'?"),
        (("encoder",), "unknown key 'encoder.horizon'; valid keys: "),
    ],
)
def test_unknown_key_in_the_config_is_refused(folder: Path, where: tuple[str, ...], says: str) -> None:
    def add(config: dict[str, Any]) -> None:
        part = config["policy"]
        for key in where:
            part = part[key]
        part["horizon"] = 3

    edit_json(folder / "config.json", add)
    rehash(folder)
    assert says in refusal(folder)


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("policy", {"rate_hz": 40.0}),
        ("policy", {"horizons": {"T_o": 2, "T_p": 8, "T_a": 5}}),
        ("policy", {"action": {"position": "delta", "gripper": "absolute", "orientation": "hold"}}),
        ("scene", {"height_px": 37}),
        ("scene", {"markers": True}),
    ],
)
def test_changed_meaning_of_the_weights_is_refused(folder: Path, part: str, changes: dict[str, Any]) -> None:
    """Such a checkpoint would load, and move the arm otherwise than it was trained to."""
    edit_json(folder / "config.json", lambda config: config[part].update(changes))
    assert "policy or scene was changed after the weights were written" in refusal(folder)


def test_checkpoint_of_version_1_still_loads(folder: Path, saved: Path) -> None:
    def older(config: dict[str, Any]) -> None:
        config["schema_version"] = 1
        del (
            config["sha256"]["config.json"],
            config["config_sha256"],
            config["policy"]["action"]["orientation"],
        )

    edit_json(folder / "config.json", older)
    assert load_checkpoint(folder).config == load_checkpoint(saved).config


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    weights = load_file(folder / "policy.safetensors")
    weights["network.out.1.bias"][0] = value
    save_file(weights, folder / "policy.safetensors")
    rehash(folder)
    assert "'network.out.1.bias' has values that are not finite" in refusal(folder)


@pytest.mark.parametrize("name", ["action", "state"])
def test_missing_statistics_are_refused(folder: Path, name: str) -> None:
    edit_json(folder / "stats.json", lambda stats: stats.pop(name))
    rehash(folder)
    assert f"'{name}' with low and high is missing" in refusal(folder)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    def rename(config: dict[str, Any]) -> None:
        del config["policy"]["unet"]
        config["policy"]["network"] = "transformer"

    edit_json(folder / "config.json", rename)
    rehash(folder)
    assert "the two are of different models" in refusal(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    edit_json(folder / "config.json", lambda config: config["policy"]["encoder"].update(keypoints=8))
    rehash(folder)
    message = refusal(folder)
    assert "'encoder.cameras.0.pool.to_keypoints.bias' has shape (4,)" in message
    assert "config.json implies (8,): the two are of different models" in message


@pytest.mark.parametrize("change", ["drop", "add"])
def test_weights_that_lack_or_add_a_tensor_are_refused(folder: Path, change: str) -> None:
    path = folder / "policy.safetensors"
    weights = load_file(path)
    if change == "drop":
        weights.pop("network.out.1.bias")
    else:
        weights["network.out.2.bias"] = torch.zeros(3)
    save_file(weights, path)
    rehash(folder)
    assert "the two are of different models" in refusal(folder)


def test_old_checkpoint_is_restored_after_a_kill_between_the_renames(
    tmp_path: Path, policy: DiffusionPolicy
) -> None:
    """On a file system that cannot swap two folders."""
    folder = tmp_path / "best"
    save_checkpoint(policy, folder)
    folder.rename(tmp_path / ".best-0a1b2c3d-old")
    (tmp_path / ".best-0a1b2c3d").mkdir()
    clear_leftovers(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    load_checkpoint(folder)


@pytest.mark.parametrize(("mode", "ticks"), [("lockstep", 0), ("realtime", 1)])
def test_simulated_arm_has_a_latency_of_a_tick_in_real_time_and_its_policy_knows_it(
    tiny_policy: PolicyConfig, stats: dict[str, Any], tmp_path: Path, mode: str, ticks: int
) -> None:
    policy = build(tiny_policy.model_copy(update={"task": "tiny-push", "rate_hz": 20.0}), stats, 0)
    bridge = bridge_for(save_checkpoint(policy, tmp_path / "a"), mode=mode)
    assert bridge.command_delay_s == pytest.approx(ticks / 20.0)
    runtime = RuntimeConfig.model_validate(serving_beside(bridge))
    assert (runtime.mode, runtime.command_delay_s) == (mode, bridge.command_delay_s)
