"""One bag as one self-contained HTML page: pictures, motion, gripper, verdicts, rates. No network, no scripts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

import cv2
import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dp_ros.evaluation.report.plots import HELD, LIMITED, LINES, svg

Array = NDArray[np.float64]
Series = tuple[Array, Array]  # times [s] (N,), values (N,) or (N, 3)

_THUMBNAIL_PX = 240
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 82)
_PLOTTED = 3000  # points of a line: more only make the page slow


@dataclass(frozen=True)
class StreamRow:
    """Figures of one stream for the table, as text."""

    name: str
    topic: str
    messages: int
    rate: str
    longest_gap: str
    jitter: str
    missing: int
    latency: str


@dataclass(frozen=True, kw_only=True)
class BagPage:
    """Content of the page. Times are seconds from the start of the bag; positions metres; gripper as named."""

    title: str
    facts: Sequence[tuple[str, str]]
    reasons: Sequence[str]  # why it fails the audit; empty: it passes
    notes: Sequence[str]
    cameras: Mapping[str, Sequence[tuple[float, NDArray[np.uint8]]]]  # (time, picture)
    measured_m: Series
    commanded_m: Series | None
    opening: Series  # 0 closed to 1 open
    gripper_command: Series | None  # -1 open to 1 closed
    verdicts: Sequence[tuple[float, str]] = ()  # those published, in the order of time
    streams: Sequence[StreamRow] = ()
    intervals: Mapping[str, Series] = field(
        default_factory=dict
    )  # stream -> time from the sample before [ms]


def render(page: BagPage) -> str:
    """The page as text."""
    changes = verdict_changes(page.verdicts)
    return _template().render(
        page=page,
        sheets=[
            (camera, [(at_s, _picture(rgb), f"{camera} at {at_s:.1f} s") for at_s, rgb in pictures])
            for camera, pictures in page.cameras.items()
        ],
        motion=Markup(_motion(page)),
        path=Markup(_path(page)),
        intervals=Markup(_intervals(page)) if page.intervals else None,
        changes=changes,
        counts=_counts(page.verdicts),
    )


def verdict_changes(verdicts: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """The times at which the verdict became another one, the first included."""
    return [each for i, each in enumerate(verdicts) if i == 0 or verdicts[i - 1][1] != each[1]]


def _counts(verdicts: Sequence[tuple[float, str]]) -> list[tuple[str, int, float]]:
    """(verdict, ticks, share of the ticks), the most frequent first."""
    names = [verdict for _, verdict in verdicts]
    return [
        (name, names.count(name), names.count(name) / len(names))
        for name in sorted(set(names), key=lambda each: (-names.count(each), each))
    ]


def _motion(page: BagPage) -> str:
    label = "Position measured and commanded, and gripper, over the time of the bag"

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.3))
        for axis, colour in zip(range(3), LINES, strict=False):
            at_s, position = _thinned(page.measured_m)
            upper.plot(at_s, position[:, axis], color=colour, lw=0.9, ls=":")
            if page.commanded_m is not None:
                at_s, position = _thinned(page.commanded_m)
                upper.plot(at_s, position[:, axis], color=colour, lw=1.3, label="xyz"[axis])
            else:
                upper.lines[-1].set(label="xyz"[axis])
        at_s, opening = _thinned(page.opening)
        lower.plot(at_s, 1.0 - 2.0 * opening, color=LINES[3], lw=0.9, ls=":", label="measured")
        if page.gripper_command is not None:
            at_s, command = _thinned(page.gripper_command)
            lower.step(at_s, command, where="post", color=LINES[3], lw=1.3, label="commanded")
        for axes in (upper, lower):
            _shade(axes, page)
        upper.set_ylabel("position [m]")
        figure.legend(*upper.get_legend_handles_labels(), loc="outside upper right", ncols=3)
        lower.set(
            ylabel="gripper",
            xlabel="time [s]",
            ylim=(-1.15, 1.15),
            yticks=(-1, 1),
            yticklabels=("open", "closed"),
        )

    return svg("motion", label, draw, 3.6)


def _shade(axes: Axes, page: BagPage) -> None:
    """Shade the times in which the gate held or limited."""
    changes = verdict_changes(page.verdicts)
    ends = [at_s for at_s, _ in changes[1:]] + [page.verdicts[-1][0]] if changes else []
    for (begin_s, verdict), end_s in zip(changes, ends, strict=True):
        if verdict != "pass":
            colour = HELD if verdict.startswith("hold") else LIMITED
            axes.axvspan(begin_s, end_s, color=colour, alpha=0.25, lw=0)


def _path(page: BagPage) -> str:
    label = "Path of the tool from above and from the side"

    def draw(figure: Figure) -> None:
        for axes, x, y, title in zip(
            figure.subplots(1, 2), (0, 1), (1, 2), ("from above", "from the side"), strict=True
        ):
            _, position = _thinned(page.measured_m)
            if page.commanded_m is not None:
                _, commanded = _thinned(page.commanded_m)
                axes.plot(commanded[:, x], commanded[:, y], color=LINES[0], lw=1.2, label="commanded")
            axes.plot(position[:, x], position[:, y], color="black", lw=1.0, ls=":", label="measured")
            axes.plot(*position[0, [x, y]], "o", color=LINES[2], ms=5, label="start")
            axes.plot(*position[-1, [x, y]], "s", color=LINES[1], ms=5, label="end")
            axes.set(xlabel=f"{'xyz'[x]} [m]", ylabel=f"{'xyz'[y]} [m]")
            axes.set_title(title, fontsize=10)
            axes.set_aspect("equal", adjustable="datalim")
            axes.margins(0.1)
            axes.locator_params(nbins=4)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)

    return svg("path", label, draw, 3.2)


def _intervals(page: BagPage) -> str:
    label = "Time from the previous sample of each stream"

    def draw(figure: Figure) -> None:
        all_axes = figure.subplots(len(page.intervals), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, series) in zip(all_axes, page.intervals.items(), strict=True):
            at_s, interval_ms = _thinned(series)
            axes.plot(at_s, interval_ms, ".", color=LINES[0], ms=2)
            axes.set_ylim(bottom=min(0.0, float(interval_ms.min(initial=0.0))))
            axes.set_title(f"{name} [ms]", fontsize=8, loc="left")
            axes.locator_params(axis="y", nbins=3)
            axes.tick_params(labelsize=8)
        all_axes[-1].set_xlabel("time [s]")

    return svg("intervals", label, draw, 0.75 * len(page.intervals) + 0.6)


def _thinned(series: Series) -> Series:
    """The series, of which a long one keeps every n-th sample."""
    every = -(-len(series[0]) // _PLOTTED) or 1
    return series[0][::every], series[1][::every]


def _picture(rgb: NDArray[np.uint8]) -> Markup:
    """A data URL of the picture as JPEG, shrunk to the width of the sheet."""
    height, width = rgb.shape[:2]
    if width > _THUMBNAIL_PX:
        size = (_THUMBNAIL_PX, max(1, round(height * _THUMBNAIL_PX / width)))
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), _JPEG)
    return Markup("data:image/jpeg;base64,") + base64.b64encode(data.tobytes()).decode()


def _template() -> jinja2.Template:
    text = files("dp_ros.evaluation.report").joinpath("templates/bag.html.j2").read_text()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)
