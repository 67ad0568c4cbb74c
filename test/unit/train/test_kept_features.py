"""Trainings that keep the encoder of the checkpoint that they begin with."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dp_ros.policy.checkpoint import load_checkpoint
from dp_ros.schema import ConfigError, TrainConfig, override
from dp_ros.train.fit import read_training
from dp_ros.train.kept_features import FrozenPolicy, KeptFeatures
from dp_ros.train.progress import Progress
from dp_ros.train.run import make_trainer, train

pytestmark = pytest.mark.usefixtures("one_thread", "random_sentence_encoder")
CPU = torch.device("cpu")


def test_only_the_network_changes_and_a_resumed_training_is_the_same(
    config: TrainConfig, data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise Stop

    frozen = override(config, {"train_encoder": False, "views": 3, "validation": 0.3})
    encoded: list[tuple[int, int]] = []
    tuned = train(
        frozen,
        data,
        tmp_path / "whole",
        init=checkpoint,
        on_encoded=lambda done, of: encoded.append((done, of)),
    )
    assert encoded == [(i, 9) for i in range(1, 10)]  # three episodes, one more is held out
    assert tuned is not None
    before, after = load_checkpoint(checkpoint).state_dict(), load_checkpoint(tuned).state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"network"}
    with pytest.raises(Stop):
        train(frozen, data, tmp_path / "stopped", init=checkpoint, on_progress=stop)
    train(frozen, data, tmp_path / "stopped", init=checkpoint, resume=True)
    whole, resumed = (load_file(tmp_path / run / "state.safetensors") for run in ("whole", "stopped"))
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """As in a terminal; a background job of a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_training_that_is_interrupted_while_it_encodes_can_be_resumed(
    config: TrainConfig, data: Path, checkpoint: Path, tmp_path: Path, number: signal.Signals
) -> None:
    frozen = override(config, {"train_encoder": False})
    with pytest.raises(KeyboardInterrupt):
        train(
            frozen,
            data,
            tmp_path / "stopped",
            init=checkpoint,
            on_encoded=lambda done, of: signal.raise_signal(number),
        )
    for run, resume in (("whole", False), ("stopped", True)):
        train(frozen, data, tmp_path / run, init=checkpoint, resume=resume)
    whole, resumed = (load_file(tmp_path / run / "state.safetensors") for run in ("whole", "stopped"))
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_a_step_sees_the_features_of_its_windows_and_its_sentences(
    config: TrainConfig, data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The features are those that the policy itself would compute; windows that are told another scene's task hold."""
    monkeypatch.setattr("dp_ros.train.kept_features.AT_ONCE", 5)  # episodes have more ticks
    frozen = override(config, {"train_encoder": False, "mismatched": 0.4, "mixed_sentences": 0.4})
    trainer = make_trainer(frozen, data, tmp_path / "run", init=checkpoint)
    trainer.batches.prepare(CPU)
    windows, policy, instructions = trainer.windows, load_checkpoint(checkpoint), trainer.instructions
    assert instructions is not None
    held, mixed, own = 0, 0, 0
    for step in range(20):
        batch, rows = trainer.batches.tensors(step, CPU), trainer.batches.runs(step).ravel()
        assert batch.instruction is not None
        pixels, state, actions = windows.centred(rows)
        images = [torch.from_numpy(each).movedim(-1, -3).float() / 255.0 for each in pixels]
        with torch.no_grad():
            expected = policy.encode(images, torch.from_numpy(state), instruction=batch.instruction)
            found = policy.encode(batch.images, batch.state, instruction=batch.instruction)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        for row, told, label, action in zip(rows, batch.instruction, batch.actions, actions, strict=True):
            known = np.flatnonzero((instructions.embeddings == told.numpy()).all(1))
            task = windows.tasks[windows.task[row]]
            if len(known) and known[0] not in instructions.rows(task):
                held += 1
                assert (label[:, :3] == 0).all()  # relative positions
            else:
                mixed, own = mixed + (len(known) == 0), own + len(known)
                torch.testing.assert_close(label, torch.from_numpy(action))
    assert min(held, mixed, own) > 0


def test_views_are_of_different_crops_and_augmentations(
    config: TrainConfig, data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "one.yaml").write_text(
        "open: {known: [open it]}\nclose: {known: [close it]}\n"
    )  # views do not differ in it
    changes = {"augmentation": {"brightness": 0.5}, "instructions": str(tmp_path / "one.yaml")}
    changed = override(config, {"train_encoder": False, **changes})
    batches = make_trainer(changed, data, tmp_path / "run", init=checkpoint).batches
    batches.prepare(CPU)
    windows = np.concatenate([batches.runs(step).ravel() for step in range(20)])
    features = torch.cat([batches.tensors(step, CPU).images[0] for step in range(20)])
    seen = [len(features[torch.from_numpy(windows == row)].unique(dim=0)) for row in np.unique(windows)]
    assert set(seen) == {1, 2}


def test_processes_share_a_batch_and_see_what_was_executed(
    config: TrainConfig, data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    frozen = override(config, {"train_encoder": False, "policy.diffusion.prefix": 2, "batch_size": 4})
    trainer = make_trainer(frozen, data, tmp_path / "run", init=checkpoint)
    policy, rows = FrozenPolicy(load_checkpoint(checkpoint), "f32"), np.arange(len(trainer.windows))
    whole, *parts = (
        KeptFeatures(frozen, trainer.windows, rows, part, trainer.instructions, frozen=policy)
        for part in ((0, 1), (0, 2), (1, 2))
    )
    for each in (whole, *parts):
        each.prepare(CPU)
    batch, halves = whole.tensors(1, CPU), [each.tensors(1, CPU) for each in parts]
    assert batch.executed is not None
    np.testing.assert_array_equal(batch.executed, trainer.windows.executed[whole.runs(1).ravel()])
    for name in ("state", "actions", "executed", "instruction"):
        assert torch.equal(getattr(batch, name), torch.cat([getattr(half, name) for half in halves])), name
    assert torch.equal(batch.images[0], torch.cat([half.images[0] for half in halves]))


def test_it_needs_a_checkpoint(config: TrainConfig, data: Path, tmp_path: Path) -> None:
    frozen = override(config, {"train_encoder": False})
    (tmp_path / "frozen.yaml").write_text("train_encoder: false\n")
    with pytest.raises(ConfigError, match="give dp_ros train the encoder's checkpoint, --init"):
        train(frozen, data, tmp_path / "run")
    with pytest.raises(ConfigError, match="give dp_ros train the encoder's checkpoint, --init"):
        read_training(tmp_path / "frozen.yaml", [], is_preset=False)
    assert not (tmp_path / "run").exists()
