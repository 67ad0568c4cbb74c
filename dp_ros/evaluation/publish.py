"""A folder for people and programs: index.html to read, NAME.json of each evaluation, NAME.npz with its ticks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dp_ros.data.video import write_video
from dp_ros.evaluation.details import details
from dp_ros.evaluation.disturbances import NONE
from dp_ros.evaluation.episode import VIDEO_FPS
from dp_ros.evaluation.film import Picture
from dp_ros.evaluation.page import Example, Section, chosen, render, write_page
from dp_ros.evaluation.robustness import Curve
from dp_ros.evaluation.rollout import Setting, film
from dp_ros.evaluation.statistics import Report, write_json
from dp_ros.evaluation.trace import save_traces


def name_of(checkpoint: str | Path) -> str:
    """The model's folder, or the run's where that is only called "checkpoint"."""
    path = Path(checkpoint).absolute()
    return path.parent.name if path.name == "checkpoint" else path.name


def unique_names(checkpoints: Sequence[str | Path]) -> list[str]:
    """`name_of` each, numbered where two are alike."""
    names = [name_of(checkpoint) for checkpoint in checkpoints]
    return [name if names.count(name) == 1 else f"{name}-{i + 1}" for i, name in enumerate(names)]


def section_of(report: Report, name: str, setting: Setting | None = None) -> Section:
    """A report with its films: those of `setting` are drawn by replaying the recorded commands."""
    data = {**report.as_dict(), "details": details(report)}
    section = Section(name, data, report.traces)
    if setting is not None and report.traces:
        shown = chosen(data["per_episode"])
        wanted = [(report.results[i].seed, report.traces[i], NONE) for i in shown]
        for (seed, _, _), pictures in zip(wanted, film(setting, wanted), strict=True):
            section.films[seed] = mp4(pictures)
    return section


def examples_of(setting: Setting, curves: Sequence[Curve]) -> Iterator[Example]:
    """The first episode at the greatest strength of each curve."""
    points = [curve.strongest for curve in curves]
    wanted = [(p.episodes[0].result.seed, p.episodes[0].trace, p.disturbance) for p in points]
    for point, pictures in zip(points, film(setting, wanted), strict=True):
        disturbance, result = point.disturbance, point.episodes[0].result
        outcome = "success" if result.success else result.reason
        caption = (
            f"{disturbance.kind} {disturbance.strength:g} {disturbance.unit}, seed {result.seed}: {outcome}"
        )
        yield Example(disturbance.kind, caption, mp4(pictures))


def publish(
    folder: str | Path,
    title: str,
    sections: Sequence[Section],
    curves: Sequence[Mapping[str, Any]] = (),
    examples: Sequence[Example] = (),
) -> Path:
    """Write the folder's files, the page last; returns the page."""
    folder = Path(folder)
    for section in sections:
        write_json(folder / f"{section.name}.json", section.report)
        if section.traces:
            save_traces(folder / f"{section.name}.npz", section.traces)
    page = folder / "index.html"
    write_page(page, render(title, sections, curves, examples))
    return page


def mp4(pictures: Sequence[Picture]) -> bytes:
    """A film as the bytes of a file."""
    with tempfile.TemporaryDirectory(prefix="dp_ros-") as folder:
        path = Path(folder) / "film.mp4"
        write_video(path, pictures, VIDEO_FPS)
        return path.read_bytes()
