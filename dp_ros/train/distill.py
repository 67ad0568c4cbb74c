"""A distillation from a teacher's checkpoint and a dataset to a student's checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dp_ros.data.episodes import DatasetLayout, read_layout
from dp_ros.policy.checkpoint import load_checkpoint
from dp_ros.policy.checkpoint_config import policy_config, read_config, weights_sha256
from dp_ros.policy.checkpoint_folder import name_of
from dp_ros.policy.noise_levels import visited_iterations
from dp_ros.policy.sampler import sampler_steps
from dp_ros.schema import ConfigError, DiffusionConfig, DistillConfig, PolicyConfig, override
from dp_ros.train.device import find_device
from dp_ros.train.distributed import Ranks
from dp_ros.train.lessons import KeptLessons, Lessons, Teacher
from dp_ros.train.progress import Progress
from dp_ros.train.run import make_trainer
from dp_ros.train.student import Student
from dp_ros.train.trainer import MakeBatches
from dp_ros.train.validation import Validation


def distill(
    config: DistillConfig,
    teacher: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    on_start: Callable[[str], None] | None = None,
    on_planned: Callable[[int, int], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_validation: Callable[[Validation], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
    command: Mapping[str, Any] | None = None,
) -> Path | None:
    """Train a student of the checkpoint in the folder `teacher` in the run folder `out`; returns its checkpoint folder.

    `config.policy` is ignored: it follows from the teacher. `on_planned(done, all)` is called while the teacher plans
    in advance. The other arguments, what is returned and what is raised are those of `train`; also CheckpointError, and
    ConfigError for a teacher that cannot be distilled.
    """
    ranks = Ranks.join(config.device)
    config = config.model_copy(update={"policy": student_policy(teacher, config)})
    faults = list(_faults(config.policy, read_layout(data)))
    if faults:
        raise ConfigError(f"{data}: does not fit the teacher {name_of(teacher)}: {'; '.join(faults)}")
    of_teacher = load_checkpoint(teacher, ranks.device or find_device(config.device))
    solver = teacher_sampler(of_teacher.config.diffusion, config)
    planner = Teacher(of_teacher, sampler_steps(solver), config.precision)
    make_batches: MakeBatches = (
        partial(Lessons, teacher=planner)
        if config.train_encoder
        else partial(KeptLessons, frozen=planner, on_encoded=on_planned if ranks.first else None)
    )
    trainer = make_trainer(
        config,
        data,
        out,
        resume=resume,
        command=command,
        build=lambda policy, stats: Student(policy, of_teacher, train_encoder=config.train_encoder),
        make_batches=make_batches,
        teacher=_teacher_facts(teacher, solver),
        ranks=ranks,
        on_warning=on_warning,
    )
    if on_start and ranks.first:
        on_start(trainer.hardware)
    checkpoint = trainer.run(*((on_progress, on_validation) if ranks.first else ()))
    ranks.leave()
    return checkpoint if ranks.first else None


def student_policy(teacher: str | Path, config: DistillConfig) -> PolicyConfig:
    """The teacher's meaning with the student's sampler. ConfigError where the teacher cannot be distilled."""
    policy, name = _checked_teacher(teacher)
    K, calls = policy.diffusion.iterations, config.student_iterations
    diffusion = {
        "prediction": "sample",
        "sampler": "ddim",
        "sampler_iterations": calls,
        "spacing": "trailing",
        "prefix": 0,
        "distilled_for": visited_iterations(K, min(calls, K), "trailing"),
    }
    return override(policy, {f"diffusion.{key}": value for key, value in diffusion.items()}, where=name)


def _checked_teacher(teacher: str | Path) -> tuple[PolicyConfig, str]:
    policy, name = policy_config(teacher), name_of(teacher)
    if policy.instruction:
        raise ConfigError(
            f"{teacher}: is told what to do by a sentence, and only policies of one task are distilled"
        )
    if policy.diffusion.distilled_for:
        of = read_config(teacher).get("training", {}).get("teacher", {}).get("name", "another policy")
        raise ConfigError(
            f"{teacher}: is itself a student, of {of}, and a student of it would inherit its errors: give {of}"
        )
    return policy, name


def teacher_sampler(diffusion: DiffusionConfig, config: DistillConfig) -> DiffusionConfig:
    """The sampler of the teacher's plans: DDIM, because a chunk must follow from its first noise."""
    calls = min(config.teacher_iterations, diffusion.iterations)
    changes = {
        "sampler": "ddim",
        "sampler_iterations": calls,
        "spacing": "leading" if calls > 1 else "trailing",
    }
    return override(diffusion, changes, where="teacher")


def _teacher_facts(teacher: str | Path, solver: DiffusionConfig) -> dict[str, Any]:
    """The teacher, for the student's checkpoint: name, weights, sampler of its plans, and the data that it saw."""
    training = read_config(teacher).get("training", {})
    return {
        "name": name_of(teacher),
        "weights_sha256": weights_sha256(teacher),
        "sampler": solver.sampler,
        "sampler_iterations": solver.sampler_iterations,
        "spacing": solver.spacing,
        "data": training.get("data", {}),
        **({"init": training["init"]} if "init" in training else {}),
    }


def _faults(policy: PolicyConfig, layout: DatasetLayout) -> Iterator[str]:
    """A text for each way in which a dataset differs from that of a trained policy."""
    if policy.task and layout.task and layout.task != policy.task:
        yield f"it holds {layout.task}, the teacher was trained for {policy.task}"
    if layout.rate_hz is not None and layout.rate_hz != policy.rate_hz:
        yield f"it was recorded at {layout.rate_hz:g} Hz, the teacher runs at {policy.rate_hz:g} Hz"
    for camera in policy.encoder.cameras:
        target = policy.encoder.target(camera)
        if camera not in layout.cameras:
            yield f"it lacks the camera {camera}; it has {', '.join(layout.cameras)}"
        elif layout.cameras[camera] != target.size:
            height, width = layout.cameras[camera]
            wanted = f"{target.width_px}x{target.height_px}"
            yield f"its pictures of {camera} are {width}x{height} px, the teacher's {wanted}"
