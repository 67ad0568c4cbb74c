"""Training: it learns, it resumes as the same run, and it stops before it damages what is saved."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor

from dp_ros.data.episodes import Dataset
from dp_ros.data.windows import Windows
from dp_ros.policy.checkpoint import load_checkpoint, read_config
from dp_ros.schema import Network, TrainConfig
from dp_ros.train.progress import Progress
from dp_ros.train.stopping import TrainingError
from dp_ros.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")
each_network = pytest.mark.parametrize("network", get_args(Network))


@pytest.fixture(scope="module")
def make_windows(make_dataset: Callable[..., Dataset]) -> Callable[..., Windows]:
    def make(config: TrainConfig, seed: int = 0) -> Windows:
        policy = config.policy
        return Windows(make_dataset(seed=seed), policy.horizons, policy.action, policy.encoder)

    return make


@pytest.fixture
def trainer(tmp_path: Path, make_windows: Callable[..., Windows]) -> Callable[..., Trainer]:
    def make(config: TrainConfig, run: str = "run", data_seed: int = 0, **more: Any) -> Trainer:
        return Trainer(config, make_windows(config, data_seed), tmp_path / run, **more)

    return make


def state(trainer: Trainer) -> dict[str, Tensor]:
    return load_file(trainer.run_dir / "state.safetensors")


def step_of(trainer: Trainer) -> int:
    with safe_open(str(trainer.run_dir / "state.safetensors"), framework="pt") as file:
        return int(file.metadata()["step"])


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


def test_first_window_of_a_correction_is_not_trained_on(
    make_dataset: Callable[..., Dataset], tiny_train: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    """There the arm is 5 m from the command before it, which is not recorded."""
    dataset = make_dataset()
    dataset.ee_pose[12] += 5.0
    config = tiny_train()

    def longest_step_m(name: str, data: Dataset) -> float:
        policy = config.policy
        windows = Windows(data, policy.horizons, policy.action, policy.encoder)
        low_high = Trainer(config, windows, tmp_path / name).stats["action"]
        return float(np.abs([low_high["low"][:3], low_high["high"][:3]]).max())

    assert longest_step_m("demonstrated", dataset) > 4.0
    assert longest_step_m("corrected", replace(dataset, corrected=np.array([False, True]))) < 1.0


@pytest.mark.slow
@each_network
def test_loss_falls_on_a_tiny_dataset(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any], network: str
) -> None:
    losses: list[float] = []
    config = tiny_train(network, steps=40, noise_samples=64, lr=1e-2, log_every=10)
    folder = trainer(config).run(lambda progress: losses.append(progress.loss))
    assert len(losses) == 4
    assert losses[-1] < 0.8 * losses[0]
    assert read_config(folder)["training"]["step"] == 40
    load_checkpoint(folder)


class Stop(Exception):
    """Ends a run between two steps, as a kill would."""


def stop_at(step: int) -> Callable[[Progress], None]:
    def on_progress(progress: Progress) -> None:
        if progress.step == step:
            raise Stop

    return on_progress


@pytest.mark.slow
@each_network
def test_resumed_run_is_the_run_that_was_never_stopped_to_the_last_bit(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any], network: str
) -> None:
    """Weights, EMA and optimiser; across the end of an epoch (5 batches) and back to an older state."""
    config = tiny_train(network, steps=9, checkpoint_every=3, log_every=1)
    whole = trainer(config, "whole")
    assert whole.batches_per_epoch == 5
    whole.run()
    stopped = trainer(config, "stopped")
    with pytest.raises(Stop):
        stopped.run(stop_at(5))
    resumed = trainer(config, "stopped", resume=True)
    assert resumed.step == 3
    resumed.run()
    assert {name.split("/")[0] for name in state(whole)} == {"policy", "ema", "adam"}
    assert_same(state(resumed), state(whole))
    weights = [load_file(t.run_dir / "checkpoint" / "policy.safetensors") for t in (whole, resumed)]
    assert_same(*weights)
    a, b = (read_config(t.run_dir / "checkpoint")["training"]["history"] for t in (whole, resumed))
    assert a["loss"] == b["loss"]
    assert [step for step, _ in a["loss"]] == list(range(1, 10))
    assert a["seconds"] > 0 < b["seconds"]


@pytest.mark.slow
@each_network
def test_same_seed_is_the_same_run_and_another_is_another(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any], network: str
) -> None:
    runs = [
        trainer(tiny_train(network, steps=2, seed=seed), name)
        for seed, name in ((1, "a"), (1, "b"), (2, "c"))
    ]
    for run in runs:
        torch.manual_seed(hash(run.run_dir))  # what other code draws does not matter
        run.run()
    assert_same(state(runs[0]), state(runs[1]))
    name = "policy/network.out.1.weight"
    assert not torch.equal(state(runs[0])[name], state(runs[2])[name])


@each_network
def test_checkpoint_holds_the_averaged_weights(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any], network: str
) -> None:
    run = trainer(tiny_train(network, steps=4))
    served = load_checkpoint(run.run()).state_dict()
    saved = state(run)
    assert_same(served, {name: saved[f"ema/{name}"] for name in served})
    assert any(not torch.equal(served[name], saved[f"policy/{name}"]) for name in served)


def test_finished_run_resumed_trains_no_further(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    trainer(tiny_train(steps=2)).run()
    again = trainer(tiny_train(steps=2), resume=True)
    before = state(again)
    again.run()
    assert_same(state(again), before)


@pytest.mark.parametrize("damage", ["missing", "older"])
def test_checkpoint_that_a_kill_kept_from_its_state_is_written_when_the_run_is_resumed(
    damage: str, trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    """The state is written first; of a finished run no later step would write the checkpoint."""
    config = tiny_train(steps=4, checkpoint_every=2, log_every=1)
    run = trainer(config)
    older = run.run_dir / "older"

    def keep(progress: Progress) -> None:
        if progress.step == 3:
            shutil.copytree(run.run_dir / "checkpoint", older)

    folder = run.run(keep)
    whole = load_file(folder / "policy.safetensors")
    shutil.rmtree(folder)
    if damage == "older":
        older.rename(folder)
    trainer(config, resume=True).run()
    assert read_config(folder)["training"]["step"] == 4
    assert_same(load_file(folder / "policy.safetensors"), whole)


def test_what_a_kill_left_half_written_is_cleared_away(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    config = tiny_train(steps=2)
    run = trainer(config)
    run.run()
    for name in (".checkpoint-0a1b2c3d", ".best-x_yz0123"):
        (run.run_dir / name).mkdir()
        (run.run_dir / name / "policy.safetensors").write_bytes(b"half")
    trainer(config, resume=True).run()
    assert sorted(path.name for path in run.run_dir.iterdir()) == [
        "checkpoint",
        "state.safetensors",
        "tensorboard",
    ]


def test_checkpoint_that_cannot_be_written_is_named_and_the_run_goes_on_later(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_train(steps=2)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("dp_ros.policy.checkpoint.save_file", full)
        with pytest.raises(TrainingError, match=r"checkpoint/ of step 2 cannot be written .*add --resume"):
            trainer(config).run()
    folder = trainer(config, resume=True).run()
    assert read_config(folder)["training"]["step"] == 2


def test_log_of_a_resumed_run_has_every_step_once(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    """Steps after the last state are hidden, because they are logged again; the state's own step is not."""
    config = tiny_train(steps=7, checkpoint_every=3, log_every=1)
    stopped = trainer(config)
    with pytest.raises(Stop):
        stopped.run(stop_at(5))
    logs = stopped.run_dir / "tensorboard"
    (first,) = logs.iterdir()
    first.rename(logs / "events.out.tfevents.0")  # files of one second are read in no certain order
    trainer(config, resume=True).run()
    log = EventAccumulator(str(logs))
    log.Reload()
    assert [event.step for event in log.Scalars("loss")] == list(range(1, 8))


def test_run_begun_before_its_history_was_kept_is_resumed(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    config = tiny_train(steps=2)
    path = trainer(config).run().parent / "state.safetensors"
    with safe_open(str(path), framework="pt") as file:
        metadata = {key: value for key, value in file.metadata().items() if key != "history"}
    save_file(load_file(path), path, metadata=metadata)
    assert trainer(config, resume=True).step == 2


def test_run_begun_when_the_config_had_another_order_is_resumed(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    config = tiny_train(steps=2)
    path = trainer(config).run().parent / "state.safetensors"
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    kept = json.loads(metadata["config"])
    metadata["config"] = json.dumps({**kept, "config": dict(reversed(kept["config"].items()))})
    save_file(load_file(path), path, metadata=metadata)
    assert trainer(config, resume=True).step == 2


@pytest.mark.slow
def test_resuming_under_another_config_or_dataset_is_refused(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    trainer(tiny_train(steps=2)).run()
    for config, data_seed in [
        (tiny_train(steps=2, lr=2e-4), 0),
        (tiny_train(steps=3), 0),
        (tiny_train(steps=2, seed=1), 0),
        (tiny_train(steps=2), 1),
    ]:
        with pytest.raises(TrainingError, match="was begun with another config or dataset") as caught:
            trainer(config, data_seed=data_seed, resume=True)
        assert "\n" not in str(caught.value)
    trainer(tiny_train(steps=2, log_every=3, checkpoint_every=7), resume=True)  # these change nothing


def test_run_is_never_begun_over_another_nor_resumed_from_nothing(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    with pytest.raises(TrainingError, match="there is nothing to resume"):
        trainer(tiny_train(), resume=True)
    run = trainer(tiny_train(steps=1))
    run.run()
    with pytest.raises(TrainingError, match="already holds a run; add --resume"):
        trainer(tiny_train(steps=1))
    (run.run_dir / "state.safetensors").write_bytes(b"half a file")
    with pytest.raises(TrainingError, match="cannot be read"):
        trainer(tiny_train(steps=1), resume=True)


def test_a_folder_has_one_training_at_a_time(trainer, tiny_train: Callable[..., TrainConfig]) -> None:
    """Two would replace the state and the checkpoints of each other."""
    refusals = []

    def begin_another(progress: object) -> None:
        with pytest.raises(TrainingError, match="another process trains here: wait until it ends") as caught:
            trainer(tiny_train(steps=2)).run()
        refusals.append(caught.value)

    trainer(tiny_train(steps=2, log_every=1)).run(begin_another)
    assert len(refusals) == 2
    trainer(tiny_train(steps=2, log_every=1), resume=True).run()


def test_loss_that_is_not_finite_stops_with_the_last_state_intact(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    run = trainer(tiny_train(steps=6, checkpoint_every=2, log_every=1))

    def poison(progress: Progress) -> None:
        if progress.step == 3:
            run.windows.actions[:] = float("nan")

    with pytest.raises(TrainingError, match=r"the loss became nan.* at step 3") as caught:
        run.run(poison)
    assert "\n" not in str(caught.value)
    assert step_of(run) == 2
    assert all(tensor.isfinite().all() for tensor in state(run).values())
    load_checkpoint(run.run_dir / "checkpoint")


def test_advice_for_a_loss_that_explodes_is_what_the_code_accepts(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    def config(**more: Any) -> TrainConfig:
        return tiny_train(**{"steps": 4, "checkpoint_every": 1, "precision": "bf16", **more})

    with pytest.raises(
        TrainingError, match=r"another --out with an lr below 1e\+30 or precision f32"
    ) as caught:
        trainer(config(lr=1e30)).run()
    assert "--resume" not in str(caught.value)
    with pytest.raises(TrainingError, match="was begun with another config"):
        trainer(config(lr=1e-3), resume=True)
    trainer(config(lr=1e-3), "another").run()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own
def test_log_that_cannot_be_written_is_one_line_and_the_run_goes_on_later(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_train(steps=6, checkpoint_every=2, log_every=1)
    write = RecordWriter.write
    full = threading.Event()

    def write_until_full(writer: RecordWriter, data: bytes) -> None:
        if full.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(writer, data)

    def fill(progress: Progress) -> None:
        if progress.step == 2:
            full.set()

    run = trainer(config)
    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "write", write_until_full)
        with pytest.raises(TrainingError, match=r"the log of step \d cannot be written .*add --resume"):
            run.run(fill)
        full.clear()
    assert step_of(run) >= 2
    trainer(config, resume=True).run()
    assert step_of(run) == 6


def test_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    """The loss may still be finite: here a zero weight hides features that are far too large."""
    run = trainer(tiny_train(steps=6, checkpoint_every=1))
    with torch.no_grad():
        block, last = run.policy.network.out
        block[1].weight.fill_(1e25)
        last.weight.zero_()
    before = {name: p.clone() for name, p in run.policy.named_parameters()}
    with pytest.raises(TrainingError, match=r"its gradient inf, at step 0"):
        run.run()
    assert_same(dict(run.policy.named_parameters()), before)
    assert not (run.run_dir / "state.safetensors").exists()


def test_interrupted_run_saves_the_step_it_reached(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    run = trainer(tiny_train(steps=6, log_every=1))

    def interrupt(progress: Progress) -> None:
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(interrupt)
    assert step_of(run) == 4


def test_too_few_windows_for_one_batch_are_refused(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    with pytest.raises(TrainingError, match="has 21 windows to train on, fewer than batch_size 22"):
        trainer(tiny_train(batch_size=22))


def test_epochs_count_whole_batches_and_steps_win(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    assert trainer(tiny_train(steps=None, epochs=3)).steps == 15
    assert trainer(tiny_train(steps=7, epochs=3)).steps == 7


def test_every_epoch_sees_each_window_once(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """21 windows in batches of 7: three steps are a permutation of all, and the next three another."""
    run = trainer(tiny_train(steps=6, batch_size=7))
    seen: list[list[int]] = []
    batch = run.windows.batch

    def watched(rows: Any, rng: Any, **more: Any) -> Any:
        seen.append(rows.tolist())
        return batch(rows, rng, **more)

    monkeypatch.setattr(run.windows, "batch", watched)
    run.run()
    epochs = [list(chain(*seen[:3])), list(chain(*seen[3:]))]
    assert [sorted(epoch) for epoch in epochs] == [list(range(21))] * 2
    assert epochs[0] != epochs[1]


def test_dropout_differs_from_step_to_step_and_not_from_run_to_run(
    trainer: Callable[..., Trainer], tiny_train: Callable[..., Any]
) -> None:
    """It draws from torch's own generator, which is therefore seeded with (seed, step) at each step."""
    draws: dict[str, list[Tensor]] = {"a": [], "b": []}
    for name, drawn in draws.items():
        run = trainer(tiny_train("transformer", steps=3), name)
        dropout = run.policy.network.drop
        dropout.register_forward_hook(lambda _, x, out, drawn=drawn: drawn.append(out == 0))
        torch.manual_seed(hash(name))
        run.run()
    assert len(draws["a"]) == 9  # iteration, frames and actions, at each step
    assert all(torch.equal(a, b) for a, b in zip(draws["a"], draws["b"], strict=True))
    for first in range(3):
        assert not any(torch.equal(a, b) for a, b in pairwise(draws["a"][first::3]))
