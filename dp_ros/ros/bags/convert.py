"""Bags to a dataset: audited, resampled to the control rate, streamed, on many processes.

Every bag is read twice: first its stamps and small values (audit, frames, rows), then its pictures, which go chunk by
chunk from the bag into their reserved rows. A bag's episodes count once its pictures are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import delayed
from numpy.typing import NDArray

from dp_ros.data.bags.audit import EpisodeAudit, foreign_clocks
from dp_ros.data.bags.pose_audit import frame_faults
from dp_ros.data.bags.reader import BagError, BagInfo, BagReader, find_bags
from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import LOW_DIMENSIONAL, fits, open_group
from dp_ros.data.faults import MANY_REPEATS
from dp_ros.data.picture_rows import PictureRows
from dp_ros.ros.bags.check import check, recorded_poses
from dp_ros.ros.bags.common import common_cameras, common_settings, common_targets, settings_of
from dp_ros.ros.bags.episode import PictureSource
from dp_ros.ros.bags.episode_reader import read_episode
from dp_ros.ros.bags.frames import Ticks, frames_of
from dp_ros.ros.bags.rate import RecordedRate, common_rate, recorded_rate
from dp_ros.schema import ConvertConfig, Size, Target
from dp_ros.train.workers import workers

_KEPT = ("task", "seed", "outcome", "operator", "note", "repaired")  # of a bag's custom data, in the dataset
_SPARSE = 0.95  # bags with fewer of their ticks are named
OnProgress = Callable[[str, int, int], None]  # stage, bags done, of


@dataclass(frozen=True)
class Converted:
    """Result of a conversion."""

    episodes: int
    ticks: int
    new_bags: int  # converted by this call
    refused: list[tuple[Path, str]]  # bags left out, and why
    sparse: list[tuple[Path, float]]  # bags of which only that share of the ticks has every stream
    rate: RecordedRate
    repeats: dict[
        str, float
    ]  # stream -> share of the ticks with the sample of the tick before, where many have


@dataclass(frozen=True)
class _Accepted:
    """A bag after its first reading: all that is needed to read its pictures into a dataset."""

    info: BagInfo
    ticks: Ticks
    audit: EpisodeAudit
    pictures: PictureSource
    sizes: dict[str, Size]  # camera -> size, as recorded
    collect: dict[str, Any]
    by_node: bool  # its frames are those that a policy node had
    order: int  # among all bags, refused ones too
    share: float  # of the ticks that the sensors cover, how many have every stream
    rate: RecordedRate  # of its ticks


@dataclass(frozen=True)
class _Refusal:
    path: Path
    reason: str
    order: int


def convert(
    bags: Iterable[str | Path],
    out: str | Path,
    config: ConvertConfig,
    *,
    jobs: int = -1,
    cluster: str = "",
    on_progress: OnProgress | None = None,
) -> Converted:
    """Make the dataset `out` of all the bags found under `bags`, or resume a conversion that was interrupted.

    Bags converted by an earlier call are not converted again; new ones are added after them. Without a rate in the
    configuration, the rate is that of the dataset, or of the recordings where the dataset is begun. Raises BagError,
    ConfigError (bags that do not fit together), DatasetError, ClusterError.
    """
    paths = find_bags(bags)
    report = on_progress or (lambda *_: None)
    with workers(jobs, cluster) as pool:
        begun = _attributes(out)
        given = config.rate_hz or begun.get("rate_hz", 0.0)
        cameras = config.cameras or common_cameras(paths, config)
        if cameras:
            config.check_cameras(cameras, "convert")
        config = config.model_copy(update={"rate_hz": given})
        examined, rate = _examine_all(pool, paths, config, cameras, report)
        accepted = [bag for bag in examined if isinstance(bag, _Accepted)]
        refused = [(bag.path, bag.reason) for bag in examined if isinstance(bag, _Refusal)]
        if not accepted:
            path, reason = refused[0]
            more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
            raise BagError(f"none of the {len(paths)} bags can be converted; {path}: {reason}{more}")
        targets = common_targets([(bag.info, bag.sizes) for bag in accepted], config)
        attributes = {
            "rate_hz": rate.hz,
            "collect": common_settings([(bag.info, bag.collect) for bag in accepted], targets),
            "convert": settings_of(config, cameras, begun.get("convert", {})),
            **fits({camera: target.fit for camera, target in targets.items()}),
        }
        accepted, entries = _in_order(accepted, bags_in(out))
        with DatasetWriter(out, attributes, growing={"bags": entries}) as writer:
            done = _bags_done(accepted, writer.episodes)
            pending = accepted[done:]
            starts = np.cumsum([writer.ticks, *(len(bag.ticks) for bag in pending)])
            if pending:
                writer.reserve(
                    int(starts[-1] - writer.ticks),
                    {camera: (*target.size, 3) for camera, target in targets.items()},
                )
            calls = (
                delayed(_write_pictures)(bag, Path(out), int(start), targets)
                for bag, start in zip(pending, starts, strict=False)
            )
            for index, edges in enumerate(pool(calls), start=done):
                _append(writer, accepted[index], edges)
                report("converting", index + 1, len(accepted))
            if pending or not writer.complete:
                writer.finish()
            sparse = [(bag.info.path, bag.share) for bag in accepted if bag.share < _SPARSE]
            repeats = {name: share for name, share in _repeats(accepted).items() if share > MANY_REPEATS}
            return Converted(writer.episodes, writer.ticks, len(pending), refused, sparse, rate, repeats)


def _examine_all(
    pool: Any, paths: Sequence[Path], config: ConvertConfig, cameras: Sequence[str], report: OnProgress
) -> tuple[list[_Accepted | _Refusal], RecordedRate]:
    """Every bag, examined at one rate: the given one, or that of the recordings."""
    examined: list[_Accepted | _Refusal] = []
    for bag in pool(delayed(_examine)(path, order, config, cameras) for order, path in enumerate(paths)):
        examined.append(bag)
        report("checking", len(examined), len(paths))
    rates = [bag.rate for bag in examined if isinstance(bag, _Accepted)]
    if config.rate_hz or not rates:
        return examined, RecordedRate(config.rate_hz, "")
    rate = common_rate(rates)
    config = config.model_copy(update={"rate_hz": rate.hz})
    others = [bag.order for bag in examined if isinstance(bag, _Accepted) and bag.rate.hz != rate.hz]
    for bag in pool(delayed(_examine)(paths[order], order, config, cameras) for order in others):
        examined[bag.order] = bag
    return examined, rate


def _repeats(accepted: Sequence[_Accepted]) -> dict[str, float]:
    """Stream -> share of repeated samples over all bags."""
    ticks = sum(len(bag.ticks) for bag in accepted)
    return {
        name: sum(bag.ticks.repeats[name] * len(bag.ticks) for bag in accepted) / ticks
        for name in accepted[0].ticks.repeats
    }


def _examine(path: Path, order: int, config: ConvertConfig, cameras: Sequence[str]) -> _Accepted | _Refusal:
    """In a worker: read a bag but for its pictures, and decide whether it is converted."""
    try:
        with BagReader(path) as bag:
            labelled, outcome = bool(bag.info.outcome), bag.info.outcome or "unknown"
        if outcome not in config.outcomes:
            what = f"its outcome is {outcome}, not {' or '.join(config.outcomes)}"
            if outcome == "unknown":
                what = what if labelled else "it has no label, so its outcome is unknown"
                what += (
                    f"; label it with `dp_ros bag label {path} --outcome success`, or give --outcome unknown"
                )
            return _Refusal(path, what, order)
        episode = read_episode(path, config.topics, cameras, config)
        audit = check(episode, config.audit)
        if not (audit.passed or config.accept_failed):
            more = f" (and {len(audit.reasons) - 3} more)" if len(audit.reasons) > 3 else ""
            reasons = f"{'; '.join(audit.reasons[:3])}{more}"
            # Poses in several frames are never converted, and streams of several clocks have no common tick.
            streams = {
                name: (stream.stamps_ns, stream.received_ns) for name, stream in episode.streams.items()
            }
            is_final = frame_faults(recorded_poses(episode)) or foreign_clocks(streams)
            hint = "" if is_final else "; --accept-failed converts it all the same"
            return _Refusal(path, f"fails the audit: {reasons}{hint}", order)
        given = RecordedRate(config.rate_hz, "")
        rate = given if given.hz else recorded_rate(episode, config.hold_commands)
        ticks = frames_of(episode, config)
    except BagError as error:
        return _Refusal(path, str(error).removeprefix(f"{path}: "), order)
    covered = max(1, round(audit.sensed_s * rate.hz) + 1)
    return _Accepted(
        info=episode.info,
        ticks=ticks,
        audit=audit,
        pictures=episode.pictures,
        sizes=episode.sizes,
        collect=episode.collect,
        by_node=bool(episode.node_stamps) and not config.as_arrived,
        order=order,
        share=min(1.0, (len(ticks) + ticks.trimmed) / covered),
        rate=rate,
    )


def _write_pictures(
    bag: _Accepted, out: Path, start: int, targets: dict[str, Target]
) -> dict[str, dict[int, NDArray[np.uint8]]]:
    """In a worker: a bag's pictures into rows from `start` on; returns camera -> row -> picture of shared chunks."""
    rows_of: dict[str, dict[int, list[int]]] = {}
    for camera, numbers in bag.ticks.pictures.items():
        rows_of[camera] = {}
        for row, number in enumerate(numbers.tolist(), start=start):
            rows_of[camera].setdefault(number, []).append(row)
    missing = {camera: set(rows) for camera, rows in rows_of.items()}
    writers = {camera: PictureRows(out, camera, start, start + len(bag.ticks)) for camera in rows_of}
    for camera, number, picture in bag.pictures.read(lambda camera, i: i in rows_of[camera], targets):
        missing[camera].discard(number)
        for row in rows_of[camera][number]:
            writers[camera].put(row, picture)
    if any(missing.values()):
        raise BagError(f"{bag.info.path}: has changed since it was checked; run the same command again")
    return {camera: writer.edges for camera, writer in writers.items()}


def _append(writer: DatasetWriter, bag: _Accepted, edges: dict[str, dict[int, NDArray[np.uint8]]]) -> None:
    recorded_seed = bag.info.custom.get("seed", "")
    seed = int(recorded_seed) if recorded_seed.isdecimal() else -1
    nth = seed - bag.collect["first_seed"] if "first_seed" in bag.collect else None  # seed of the collection
    noise = bag.collect.get("noise", [0.0])
    writer.append_reserved(
        {name: getattr(bag.ticks, name) for name in LOW_DIMENSIONAL},
        edges,
        bag.ticks.segment_ends,
        seed=seed,
        noise=noise[nth % len(noise)] if nth is not None else 0.0,
        tried=bag.order + 1 if nth is None else nth + 1,
    )


def _bags_done(accepted: list[_Accepted], episodes: int) -> int:
    """Number of bags that an earlier call converted: those of which every episode counts."""
    ends = np.cumsum([len(bag.ticks.segment_ends) for bag in accepted])
    return int(np.searchsorted(ends, episodes, side="right"))


def _entry(bag: _Accepted) -> dict[str, Any]:
    """The dataset's record of a bag: its name, how it ended, and its audit."""
    custom = bag.info.custom
    return {
        "name": bag.info.name,
        "start_ns": bag.info.start_ns,
        "messages": bag.info.messages,
        **{key: custom[key] for key in _KEPT if key in custom},
        "ticks": len(bag.ticks),
        "pieces": len(bag.ticks.segment_ends),
        "frames": "as the policy node had them" if bag.by_node else "by stamp",
        "repeats": {name: round(share, 4) for name, share in bag.ticks.repeats.items()},
        "audit": bag.audit.as_dict(),
    }


def bags_in(dataset: str | Path) -> list[dict[str, Any]]:
    """The dataset's record of the bags it was made of; empty where it does not exist yet."""
    return list(_attributes(dataset).get("bags", []))


def _attributes(dataset: str | Path) -> dict[str, Any]:
    """Attributes of a dataset, finished or not; empty where it does not exist yet."""
    if not (Path(dataset) / "zarr.json").is_file():
        return {}
    return dict(open_group(Path(dataset), mode="r").attrs)


def _in_order(
    accepted: list[_Accepted], known: list[dict[str, Any]]
) -> tuple[list[_Accepted], list[dict[str, Any]]]:
    """The bags and their entries: those that the dataset knows, in its order, then new ones.

    The entry of a known bag is kept, because the bag's label or note may have changed since.
    """
    places = {(entry["name"], entry["start_ns"]): i for i, entry in enumerate(known)}

    def place(bag: _Accepted) -> int:
        return places.get((bag.info.name, bag.info.start_ns), len(known))

    ordered = sorted(accepted, key=place)
    return ordered, [known[place(bag)] if place(bag) < len(known) else _entry(bag) for bag in ordered]
