"""Batches: shared frames change the cost and not the result; augmentation follows its definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dp_ros.data.episodes import Dataset
from dp_ros.data.windows import Windows
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import AugmentationConfig, ConfigError, TrainConfig, override, parse
from dp_ros.train.augmentation import draw_colours, recolour
from dp_ros.train.batches import Batches, Prefetch

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTHS = (12, 9, 13)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def make_batches(make_dataset: Callable[..., Dataset]) -> Callable[..., Batches]:
    def make(config: TrainConfig, part: tuple[int, int] = (0, 1)) -> Batches:
        policy = config.policy
        windows = Windows(make_dataset(LENGTHS), policy.horizons, policy.action, policy.encoder)
        return Batches(config, windows, np.arange(len(windows)), part)

    return make


def test_shared_frames_teach_what_separate_ones_do(
    make_batches: Callable[..., Batches],
    tiny_train: Callable[..., Any],
    each_policy: Any,
    stats: dict[str, Any],
) -> None:
    """Same loss and gradient as when the frames of each window are encoded separately."""
    batch = make_batches(tiny_train(policy=each_policy, batch_size=12, run_length=4)).tensors(0, CPU)
    assert batch.frames is not None
    assert all(len(of_camera) <= 3 * (4 + 1) for of_camera in batch.images)
    separate = [of_camera[batch.frames] for of_camera in batch.images]
    torch.manual_seed(0)
    policy = DiffusionPolicy(each_policy, stats).eval()  # no dropout
    gradients = []
    for images, frames in ((batch.images, batch.frames), (separate, None)):
        policy.zero_grad()
        noise = torch.Generator().manual_seed(1)
        policy.loss(images, batch.state, batch.actions, noise, 2, frames=frames).backward()
        gradients.append([p.grad.clone() for p in policy.parameters() if p.grad is not None])
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-6)


def test_windows_of_a_run_see_their_own_frames_under_one_crop(
    make_dataset: Callable[..., Dataset], tiny_policy: Any
) -> None:
    dataset = make_dataset(LENGTHS)
    for pixels in dataset.images.values():  # each pixel holds its row, column and tick
        pixels[..., 0], pixels[..., 1] = np.arange(36)[:, None], np.arange(40)
        pixels[..., 2] = np.arange(len(dataset))[:, None, None]
    windows = Windows(dataset, tiny_policy.horizons, tiny_policy.action, tiny_policy.encoder)
    runs = np.array([[9, 10, 11, 12], [0, 1, 2, 3]])  # the first goes on in the next episode
    batch = windows.batch_of_runs(runs, np.random.default_rng(0))
    assert batch.frames is not None
    for of_camera in batch.images:
        assert len(of_camera) == (4 + 1) + 4  # before an episode there is no frame to add
        for window, row in enumerate(runs.ravel()):
            seen = of_camera[batch.frames[window]]
            assert (seen[..., 2] == windows.frames[row][:, None, None]).all()
        for run in range(2):
            corners = of_camera[batch.run == run][:, 0, 0, :2]
            assert (corners == corners[:1]).all()
    np.testing.assert_array_equal(batch.actions, windows.actions[runs.ravel()])


@given(st.integers(1, 5), st.integers(0, 3))
def test_every_epoch_is_a_permutation_of_runs_of_neighbours(
    make_batches: Callable[..., Batches], tiny_train: Callable[..., Any], length: int, epoch: int
) -> None:
    batches = make_batches(tiny_train(batch_size=length, run_length=length))
    steps = range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch)
    runs = np.concatenate([batches.runs(step) for step in steps])
    assert len(set(runs.ravel())) == runs.size == sum(LENGTHS) // length * length
    assert ((np.diff(runs, axis=1) % sum(LENGTHS)) == 1).all()


def test_runs_are_cut_elsewhere_in_each_epoch(
    make_batches: Callable[..., Batches], tiny_train: Callable[..., Any]
) -> None:
    batches = make_batches(tiny_train(batch_size=4, run_length=4))
    begins = {int(batches.runs(epoch * batches.per_epoch)[0, 0]) % 4 for epoch in range(30)}
    assert begins >= {0, 1, 2, 3}


@pytest.mark.parametrize("length", [1, 2])
def test_parts_of_a_batch_together_are_the_whole(
    make_batches: Callable[..., Batches], tiny_train: Callable[..., Any], length: int
) -> None:
    change = {"brightness": 0.3, "contrast": 0.2, "saturation": 0.5, "cover": 0.5}
    config = tiny_train(batch_size=8, run_length=length, augmentation=change)
    whole = make_batches(config).tensors(5, CPU)
    parts = [make_batches(config, (i, 2)).tensors(5, CPU) for i in range(2)]
    for view, of_camera in enumerate(whole.images):
        assert torch.equal(torch.cat([part.images[view] for part in parts]), of_camera)
    assert torch.equal(torch.cat([part.actions for part in parts]), whole.actions)


def test_one_colour_for_all_frames_of_a_window_and_others_for_the_next(
    make_batches: Callable[..., Batches], tiny_train: Callable[..., Any]
) -> None:
    plain = tiny_train(batch_size=8)
    bright = override(plain, {"augmentation": {"brightness": 0.2}})
    before, after, again = (
        torch.stack(make_batches(c).tensors(1, CPU).images, 2) for c in (plain, bright, bright)
    )
    assert torch.equal(after, again)
    assert after.shape == before.shape
    unclipped = (after < 1) & (before > 0.1)
    ratio = torch.where(unclipped, after / before, torch.nan)
    of_windows = ratio.flatten(1).nanmedian(1).values
    torch.testing.assert_close(
        ratio[unclipped], of_windows.view(-1, 1, 1, 1, 1, 1).expand_as(ratio)[unclipped], rtol=1e-4, atol=1e-4
    )
    assert len({round(float(r), 4) for r in of_windows}) == 8
    assert all(0.8 <= r <= 1.2 for r in of_windows)


@pytest.mark.parametrize("length", [1, 4])
def test_covers_are_plain_rectangles_the_same_in_all_frames_of_a_run(
    make_batches: Callable[..., Batches], tiny_train: Callable[..., Any], length: int
) -> None:
    plain = tiny_train(batch_size=32, run_length=length)
    covering = override(plain, {"augmentation": {"cover": 0.5}})
    covered, total = 0, 0
    for step in range(8):
        (clear, _), (batch, colours) = (make_batches(config).arrays(step) for config in (plain, covering))
        assert colours is None
        np.testing.assert_array_equal(batch.images, make_batches(covering).arrays(step)[0].images)
        for pictures, uncovered in zip(batch.images, clear.images, strict=True):
            changed = (pictures != uncovered).any(axis=-1)
            for run in range(32 // length):
                total += 1
                where = changed[batch.run == run].reshape(-1, *changed.shape[-2:]).any(axis=0)
                if not where.any():
                    continue
                covered += 1
                (down,), (across,) = where.any(axis=1).nonzero(), where.any(axis=0).nonzero()
                box = (slice(down[0], down[-1] + 1), slice(across[0], across[-1] + 1))
                height, width = where.shape
                assert 0.1 < len(down) / height < 0.8
                assert 0.1 < len(across) / width < 0.8
                inside = pictures[batch.run == run].reshape(-1, *pictures.shape[-3:])[:, *box]
                assert (inside == inside[0, 0, 0]).all()
    assert 0.35 < covered / total < 0.65


def test_colours_are_those_of_their_definitions() -> None:
    """Saturation keeps the luma, contrast keeps mid-grey, brightness scales."""
    luma = torch.tensor([0.299, 0.587, 0.114])
    images = torch.rand(3, 2, 5, 4, 3, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    rng = np.random.default_rng(0)

    def change(images: torch.Tensor, **strength: float) -> torch.Tensor:
        return recolour(
            images, torch.from_numpy(draw_colours(AugmentationConfig(**strength), 3, 1, rng))[:, 0]
        )

    saturated = change(images, saturation=0.5)
    torch.testing.assert_close(saturated @ luma, images @ luma)
    assert not torch.allclose(saturated, images)
    grey = torch.full_like(images, 0.5)
    torch.testing.assert_close(change(grey, contrast=0.5, saturation=0.5), grey)
    torch.testing.assert_close(change(images), images)
    harsh = change(images * 2, brightness=0.9)
    assert harsh.min() >= 0
    assert harsh.max() <= 1


def test_batch_of_a_step_is_the_same_whether_it_was_made_ahead_or_not(
    make_batches: Callable[..., Batches], tiny_train: Callable[..., Any]
) -> None:
    batches = make_batches(tiny_train())
    ahead = Prefetch(lambda step: batches.tensors(step, CPU), steps=4)
    for step in (0, 1, 2, 3, 1):
        for ours, expected in zip(ahead(step).images, batches.tensors(step, CPU).images, strict=True):
            assert torch.equal(ours, expected)
    ahead.close()


def test_batch_is_made_of_whole_runs() -> None:
    with pytest.raises(ConfigError, match="batch_size 64 is not a multiple of run_length 5"):
        parse(TrainConfig, {"run_length": 5}, where="test")


def test_tasks_are_balanced_in_every_batch_and_epoch(
    make_dataset: Callable[..., Dataset], tiny_train: Callable[..., Any]
) -> None:
    """A task of few windows counts as much as one of many, and all its windows occur equally often."""
    dataset = replace(make_dataset((30, 6, 24)), tasks=("long", "short"), task=np.array([0, 1, 0]))
    config = tiny_train(batch_size=6)
    policy = config.policy
    windows = Windows(dataset, policy.horizons, policy.action, policy.encoder)
    batches = Batches(config, windows, np.arange(len(windows)))
    epoch = [batches.runs(step)[:, 0] for step in range(batches.per_epoch)]
    for rows in epoch:
        assert (windows.task[rows] == 1).sum() == 3
    counts = np.bincount(np.concatenate(epoch), minlength=60)
    assert set(counts[30:36]) == {5}
    assert set(counts[:30]) | set(counts[36:]) == {0, 1}
    assert not np.array_equal(epoch[0], batches.runs(batches.per_epoch)[:, 0])
    unbalanced = Batches(override(config, {"balanced": False}), windows, np.arange(len(windows)))
    rows = np.concatenate([unbalanced.runs(step)[:, 0] for step in range(unbalanced.per_epoch)])
    assert sorted(rows) == list(range(60))
