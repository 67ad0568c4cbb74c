"""`dp_ros inspect`: kind and contents of a folder: a checkpoint, a dataset or a bag."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dp_ros.cli.console import check_outputs, folder_mb, table_console
from dp_ros.cli.errors import USAGE, CliError
from dp_ros.cli.options import JsonFile

if TYPE_CHECKING:
    from dp_ros.schema import PolicyConfig

Rows = list[tuple[str, str]]
_SHOWN_BAGS = 20  # of a dataset's; the others are counted
_MANY_REPEATS = 0.2  # of the ticks, as `convert` warns


def inspect(
    name: Annotated[
        str, typer.Argument(metavar="PATH", help="A checkpoint, a run, a shipped model, a dataset or a bag.")
    ],
    json_path: JsonFile = None,
) -> None:
    """Show the kind and the contents of a folder.

    Example: dp_ros inspect drawer-open-v3-unet
    """
    from dp_ros.policy.checkpoint_config import read_config
    from dp_ros.policy.checkpoint_folder import CheckpointError, expanded, find_checkpoint, kind_of

    check_outputs(files=(json_path,))
    path: Path | None = None
    try:
        path = expanded(name)
        if facts := dataset_facts(path):
            _show(f"dataset {path}", dataset_rows(path, facts))
            _write(json_path, "dataset", asdict(facts))
            return
        if path.exists() and _is_bag(path):
            _show(f"bag {path}", bag_rows(path))
            _write(json_path, "bag", bag_facts(path))
            return
        checkpoint = find_checkpoint(name)
    except CheckpointError as error:
        neither = f"{path}: is neither a checkpoint nor a dataset of dp_ros nor a bag"
        said = f"{neither}, but {kind_of(path)[0]}" if path and path.exists() else str(error)
        raise CliError(said, USAGE) from None
    _show(f"checkpoint {checkpoint}", checkpoint_rows(checkpoint))
    _show_card(checkpoint)
    _write(json_path, "checkpoint", read_config(checkpoint))


@dataclass(frozen=True)
class TaskFacts:
    """Facts of one task in a dataset."""

    episodes: int
    tried: int  # seeds
    ticks: int
    longest: int  # episode [ticks]


@dataclass(frozen=True)
class DatasetFacts:
    """Facts from a dataset's arrays and attributes; its pictures are not read."""

    attributes: dict[str, Any]
    arrays: dict[str, tuple[int, ...]]  # name -> shape
    episodes: int
    tried: int  # seeds
    ticks: int  # of whole episodes
    noise: dict[float, int]  # std -> episodes
    tasks: dict[str, TaskFacts]  # of the finished episodes


def dataset_facts(path: Path) -> DatasetFacts | None:
    """Facts of the dataset in `path`, finished or not; None where it holds no dataset of dp_ros."""
    if not (path / "zarr.json").is_file():
        return None
    import numpy as np
    import zarr

    from dp_ros.data.episodes import (
        FORMAT,
        check_attributes,
        damage_in_one_line,
        open_group,
        read_tasks,
    )

    with damage_in_one_line(path):
        if zarr.open_group(path.absolute(), mode="r", zarr_format=3).attrs.get("format") != FORMAT:
            return None
        group: Any = open_group(path, mode="r")
        check_attributes(path, group)
        arrays = {
            name: member.shape for name, member in group.members(None) if isinstance(member, zarr.Array)
        }
        ends: list[int] = group["episode_ends"][:].tolist() if "episode_ends" in arrays else []
        noise: list[float] = group["noise"][: len(ends)].tolist() if "noise" in arrays else []
        in_first_datasets = group.attrs.get("tried", len(ends))
        tried = group["tried"][: len(ends)].tolist() if arrays.get("tried", (0,))[0] else []
        names, of_episode = read_tasks(group) if ends else ((), np.empty(0, np.int64))
    tasks = {}
    for index, name in enumerate(names):
        rows = [i for i in range(len(ends)) if of_episode[i] == index]
        lengths = [ends[i] - (ends[i - 1] if i else 0) for i in rows]
        if rows:
            of_task = tried[rows[-1]] if tried else in_first_datasets
            tasks[name] = TaskFacts(len(rows), of_task, sum(lengths), max(lengths))
    return DatasetFacts(
        attributes=dict(group.attrs),
        arrays=arrays,
        episodes=len(ends),
        tried=sum(task.tried for task in tasks.values()) if tasks else in_first_datasets,
        ticks=ends[-1] if ends else 0,
        noise=dict(Counter(noise)),
        tasks=tasks,
    )


def dataset_rows(path: Path, facts: DatasetFacts) -> Rows:
    attributes = dict(facts.attributes)
    complete = attributes.pop("complete", False)
    attributes.pop("tried", None)
    attributes.pop("tasks", None)
    bags = attributes.pop("bags", [])
    rate_hz = attributes.get("rate_hz", 0)
    duration = f", {facts.ticks / rate_hz:.0f} s" if rate_hz else ""
    rows = [
        ("complete", "yes" if complete else "no: run the command that made it again"),
        ("episodes", f"{facts.episodes} ({facts.tried} seeds tried)"),
        ("ticks", f"{facts.ticks}{duration}"),
        ("size", f"{folder_mb(path):.1f} MB"),
    ]
    for name, shape in sorted(facts.arrays.items()):
        if name.startswith("images/"):
            rows.append(("camera", f"{name.removeprefix('images/')} {shape[2]}x{shape[1]} px"))
    for task, of_task in facts.tasks.items():
        if task:
            shown = f"{of_task.episodes} episodes ({of_task.tried} seeds tried), {of_task.ticks} ticks"
            mean = of_task.ticks / of_task.episodes
            rows.append((f"task {task}", f"{shown}, {mean:.0f} an episode, {of_task.longest} in the longest"))
    noise = ", ".join(f"{std:g} in {count}" for std, count in sorted(facts.noise.items()))
    rows.append(("noise", f"{noise} episodes" if noise else "none"))
    return rows + list(bags_rows(bags)) + list(_flat(attributes))


def bags_rows(bags: list[dict[str, Any]]) -> Rows:
    """The bags that a dataset was made of: their streams together, and each bag with its audit."""
    if not bags:
        return []
    audits = [bag.get("audit", {}) for bag in bags]
    failed = sum(not audit.get("passed", True) for audit in audits)
    rows = [("bags", f"{len(bags)}, {failed or 'none'} with a failed audit")]
    streams: dict[str, list[dict[str, Any]]] = {}
    for audit in audits:
        for name, stream in audit.get("streams", {}).items():
            streams.setdefault(name, []).append(stream)
    for name, each in streams.items():
        rates = sorted(stream["rate_hz"] for stream in each)
        gap_ms, missing = max(s["max_gap_s"] for s in each) * 1e3, sum(s["missing"] for s in each)
        rate = f"{rates[0]:.1f} Hz" if rates[-1] - rates[0] < 0.1 else f"{rates[0]:.1f} to {rates[-1]:.1f} Hz"
        rows.append((f"stream {name}", f"{rate}, longest gap {gap_ms:.0f} ms, {missing} missing"))
    # Those with something to say come first, and all of them.
    told = [bag for bag in bags if _remarks(bag)]
    shown = told + [bag for bag in bags if not _remarks(bag)][: max(0, _SHOWN_BAGS - len(told))]
    for bag in shown:
        about = [bag.get("outcome") or "unknown", f"{bag.get('ticks', 0)} ticks"]
        if pieces := bag.get("pieces", 1) - 1:
            about.append(f"{pieces + 1} pieces")
        rows.append((f"bag {bag.get('name', '')}", "; ".join([", ".join(about), *_remarks(bag)])))
    if len(bags) > len(shown):
        rows.append(("", f"and {len(bags) - len(shown)} more bags, without a remark"))
    return rows


def _remarks(bag: dict[str, Any]) -> list[str]:
    """Why a bag fails its audit, what the audit notes, and the streams that repeat samples."""
    audit = bag.get("audit", {})
    repeats = [
        f"{share:.0%} of the ticks repeat {name}"
        for name, share in bag.get("repeats", {}).items()
        if share > _MANY_REPEATS
    ]
    reasons = [f"FAIL: {reason}" for reason in audit.get("reasons", [])]
    return [*reasons, *(f"note: {note}" for note in audit.get("notes", [])), *repeats]


def _is_bag(path: Path) -> bool:
    from dp_ros.data.bags.reader import is_bag

    return is_bag(path)


def bag_rows(path: Path) -> Rows:
    from dp_ros.data.bags.reader import BagReader

    with BagReader(path) as bag:
        info = bag.info
    rows = [
        ("messages", f"{info.messages} in {info.duration_s:.2f} s"),
        ("size", f"{folder_mb(path) if path.is_dir() else path.stat().st_size / 1e6:.1f} MB"),
        *info.custom.items(),
    ]
    return rows + [(topic, f"{count} {kind}") for topic, (kind, count) in sorted(info.topics.items())]


def bag_facts(path: Path) -> dict[str, Any]:
    from dp_ros.data.bags.reader import BagReader

    with BagReader(path) as bag:
        info = bag.info
    topics = {topic: {"messages": count, "type": kind} for topic, (kind, count) in info.topics.items()}
    return {
        "messages": info.messages,
        "duration_s": info.duration_s,
        "custom": dict(info.custom),
        "topics": topics,
    }


def _write(json_path: Path | None, kind: str, facts: dict[str, Any]) -> None:
    from dp_ros.files import write_json

    if json_path is not None:
        write_json(json_path, {"kind": kind, **facts})


def checkpoint_rows(folder: Path) -> Rows:
    """Facts of a checkpoint. The weights are loaded, too: a checkpoint that is shown can be served."""
    from dp_ros.policy.checkpoint import load_checkpoint
    from dp_ros.policy.checkpoint_config import read_config

    config = read_config(folder)
    policy = load_checkpoint(folder)
    settings = policy.config
    encoder, horizons, diffusion = settings.encoder, settings.horizons, settings.diffusion
    parameters = sum(parameter.numel() for parameter in policy.parameters())
    observed = "pictures and proprioception" if encoder.proprioception else "pictures only"
    rows = [
        ("task", settings.task or "none"),
        ("network", f"{_network(settings)}, {parameters / 1e6:.2f} M parameters"),
        ("size", f"{folder_mb(folder):.1f} MB, weights in {config.get('weights_dtype')}"),
        (
            "horizons",
            f"T_o {horizons.T_o} observed, T_p {horizons.T_p} predicted, T_a {horizons.T_a} executed",
        ),
        ("rate", f"{settings.rate_hz:g} Hz"),
        ("cameras", ", ".join(encoder.cameras)),
        ("pictures", encoder.describe(str(encoder.target(camera)) for camera in encoder.cameras)),
        ("crop", encoder.describe(encoder.crop_text(camera) for camera in encoder.cameras)),
        ("observes", observed),
        ("action", f"position {settings.action.position}, gripper {settings.action.gripper}"),
        (
            "sampler",
            f"{diffusion.sampler} {diffusion.sampler_iterations} of {diffusion.iterations} iterations, "
            f"{diffusion.spacing} spacing",
        ),
    ]
    rows += [(f"scene.{key}", value) for key, value in _flat(config.get("scene", {}))]
    training = dict(config.get("training", {}))
    history = training.pop("history", None)
    rows += [(f"training.{key}", value) for key, value in _flat(training)]
    if history:
        loss = " ".join(f"{value:.3g}" for _, value in history["loss"][:: max(1, len(history["loss"]) // 8)])
        rows += [("training.time", f"{history['seconds'] / 60:.1f} min"), ("training.loss", loss)]
    return rows


def _network(settings: PolicyConfig) -> str:
    if settings.network == "unet":
        return f"unet {list(settings.unet.channels)}"
    transformer = settings.transformer
    return f"transformer {transformer.layers} x {transformer.embedding_dim}, {transformer.heads} heads"


def _flat(values: dict[str, Any], prefix: str = "") -> Rows:
    """Rows of nested values, named by their dotted keys."""
    rows: Rows = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            rows += _flat({str(i): each for i, each in enumerate(value)}, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)))
    return rows


def _show(title: str, rows: Rows) -> None:
    from rich.table import Table

    table = Table("", "", title=title, title_justify="left", show_header=False)
    for name, value in rows:
        table.add_row(name, value)
    table_console().print(table)


def _show_card(folder: Path) -> None:
    """Show card.md, which has the measured success."""
    from rich.markdown import Markdown

    card = folder / "card.md"
    text = card.read_text().strip() if card.is_file() else ""
    table_console().print(Markdown(text) if text else "no card: success is not measured yet")
