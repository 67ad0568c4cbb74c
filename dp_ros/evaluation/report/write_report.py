"""Report folder: index.html to read, NAME.json of each evaluation, NAME.npz with its traces, and page.json with every
number of index.html."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from dp_ros.data.video import write_video
from dp_ros.evaluation.disturbances import NONE
from dp_ros.evaluation.episode import video_fps
from dp_ros.evaluation.report.html import (
    Example,
    Section,
    episodes_to_show,
    render_html,
    report_data,
)
from dp_ros.evaluation.report.summary import summarise
from dp_ros.evaluation.results import Report
from dp_ros.evaluation.robustness import Curve
from dp_ros.evaluation.rollout import EvalConfig, render_videos
from dp_ros.evaluation.trace import save_traces
from dp_ros.evaluation.video_frames import Picture
from dp_ros.files import write_json, write_text
from dp_ros.policy.checkpoint_folder import name_of

_RESERVED = ("index", "page", "robustness")  # other files of the folder


def unique_names(checkpoints: Sequence[str | Path]) -> list[str]:
    """`name_of` each; a number is added where two are the same or the report folder uses the name."""
    names = [name_of(checkpoint) for checkpoint in checkpoints]
    unique = {name for name in names if names.count(name) == 1} - set(_RESERVED)
    taken, given = {*unique, *_RESERVED}, []
    for name in names:
        if name not in unique:
            name = next(each for i in count(1) if (each := f"{name}-{i}") not in taken)
            taken.add(name)
        given.append(name)
    return given


def section_of(report: Report, name: str) -> Section:
    """Section of a report, without videos."""
    return Section(name, {**report.as_dict(), "details": summarise(report)}, report.traces)


def add_videos(section: Section, config: EvalConfig) -> None:
    """Render the episodes that the page shows, by replaying their commands."""
    if not section.traces:
        return
    episodes = section.report["per_episode"]
    wanted = [(episodes[i]["seed"], section.traces[i], NONE) for i in episodes_to_show(episodes)]
    for (seed, _, _), pictures in zip(wanted, render_videos(config, wanted), strict=True):
        section.videos[seed] = mp4(pictures, video_fps(config.task))


def examples_of(config: EvalConfig, curves: Sequence[Curve]) -> Iterator[Example]:
    """Video of the first episode at the greatest strength of each curve."""
    points = [curve.strongest for curve in curves]
    wanted = [(p.episodes[0].result.seed, p.episodes[0].trace, p.episodes[0].disturbance) for p in points]
    for point, pictures in zip(points, render_videos(config, wanted), strict=True):
        disturbance, result = point.disturbance, point.episodes[0].result
        outcome = "success" if result.success else result.reason
        caption = (
            f"{disturbance.kind} {disturbance.strength:g} {disturbance.unit}, seed {result.seed}: {outcome}"
        )
        yield Example(disturbance.kind, caption, mp4(pictures, video_fps(config.task)))


def write_section(folder: str | Path, section: Section) -> None:
    """Write NAME.json and NAME.npz. Results are saved before the videos are rendered."""
    folder = Path(folder)
    write_json(folder / f"{section.name}.json", section.report)
    if section.traces:
        save_traces(folder / f"{section.name}.npz", section.traces)


def write_report(
    folder: str | Path,
    title: str,
    sections: Sequence[Section],
    curves: Sequence[Mapping[str, Any]] = (),
    examples: Sequence[Example] = (),
) -> Path:
    """Write index.html and page.json of sections that are written already; returns the path of index.html."""
    folder = Path(folder)
    write_json(folder / "page.json", report_data(sections, curves))
    page = folder / "index.html"
    write_text(page, render_html(title, sections, curves, examples))
    return page


def mp4(pictures: Sequence[Picture], fps: int) -> bytes:
    """Content of an MP4 file of `pictures`, `fps` of them a second."""
    with tempfile.TemporaryDirectory(prefix="dp_ros-") as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, pictures, fps)
        return path.read_bytes()
