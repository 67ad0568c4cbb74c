"""A folder for people and programs: index.html to read, NAME.json of each evaluation, NAME.npz with its ticks, and
page.json with every number of the page."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from dp_ros.data.video import write_video
from dp_ros.evaluation.disturbances import NONE
from dp_ros.evaluation.episode import VIDEO_FPS
from dp_ros.evaluation.frames import Picture
from dp_ros.evaluation.report.html import Example, Section, chosen, page_data, render, write_page
from dp_ros.evaluation.report.summary import summarise
from dp_ros.evaluation.robustness import Curve
from dp_ros.evaluation.rollout import EvalConfig, render_videos
from dp_ros.evaluation.statistics import Report, write_json
from dp_ros.evaluation.trace import save_traces

_OF_THE_FOLDER = ("index", "page", "robustness")  # names of its other files


def name_of(checkpoint: str | Path) -> str:
    """The model's folder; of a run's "checkpoint" the run, of its "best" the run and that."""
    path = Path(checkpoint).absolute()
    if path.name == "checkpoint":
        return path.parent.name
    return f"{path.parent.name}-best" if path.name == "best" else path.name


def unique_names(checkpoints: Sequence[str | Path]) -> list[str]:
    """`name_of` each, numbered where two are alike or a file of the folder has that name."""
    names = [name_of(checkpoint) for checkpoint in checkpoints]
    alone = {name for name in names if names.count(name) == 1} - set(_OF_THE_FOLDER)
    taken, given = {*alone, *_OF_THE_FOLDER}, []
    for name in names:
        if name not in alone:
            name = next(each for i in count(1) if (each := f"{name}-{i}") not in taken)
            taken.add(name)
        given.append(name)
    return given


def section_of(report: Report, name: str) -> Section:
    """A report as the page takes it, without videos."""
    return Section(name, {**report.as_dict(), "details": summarise(report)}, report.traces)


def add_videos(section: Section, setting: EvalConfig) -> None:
    """Film the episodes that the page shows, by replaying their commands."""
    if not section.traces:
        return
    episodes = section.report["per_episode"]
    wanted = [(episodes[i]["seed"], section.traces[i], NONE) for i in chosen(episodes)]
    for (seed, _, _), pictures in zip(wanted, render_videos(setting, wanted), strict=True):
        section.videos[seed] = mp4(pictures)


def examples_of(setting: EvalConfig, curves: Sequence[Curve]) -> Iterator[Example]:
    """The first episode at the greatest strength of each curve."""
    points = [curve.strongest for curve in curves]
    wanted = [(p.episodes[0].result.seed, p.episodes[0].trace, p.episodes[0].disturbance) for p in points]
    for point, pictures in zip(points, render_videos(setting, wanted), strict=True):
        disturbance, result = point.disturbance, point.episodes[0].result
        outcome = "success" if result.success else result.reason
        caption = (
            f"{disturbance.kind} {disturbance.strength:g} {disturbance.unit}, seed {result.seed}: {outcome}"
        )
        yield Example(disturbance.kind, caption, mp4(pictures))


def save(folder: str | Path, section: Section) -> None:
    """Write the section's files: what was measured does not wait for its videos."""
    folder = Path(folder)
    write_json(folder / f"{section.name}.json", section.report)
    if section.traces:
        save_traces(folder / f"{section.name}.npz", section.traces)


def publish(
    folder: str | Path,
    title: str,
    sections: Sequence[Section],
    curves: Sequence[Mapping[str, Any]] = (),
    examples: Sequence[Example] = (),
) -> Path:
    """Write the page of sections that are saved, and its data as page.json; returns the page."""
    folder = Path(folder)
    write_json(folder / "page.json", page_data(sections, curves))
    page = folder / "index.html"
    write_page(page, render(title, sections, curves, examples))
    return page


def mp4(pictures: Sequence[Picture]) -> bytes:
    """A video as the bytes of a file."""
    with tempfile.TemporaryDirectory(prefix="dp_ros-") as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, pictures, VIDEO_FPS)
        return path.read_bytes()
