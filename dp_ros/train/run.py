"""A training run from config and dataset to a checkpoint, which records its provenance."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros import __version__
from dp_ros.data.episodes import Dataset
from dp_ros.data.merged import load_merged, merged_layout, short_name
from dp_ros.data.windows import Windows
from dp_ros.policy.checkpoint import load_checkpoint
from dp_ros.policy.checkpoint_config import read_config, weights_sha256
from dp_ros.policy.checkpoint_folder import name_of
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.policy.instructions import make_instructions
from dp_ros.resources import share_dir
from dp_ros.schema import Settings, Source, TrainConfig
from dp_ros.train.batches import Batches
from dp_ros.train.device import computes_bf16, find_device
from dp_ros.train.distributed import Ranks
from dp_ros.train.fit import check_encoder, check_kept_tasks, fit
from dp_ros.train.idle_settings import idle_settings
from dp_ros.train.initial_weights import continued_from
from dp_ros.train.kept_features import FrozenPolicy, KeptFeatures, OnEncoded
from dp_ros.train.progress import Progress
from dp_ros.train.trainer import Build, MakeBatches, Trainer
from dp_ros.train.validation import Validation

_SCENE = ("width_px", "height_px", "markers")


def train(
    config: TrainConfig,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    resume: bool = False,
    on_start: Callable[[str], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_validation: Callable[[Validation], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
    command: Mapping[str, Any] | None = None,
    sources: Mapping[str, Source] | None = None,
    time_is_over: Callable[[], bool] = lambda: False,
    init: str | Path | None = None,
    on_encoded: OnEncoded | None = None,
) -> Path | None:
    """Train on the dataset `data`, or on several, in the run folder `out`; returns the checkpoint folder.

    `on_start` gets the name of the hardware, `on_warning` a line for each fault of the dataset. `command`: the user's
    options, kept in the checkpoint. `sources` of the config's values, to name in errors; without it, every value is
    taken as one that a user set. init: a checkpoint whose weights the training begins with. `on_encoded(done, all)` is
    called while the pictures are encoded for a training that keeps the encoder.
    Of several processes of a launcher, each calls this; only the first reports, the others return None.
    Raises ConfigError (the config does not fit the dataset), DatasetError, TrainingError, and TrainingPaused once
    `time_is_over`.
    """
    ranks = Ranks.join(config.device)
    trainer = make_trainer(
        config,
        data,
        out,
        resume=resume,
        command=command,
        sources=sources,
        ranks=ranks,
        on_warning=on_warning,
        init=init,
        on_encoded=on_encoded if ranks.first else None,
    )
    if on_start and ranks.first:
        on_start(trainer.hardware)
    reports = (on_progress, on_validation, time_is_over) if ranks.first else ()
    checkpoint = trainer.run(*reports)
    ranks.leave()
    return checkpoint if ranks.first else None


def make_trainer(
    config: TrainConfig,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    resume: bool = False,
    command: Mapping[str, Any] | None = None,
    sources: Mapping[str, Source] | None = None,
    build: Build = DiffusionPolicy,
    make_batches: MakeBatches = Batches,
    teacher: Mapping[str, Any] | None = None,
    ranks: Ranks | None = None,
    on_warning: Callable[[str], None] | None = None,
    init: str | Path | None = None,
    on_encoded: OnEncoded | None = None,
) -> Trainer:
    """Trainer of `train`, for the policy that `build` makes. Raises as `train`, before the first step.

    `make_batches` as in Trainer, unless the encoder of `init` is kept. `teacher`: the one that a student was distilled
    from, kept in its checkpoint.
    """
    settings = Settings.of(config, "config") if sources is None else Settings(config, sources)
    paths = [data] if isinstance(data, str | Path) else list(data)
    config = fit(settings, merged_layout(paths), short_name(paths)).config
    policy = config.policy
    if init:
        build = continued_from(init, policy, train_encoder=config.train_encoder)
    elif not teacher:
        check_encoder(config, init)
    tasks = merged_layout(paths).tasks
    check_kept_tasks(config, tasks, init)
    instructions = None
    if policy.instruction:
        instructions = make_instructions(policy.instruction, tasks, config.instructions)
        make_batches = partial(Batches, instructions=instructions)
    if init and not config.train_encoder:
        device = (ranks and ranks.device) or find_device(config.device)
        frozen = FrozenPolicy(load_checkpoint(init, device), config.precision)
        make_batches = partial(KeptFeatures, instructions=instructions, frozen=frozen, on_encoded=on_encoded)
    dataset, faults = load_merged(paths, policy.encoder.cameras, config.memory_gb * 1e9)
    if on_warning and (ranks is None or ranks.first):
        for line in (*faults, *idle_settings(config, instructions)):
            on_warning(line)
    windows = Windows(dataset, policy.horizons, policy.action, policy.encoder)
    collected = dataset.attributes.get("collect", {})
    trainer = Trainer(
        config,
        windows,
        out,
        scene={key: collected[key] for key in _SCENE if key in collected},
        provenance=provenance(dataset, command or {})
        | ({"teacher": dict(teacher)} if teacher else {})
        | ({"init": _init_facts(init)} if init else {}),
        resume=resume,
        build=build,
        make_batches=make_batches,
        ranks=ranks,
        instructions=instructions,
    )
    is_slow = config.precision == "bf16" and not computes_bf16(trainer.device, "bf16")
    if on_warning and trainer.ranks.first and is_slow:
        on_warning("precision bf16: this processor multiplies no bf16, so the training computes in f32")
    return trainer


def _init_facts(init: str | Path) -> dict[str, Any]:
    """The checkpoint whose weights a training begins with: name, weights, training, and the data it and its own saw."""
    training = read_config(init).get("training", {})
    kept = ("command", "step", "hardware", "init", "teacher")
    earlier = {key: training[key] for key in kept if key in training}
    history = training.get("history") or {}
    return {
        "name": name_of(init),
        "weights_sha256": weights_sha256(init),
        "data": training.get("data", {}),
        **({"seconds": history["seconds"]} if "seconds" in history else {}),
        **earlier,
    }


def provenance(dataset: Dataset, command: Mapping[str, Any]) -> dict[str, Any]:
    """Software, command and data of a run; nothing about the machine."""
    commit = git_commit()
    attributes = dataset.attributes
    return {
        "dp_ros": __version__,
        **({"commit": commit} if commit else {}),
        "command": dict(command),
        "data": {
            **attributes.get("collect", {}),
            **({"tasks": list(dataset.tasks)} if len(dataset.tasks) > 1 else {}),
            "rate_hz": attributes.get("rate_hz"),
            "episodes": len(dataset.episode_ends),
            "ticks": len(dataset),
            **{key: attributes[key] for key in ("tried", "parts") if key in attributes},
            **({} if dataset.seed is None else _seeds(dataset.seed)),
        },
    }


def _seeds(seeds: NDArray[np.int64]) -> dict[str, Any]:
    """Seeds of the episodes as ranges [first, last], and the number of episodes whose seed is unknown."""
    known = np.unique(seeds[seeds >= 0])
    runs = np.split(known, np.flatnonzero(np.diff(known) > 1) + 1) if len(known) else []
    unknown = int((seeds < 0).sum())
    return {
        "seeds": [[int(run[0]), int(run[-1])] for run in runs],
        **({"seeds_unknown": unknown} if unknown else {}),
    }


def git_commit() -> str | None:
    """Commit of the source checkout, with "-dirty" for local changes; None for an installed package."""
    try:
        root = share_dir()
        if not (root / ".git").exists():
            return None
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},  # never writes, not even the index
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
