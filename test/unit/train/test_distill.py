"""Distillation: a student learns its teacher's plans, is an ordinary checkpoint, and resumes as the same run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import Dataset
from dp_ros.data.reader import StoredEpisode
from dp_ros.data.windows import Windows
from dp_ros.evaluation.card import card_text
from dp_ros.evaluation.seeds import check_unseen
from dp_ros.policy.checkpoint import load_checkpoint, read_config, save_checkpoint
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.sampler import sampler_steps
from dp_ros.schema import ConfigError, DistillConfig, PolicyConfig, override
from dp_ros.train.distill import distill
from dp_ros.train.lessons import KeptLessons, Teacher
from dp_ros.train.progress import Progress
from dp_ros.train.stopping import TrainingError

pytestmark = pytest.mark.usefixtures("one_thread")
HEIGHT_PX, WIDTH_PX = 36, 40
CPU = torch.device("cpu")


def write_dataset(path: Path, camera: str = "left", rate_hz: float = 80.0, size: int = WIDTH_PX) -> Path:
    rng = np.random.default_rng(0)
    with DatasetWriter(path, {"rate_hz": rate_hz, "collect": {"task": "reach-v3"}}) as writer:
        for i in range(2):
            length = 9 + i
            command = np.cumsum(rng.uniform(-0.01, 0.01, (length, 4)), axis=0)
            episode = StoredEpisode(
                seed=i,
                noise=0.0,
                tried=i + 1,
                images={camera: rng.integers(0, 256, (length, HEIGHT_PX, size, 3), dtype=np.uint8)},
                ee_pose=command[:, :3],
                gripper=rng.random(length),
                action=command,
                command=command,
            )
            writer.append(episode, i + 1)
        writer.finish()
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "reach")


def one_camera(policy: PolicyConfig) -> PolicyConfig:
    return override(policy, {"encoder.cameras": ["left"], "task": "reach-v3"})


@pytest.fixture
def teacher(each_policy: PolicyConfig, stats: dict[str, Any], tmp_path: Path) -> Path:
    torch.manual_seed(0)
    policy = DiffusionPolicy(one_camera(each_policy), stats)
    return save_checkpoint(policy, tmp_path / "teacher", training={"data": {"seeds": [[5, 9]]}})


@pytest.fixture
def unet_teacher(tiny_policy: PolicyConfig, stats: dict[str, Any], tmp_path: Path) -> Path:
    torch.manual_seed(0)
    policy = DiffusionPolicy(one_camera(tiny_policy), stats)
    began_with = {"name": "first", "data": {"tasks": ["reach-v3"], "seeds": [[20, 22]]}}
    return save_checkpoint(policy, tmp_path / "unet", training={"init": began_with})


def config(**changes: Any) -> DistillConfig:
    usual = {
        "batch_size": 8, "steps": 4, "warmup_steps": 2, "device": "cpu", "precision": "f32", "teacher_iterations": 4,
    }  # fmt: skip
    return DistillConfig.model_validate({**usual, **changes})


def losses_of(settings: DistillConfig, *where: Path) -> list[float]:
    losses: list[float] = []
    distill(settings, *where, on_progress=lambda progress: losses.append(progress.loss))
    return losses


def test_student_learns_the_plans_and_is_an_ordinary_checkpoint(
    teacher: Path, data: Path, tmp_path: Path
) -> None:
    settings = config(steps=60, batch_size=16, lr=5e-3, log_every=20, ema_max=0.9)
    losses = losses_of(settings, teacher, data, tmp_path / "run")
    assert losses[-1] < 0.75 * losses[0]
    student, asked = load_checkpoint(tmp_path / "run" / "checkpoint"), load_checkpoint(teacher)
    assert student.config.diffusion.distilled_for == (19, 9)
    assert student.config.horizons == asked.config.horizons
    for name, weights in asked.encoder.state_dict().items():
        assert torch.equal(weights, student.encoder.state_dict()[name])


def test_card_and_config_name_the_teacher(unet_teacher: Path, data: Path, tmp_path: Path) -> None:
    checkpoint = distill(
        config(student_iterations=1), unet_teacher, data, tmp_path / "run", command={"set": ["steps=4"]}
    )
    assert checkpoint is not None
    digest = read_config(unet_teacher)["sha256"]["policy.safetensors"]
    assert read_config(checkpoint)["training"]["teacher"]["weights_sha256"] == digest
    card = card_text(checkpoint, "small")
    assert (
        f"**Distilled** from unet, weights sha256 {digest}, which planned with DDIM, 4 iterations, leading"
        in card
    )
    assert "dp_ros distill unet --data DATA --out RUN --set steps=4" in card
    assert "1 of 20 iterations, trailing spacing" in card
    with pytest.raises(ConfigError, match="overlap the training seeds 20 to 22"):
        check_unseen(read_config(checkpoint), "reach-v3", [21])


def test_labels_are_the_plans_of_the_teacher_for_the_pictures_and_the_noise(
    unet_teacher: Path, make_dataset: Callable[..., Dataset]
) -> None:
    """Without a random crop, features and plans must be those of the windows themselves, in every view."""
    policy = load_checkpoint(unet_teacher)
    whole = override(policy.config, {"encoder.crop_height_px": HEIGHT_PX, "encoder.crop_width_px": WIDTH_PX})
    windows = Windows(make_dataset(), whole.horizons, whole.action, whole.encoder)
    steps = sampler_steps(policy.config.diffusion)
    rows = np.arange(3, len(windows))
    lessons = KeptLessons(config(policy=whole), windows, rows, frozen=Teacher(policy, steps, "f32"))
    lessons.prepare(CPU)
    batch = lessons.tensors(1, CPU)
    chosen = lessons.runs(1).ravel()
    pixels, state, _ = windows.centred(chosen)
    images = [torch.from_numpy(each).movedim(-1, -3).float() / 255.0 for each in pixels]
    assert batch.noise is not None
    plans = policy.plan_from(images, torch.from_numpy(state), lambda: batch.noise, steps)
    torch.testing.assert_close(batch.actions, plans, atol=1e-4, rtol=0)
    nstate = torch.from_numpy(state)
    torch.testing.assert_close(
        policy.encode(batch.images, nstate), policy.encode(images, nstate), atol=1e-5, rtol=0
    )
    assert len(np.unique(batch.noise.numpy())) == batch.noise.numel()


class Stop(Exception):
    """Ends a run between two steps, as a kill would."""


@pytest.mark.parametrize("train_encoder", [False, True])
def test_resumed_distillation_is_the_one_that_was_never_stopped(
    unet_teacher: Path, data: Path, tmp_path: Path, train_encoder: bool
) -> None:
    settings = config(train_encoder=train_encoder, checkpoint_every=2, log_every=1)

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise Stop

    distill(settings, unet_teacher, data, tmp_path / "whole")
    with pytest.raises(Stop):
        distill(settings, unet_teacher, data, tmp_path / "stopped", on_progress=stop)
    distill(settings, unet_teacher, data, tmp_path / "stopped", resume=True)
    whole, resumed = (load_file(tmp_path / run / "state.safetensors") for run in ("whole", "stopped"))
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    weights = load_checkpoint(unet_teacher).state_dict()
    changed = any(
        not torch.equal(weights[n], whole[f"policy/{n}"]) for n in weights if n.startswith("encoder")
    )
    assert changed == train_encoder


def test_what_does_not_fit_is_refused_in_one_line(
    unet_teacher: Path, data: Path, tmp_path: Path, stats: dict[str, Any]
) -> None:
    def refused(error: type[Exception], of: Path, on: Path, out: str, **more: Any) -> str:
        with pytest.raises(error) as caught:
            distill(config(), of, on, tmp_path / out, **more)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    other = write_dataset(tmp_path / "front", "front", 30.0)
    said = refused(ConfigError, unet_teacher, other, "a")
    assert "lacks the camera left; it has front" in said
    assert "recorded at 30 Hz, the teacher runs at 80 Hz" in said
    said = refused(ConfigError, unet_teacher, write_dataset(tmp_path / "wide", size=48), "a")
    assert "pictures of left are 48x36 px, the teacher's 40x36" in said
    assert not (tmp_path / "a").exists()

    policy = load_checkpoint(unet_teacher)
    task = override(policy.config, {"task": "push-v3"})
    another = save_checkpoint(DiffusionPolicy(task, stats), tmp_path / "another")
    assert "holds reach-v3, the teacher was trained for push-v3" in refused(ConfigError, another, data, "a")

    student = distill(config(), unet_teacher, data, tmp_path / "run")
    assert student is not None
    assert "is itself a student, of unet" in refused(ConfigError, student, data, "b")
    assert "already holds a run; add --resume" in refused(TrainingError, unet_teacher, data, "run")
    retrained = save_checkpoint(DiffusionPolicy(policy.config, stats), tmp_path / "retrained")
    said = refused(TrainingError, retrained, data, "run", resume=True)
    assert "another config or dataset, or from another teacher" in said
