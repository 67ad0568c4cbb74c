"""Bags to a dataset: audited, resampled to the control rate, streamed, on many processes.

Every bag is looked through twice: once for its stamps and small values (audit, frames, rows), once for its pictures,
which go chunk by chunk from the bag into their reserved rows. Only then do its episodes count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from joblib import delayed
from numpy.typing import NDArray

from dp_ros.data.bags.audit import EpisodeAudit, audit_episode
from dp_ros.data.bags.reader import BagError, BagInfo, BagReader, find_bags
from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.picture_rows import PictureRows
from dp_ros.ros.bags.episode import BagEpisode, PictureSource, camera_topics, json_object, read_episode
from dp_ros.ros.bags.frames import Ticks, frames_of
from dp_ros.schema import AuditConfig, ConfigError, ConvertConfig
from dp_ros.train.workers import workers

_KEPT = ("task", "seed", "outcome", "operator", "note", "repaired")  # of what the bags say, in the dataset
_SPARSE = 0.95  # a bag that gives fewer of its ticks is named
OnProgress = Callable[[str, int, int], None]  # what is done, bags done, of


@dataclass(frozen=True)
class Converted:
    """What a conversion came to."""

    episodes: int
    ticks: int
    new_bags: int  # converted by this call
    refused: list[tuple[Path, str]]  # bags left out, and why
    sparse: list[tuple[Path, float]]  # bags of which only that share of the ticks has every stream


@dataclass(frozen=True)
class _Plan:
    """What is known of a bag that has been looked through: enough to read its pictures into a dataset."""

    info: BagInfo
    ticks: Ticks
    audit: EpisodeAudit
    pictures: PictureSource
    sizes: dict[str, tuple[int, int]]  # camera -> (height, width), as recorded
    collect: dict[str, Any]
    by_node: bool  # its frames are those that a policy node had
    order: int  # among all bags, refused ones too
    share: float  # of the ticks that the sensors cover, how many have every stream


@dataclass(frozen=True)
class _Refusal:
    path: Path
    why: str


def check(episode: BagEpisode, limits: AuditConfig) -> EpisodeAudit:
    """The audit of one bag."""
    lost: Counter[str] = Counter()
    for key in ("dropped", "lost"):
        lost.update(json_object(episode.info.custom.get(key, "{}")))
    steps = episode.result.get("steps") if episode.is_lockstep else None
    return audit_episode(
        {name: (track.stamps_ns, track.received_ns) for name, track in episode.tracks.items()},
        limits,
        dropped=lost,
        unreadable={name: track.unreadable for name, track in episode.tracks.items()},
        lockstep=episode.is_lockstep,
        result_steps=steps if isinstance(steps, int) else None,
    )


def convert(
    bags: Iterable[str | Path],
    out: str | Path,
    config: ConvertConfig,
    *,
    jobs: int = -1,
    cluster: str = "",
    on_progress: OnProgress | None = None,
) -> Converted:
    """Make, or go on making, the dataset `out` of all the bags found under `bags`.

    Bags converted by an earlier call are not converted again; new ones are added behind them. Raises BagError,
    ConfigError (bags that do not fit together), DatasetError, ClusterError.
    """
    paths = find_bags(bags)
    tell = on_progress or (lambda *_: None)
    with workers(jobs, cluster) as pool:
        cameras = config.cameras or _common_cameras(paths, config)
        looked: list[_Plan | _Refusal] = []
        calls = (delayed(_look_through)(path, order, config, cameras) for order, path in enumerate(paths))
        for plan in pool(calls):
            looked.append(plan)
            tell("checking", len(looked), len(paths))
        accepted = [plan for plan in looked if isinstance(plan, _Plan)]
        refused = [(plan.path, plan.why) for plan in looked if isinstance(plan, _Refusal)]
        if not accepted:
            path, why = refused[0]
            more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
            raise BagError(f"none of the {len(paths)} bags can be converted; {path}: {why}{more}")
        size = _common_size(accepted, cameras, config)
        collect = _common_settings(accepted, cameras, size)
        attributes = {
            "rate_hz": config.rate_hz,
            "collect": collect,
            "convert": {**config.model_dump(mode="json", exclude={"rate_hz"}), "cameras": list(cameras)},
        }
        accepted, entries = _in_order(accepted, bags_in(out))
        with DatasetWriter(out, attributes, growing={"bags": entries}) as writer:
            done = _bags_done(accepted, writer.episodes)
            pending = accepted[done:]
            starts = np.cumsum([writer.ticks, *(len(plan.ticks) for plan in pending)])
            if pending:
                writer.reserve(int(starts[-1] - writer.ticks), dict.fromkeys(cameras, (*size, 3)))
            calls = (
                delayed(_write_pictures)(plan, Path(out), int(start), size)
                for plan, start in zip(pending, starts, strict=False)
            )
            for index, edges in enumerate(pool(calls), start=done):
                _append(writer, accepted[index], edges)
                tell("converting", index + 1, len(accepted))
            if pending or not writer.complete:
                writer.finish()
            sparse = [(plan.info.path, plan.share) for plan in accepted if plan.share < _SPARSE]
            return Converted(writer.episodes, writer.ticks, len(pending), refused, sparse)


def _look_through(path: Path, order: int, config: ConvertConfig, cameras: Sequence[str]) -> _Plan | _Refusal:
    """In a worker: whether and how a bag is converted."""
    try:
        with BagReader(path) as bag:
            outcome = bag.info.outcome
        if outcome and outcome not in config.outcomes:
            hint = "; label it with `dp_ros bag label` when it is one" if outcome == "unknown" else ""
            return _Refusal(path, f"its outcome is {outcome}, not {' or '.join(config.outcomes)}{hint}")
        episode = read_episode(path, config.topics, cameras, (config.height_px, config.width_px))
        audit = check(episode, config.audit)
        if not (audit.passed or config.accept_failed):
            more = f" (and {len(audit.reasons) - 3} more)" if len(audit.reasons) > 3 else ""
            return _Refusal(path, f"fails the audit: {'; '.join(audit.reasons[:3])}{more}")
        ticks = frames_of(episode, config)
    except BagError as error:
        return _Refusal(path, str(error).removeprefix(f"{path}: "))
    covered = max(1, round(audit.sensed_s * config.rate_hz) + 1)
    facts = (episode.pictures, episode.sizes, episode.collect, bool(episode.ages) and not config.as_arrived)
    return _Plan(episode.info, ticks, audit, *facts, order, min(1.0, len(ticks) / covered))


def _write_pictures(
    plan: _Plan, out: Path, start: int, size: tuple[int, int]
) -> dict[str, dict[int, NDArray[np.uint8]]]:
    """In a worker: a bag's pictures into rows from `start` on; those that share a chunk are handed back."""
    rows_of: dict[str, dict[int, list[int]]] = {}
    for camera, indices in plan.ticks.pictures.items():
        rows_of[camera] = {}
        for row, index in enumerate(indices.tolist(), start=start):
            rows_of[camera].setdefault(index, []).append(row)
    missing = {camera: set(rows) for camera, rows in rows_of.items()}
    writers = {camera: PictureRows(out, camera, start, start + len(plan.ticks)) for camera in rows_of}
    for camera, index, picture in plan.pictures.read(lambda camera, i: i in rows_of[camera], *size):
        missing[camera].discard(index)
        for row in rows_of[camera][index]:
            writers[camera].put(row, picture)
    if any(missing.values()):
        raise BagError(
            f"{plan.info.path}: has changed since it was looked through; run the same command again"
        )
    return {camera: writer.edges for camera, writer in writers.items()}


def _append(writer: DatasetWriter, plan: _Plan, edges: dict[str, dict[int, NDArray[np.uint8]]]) -> None:
    said = plan.info.custom.get("seed", "")
    seed = int(said) if said.isdecimal() else -1
    turn = seed - plan.collect["first_seed"] if "first_seed" in plan.collect else None
    noise = plan.collect.get("noise", [0.0])
    writer.append_reserved(
        {name: getattr(plan.ticks, name) for name in ("ee_pose", "gripper", "action", "command")},
        edges,
        plan.ticks.segment_ends,
        seed=seed,
        noise=noise[turn % len(noise)] if turn is not None else 0.0,
        tried=plan.order + 1 if turn is None else turn + 1,
    )


def _bags_done(accepted: list[_Plan], episodes: int) -> int:
    """How many of the bags an earlier call has converted; each counts with all its pieces or not at all."""
    pieces = np.cumsum([len(plan.ticks.segment_ends) for plan in accepted])
    return int(np.searchsorted(pieces, episodes, side="right"))


def _entry(plan: _Plan) -> dict[str, Any]:
    """What the dataset keeps of a bag: which it was, how it ended, and its audit."""
    custom = plan.info.custom
    said = {key: custom[key] for key in _KEPT if key in custom}
    return {
        "name": plan.info.name,
        "start_ns": plan.info.start_ns,
        "messages": plan.info.messages,
        **said,
        "ticks": len(plan.ticks),
        "pieces": len(plan.ticks.segment_ends),
        "frames": "as the policy node had them" if plan.by_node else "by stamp",
        "audit": plan.audit.as_dict(),
    }


def bags_in(dataset: str | Path) -> list[dict[str, Any]]:
    """What a dataset says of the bags it was made of; empty where it is new."""
    if not (Path(dataset) / "zarr.json").is_file():
        return []
    bags: Any = zarr.open_group(Path(dataset).absolute(), mode="r").attrs.get("bags", [])
    return list(bags)


def _in_order(plans: list[_Plan], known: list[dict[str, Any]]) -> tuple[list[_Plan], list[dict[str, Any]]]:
    """The plans and their entries: bags the dataset knows as it has them, new ones behind. A note may have changed."""
    places = {(entry["name"], entry["start_ns"]): i for i, entry in enumerate(known)}

    def place(plan: _Plan) -> int:
        return places.get((plan.info.name, plan.info.start_ns), len(known))

    ordered = sorted(plans, key=place)
    return ordered, [known[place(p)] if place(p) < len(known) else _entry(p) for p in ordered]


def _common_cameras(paths: Sequence[Path], config: ConvertConfig) -> tuple[str, ...]:
    """The cameras that every bag has that may be converted."""
    common: dict[str, None] | None = None
    for path in paths:
        try:
            with BagReader(path) as bag:
                found = camera_topics(bag.info, config.topics)
                outcome = bag.info.outcome
        except BagError:
            continue  # refused later, with its reason
        if outcome and outcome not in config.outcomes:
            continue
        common = {c: None for c in (common if common is not None else sorted(found)) if c in found}
    if common is not None and not common:
        raise BagError(
            f"{paths[0].parent}: the bags have no camera in common: name one with --camera, or map it"
        )
    return tuple(common or ())


def _common_size(plans: Sequence[_Plan], cameras: Sequence[str], config: ConvertConfig) -> tuple[int, int]:
    """(height, width) of the dataset's pictures; ConfigError where they differ and no size is asked for."""
    if config.height_px:
        return config.height_px, config.width_px
    first = plans[0]
    height, width = first.sizes[cameras[0]]
    for plan in plans:
        for camera in cameras:
            if plan.sizes[camera] != (height, width):
                raise ConfigError(
                    f"{plan.info.path}: camera '{camera}' is {plan.sizes[camera][1]}x{plan.sizes[camera][0]} px, "
                    f"'{cameras[0]}' of {first.info.path} is {width}x{height}: give --size"
                )
    return height, width


def _common_settings(plans: Sequence[_Plan], cameras: Sequence[str], size: tuple[int, int]) -> dict[str, Any]:
    """What all bags were made with, as direct collection says it; at least the task and the pictures."""
    collect = plans[0].collect
    if collect and all(plan.collect == collect for plan in plans):
        return collect
    tasks = sorted({plan.info.custom.get("task", "") for plan in plans})
    if len(tasks) > 1:
        named = ", ".join(task or "none" for task in tasks)
        raise ConfigError(
            f"the bags hold several tasks ({named}): convert each by itself, or `dp_ros bag label --task` them"
        )
    return {"task": tasks[0], "cameras": list(cameras), "width_px": size[1], "height_px": size[0]}
