"""Plots of the report as inline SVG, with unique ids, no external references and text for screen readers.

The plot of a model card is a PNG, because not every Markdown viewer shows SVG.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from dp_ros.actions import POSITION, gripper_of
from dp_ros.control.safety import Verdict
from dp_ros.evaluation.trace import Trace

WIDTH_IN = 5.2  # the width of a phone, so that text stays readable there
# Okabe and Ito's colours, which colour-blind readers can tell apart; line styles and markers differ too.
GOOD, BAD, LINES = "#0072b2", "#d55e00", ("#0072b2", "#d55e00", "#009e73", "#555555")
HELD, LIMITED = "#d55e00", "#e69f00"
_RC: Any = {
    "svg.fonttype": "none",  # text in the page's font
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def svg(name: str, label: str, draw: Callable[[Figure], None], height_in: float = 2.8) -> str:
    """An <svg> element of what `draw` puts on an empty figure. `label`: its text for screen readers.

    `name` makes the ids of this plot differ from those of the other plots on the page.
    """
    with matplotlib.rc_context({**_RC, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        draw(figure)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata=_METADATA)
    text = written.getvalue()
    text = text[text.index("<svg") :]  # drops the XML declaration and its URL
    text = re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", text, count=5)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def learning_curve(history: Mapping[str, Any]) -> bytes:
    """PNG of the loss over the steps, and of the held-out loss where a checkpoint's history has one."""
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(WIDTH_IN, 2.4), layout="constrained")
        axes = figure.subplots()
        for key, legend, style in (("loss", "trained on", "-"), ("validation_loss", "held out", "o--")):
            if history.get(key):
                axes.plot(*zip(*history[key], strict=True), style, lw=1.4, ms=4, label=legend)
        axes.set(xlabel="step", ylabel="loss", yscale="log")
        if history.get("validation_loss"):
            axes.legend()
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=110, metadata={"Software": None})
    return written.getvalue()


def actions(name: str, trace: Trace, title: str, rate_hz: float) -> str:
    """Commanded and measured position, and gripper command, over an episode; shaded where the gate limited or held."""
    label = f"{title}: position commanded and measured, and gripper, over {len(trace.command)} ticks"

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
        t_s = np.arange(len(trace.command)) / rate_hz
        start_m = trace.ee_position_m[0]
        for axis, colour in zip(range(POSITION.size), LINES, strict=False):
            moved_cm = (POSITION.of(trace.command)[:, axis] - start_m[axis]) * 100
            upper.plot(t_s, moved_cm, color=colour, lw=1.4, label="xyz"[axis])
            measured_cm = (trace.ee_position_m[:-1, axis] - start_m[axis]) * 100
            upper.plot(t_s, measured_cm, color=colour, lw=0.9, ls=":")
        lower.plot(t_s, gripper_of(trace.command), color=LINES[POSITION.size], lw=1.4)
        for axes in (upper, lower):
            _shade(axes, trace, rate_hz)
        upper.set_ylabel("from the start [cm]")
        figure.legend(*upper.get_legend_handles_labels(), loc="outside upper right", ncols=3)
        lower.set(ylabel="gripper", xlabel="time [s]", ylim=(-1.15, 1.15), yticks=(-1, 0, 1))

    return svg(name, label, draw, 3.2)


def _shade(axes: Axes, trace: Trace, rate_hz: float) -> None:
    ends = [t for t, _ in trace.changes[1:]] + [len(trace.verdict)]
    for (begin, verdict), end in zip(trace.changes, ends, strict=True):
        if verdict is not Verdict.PASS:
            colour = HELD if verdict.holds else LIMITED
            axes.axvspan(begin / rate_hz, end / rate_hz, color=colour, alpha=0.25, lw=0)


def ends(name: str, traces: Sequence[Trace], success: Sequence[bool]) -> str:
    """Position of the hand at the end of each episode, from above and from the side."""
    label = f"Position of the hand at the end of {sum(success)} successes and {success.count(False)} failures"

    def draw(figure: Figure) -> None:
        above, side = figure.subplots(1, 2)
        end_m = np.array([trace.ee_position_m[-1] for trace in traces])
        won = np.array(success, dtype=bool)
        for axes, x, y in ((above, 0, 1), (side, 1, 2)):
            axes.scatter(
                *end_m[won][:, (x, y)].T, s=24, color=GOOD, marker="o", alpha=0.7, lw=0, label="success"
            )
            axes.scatter(*end_m[~won][:, (x, y)].T, s=26, color=BAD, marker="x", lw=1.4, label="failure")
            axes.set(xlabel=f"{'xyz'[x]} [m]", ylabel=f"{'xyz'[y]} [m]")
            axes.set_aspect("equal", adjustable="datalim")
            axes.margins(0.15)
            axes.locator_params(nbins=4)
        above.set_title("from above", fontsize=10)
        side.set_title("from the side", fontsize=10)
        handles, labels = above.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)

    return svg(name, label, draw, 3.0)


def steps(name: str, of_successes: Sequence[int], of_failures: Sequence[int], limit: int) -> str:
    """Histogram of the episodes' ticks."""
    label = f"Histogram of the ticks of {len(of_successes)} successes and {len(of_failures)} failures"

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        bins = np.linspace(0, limit, 26)
        axes.hist(
            [of_successes, of_failures],
            bins=bins.tolist(),
            stacked=True,
            color=[GOOD, BAD],
            label=["success", "failure"],
        )
        _hatch_second(axes)
        axes.set(xlabel="ticks", ylabel="episodes", xlim=(0, limit * 1.02))
        axes.yaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))
        axes.legend(loc="upper left")

    return svg(name, label, draw, 2.4)


def _hatch_second(axes: Axes) -> None:
    """Hatch the second series, so that both differ in black and white."""
    for bar in axes.containers[1]:
        bar.set(hatch="////", edgecolor="white", linewidth=0)


def latency(name: str, plan_ms: Sequence[float], marks: Mapping[str, float]) -> str:
    """Histogram of plan durations, with the percentiles `marks` ("p99" among them) as lines; the last bar includes all
    longer plans."""
    label = f"Histogram of the durations of {len(plan_ms)} plans in milliseconds"

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        longest = 1.25 * marks["p99"]  # a single slow plan would squeeze all others into one bar
        axes.hist(np.minimum(plan_ms, longest), bins=np.linspace(0, longest, 41).tolist(), color="#888888")
        for (mark, value), style in zip(marks.items(), ("-", "--", ":"), strict=False):
            axes.axvline(value, color="black", lw=1.1, ls=style, label=mark)
        axes.set(xlabel="one plan [ms]", ylabel="plans", xlim=(0, longest))
        axes.legend(loc="upper right")

    return svg(name, label, draw, 2.4)


def real_time(name: str, episodes: Sequence[Mapping[str, Any]]) -> str:
    """Share of ticks held and real-time factor of each episode that has them. episodes: as in a report's JSON."""
    measured = [episode for episode in episodes if "realtime_factor" in episode and "held_share" in episode]
    label = f"Share of ticks held and real-time factor of {len(measured)} episodes"

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True)
        for success, colour, marker, what in ((True, GOOD, "o", "success"), (False, BAD, "x", "failure")):
            of = [episode for episode in measured if episode["success"] is success]
            seeds = [episode["seed"] for episode in of]
            for axes, key in ((upper, "held_share"), (lower, "realtime_factor")):
                values = [episode[key] for episode in of]
                axes.plot(seeds, values, marker, color=colour, ms=5, label=what, clip_on=False)
        lower.axhline(1.0, color="black", lw=0.8, ls=":")
        upper.set_ylabel("ticks held")
        upper.set_ylim(
            0.0, max(0.01, 1.1 * max((episode["held_share"] for episode in measured), default=0.0))
        )
        upper.yaxis.set_major_formatter(PercentFormatter(1.0))
        lower.set(ylabel="real-time factor", xlabel="seed")
        lower.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        figure.legend(*upper.get_legend_handles_labels(), loc="outside upper right", ncols=2)

    return svg(name, label, draw, 3.2)


def intervals(name: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Success and interval of each report, one row each."""
    label = "Success of each checkpoint with its 95 % interval"

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for y, (_, report) in enumerate(rows):
            share = report["success_rate"]
            axes.plot((report["wilson_low"], report["wilson_high"]), (y, y), color=GOOD, lw=5, alpha=0.35)
            axes.plot(share, y, "o", color=GOOD)
        axes.set_yticks(range(len(rows)), [row_name for row_name, _ in rows])
        axes.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5), xlabel="success")
        axes.xaxis.set_major_formatter("{x:.0%}")

    return svg(name, label, draw, 0.8 + 0.35 * len(rows))


def curve(name: str, data: Mapping[str, Any]) -> str:
    """Success against strength with Wilson's 95 % band. `data`: Curve.as_dict()."""
    label = f"Success against {data['kind']} in {data['unit']}, with its 95 % interval"

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        points = data["points"]
        x = [point["strength"] for point in points]
        low, high = ([point[key] for point in points] for key in ("wilson_low", "wilson_high"))
        axes.fill_between(x, low, high, color=GOOD, alpha=0.2, lw=0)
        axes.plot(x, [point["success_rate"] for point in points], "o-", color=GOOD, lw=1.6)
        axes.set(ylim=(-0.03, 1.03), xlabel=f"{data['kind']} [{data['unit']}]", ylabel="success")
        axes.yaxis.set_major_formatter("{x:.0%}")

    return svg(name, label, draw, 2.4)
