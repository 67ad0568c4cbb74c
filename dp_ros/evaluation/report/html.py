"""The report as one self-contained HTML file: no network access, no scripts.

Each number on the page is read from the data that is also written as page.json, by the path in its <data> element, so
page and files agree. Plots, and the ticks at which the gate's verdict changed, are of the traces in NAME.npz.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from itertools import combinations
from typing import Any

import jinja2
from markupsafe import Markup, escape

from dp_ros.evaluation.comparison import compare
from dp_ros.evaluation.report import plots
from dp_ros.evaluation.seeds import seeds_known
from dp_ros.evaluation.trace import Trace
from dp_ros.schema import ConfigError

SHOWN = 3  # episodes of each outcome that are shown with video and plot


@dataclass
class Section:
    """One evaluation of the report."""

    name: str
    report: dict[str, Any]  # content of NAME.json: Report.as_dict() and "details"
    traces: Sequence[Trace] = ()  # one per episode, or none
    videos: dict[int, bytes] = field(default_factory=dict)  # seed -> mp4


@dataclass
class Example:
    """Video of a disturbed episode."""

    kind: str
    caption: str
    video: bytes


def episodes_to_show(per_episode: Sequence[Mapping[str, Any]], count: int = SHOWN) -> list[int]:
    """Indices of the first `count` successes, then of the first `count` failures."""
    return [
        i
        for outcome in (True, False)
        for i in [i for i, episode in enumerate(per_episode) if episode["success"] is outcome][:count]
    ]


def report_data(sections: Sequence[Section], curves: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Content of page.json: reports, their comparisons in pairs, robustness."""
    comparisons = []
    for (i, a), (j, b) in combinations(enumerate(sections), 2):
        try:
            comparison = compare(a.report, b.report)
        except ConfigError:  # different tasks or seeds
            continue
        names = {"a": a.name, "b": b.name}
        comparisons.append({**comparison.as_dict(), **names, "a_report": i, "b_report": j})
    return {
        "reports": [{"name": section.name, **section.report} for section in sections],
        "comparisons": comparisons,
        "robustness": list(curves),
    }


def render_html(
    title: str,
    sections: Sequence[Section],
    curves: Sequence[Mapping[str, Any]] = (),
    examples: Sequence[Example] = (),
) -> str:
    """The page as text. `curves`: Curve.as_dict() of each."""
    data = report_data(sections, curves)
    return _template().render(
        title=title,
        data=data,
        shown_count=SHOWN,
        number=lambda path, form="": number(data, path, form),
        sections=[_section_values(i, section) for i, section in enumerate(sections)],
        intervals=Markup(plots.intervals("all", [(s.name, s.report) for s in sections])),
        curves=[Markup(plots.curve(f"curve{i}", curve)) for i, curve in enumerate(curves)],
        examples=[(example, _source(example.video)) for example in examples],
    )


def number(data: Mapping[str, Any], path: str, form: str = "") -> Markup:
    """A <data> element: the value at `path`, such as "reports.0.wilson_low", formatted by `form`; a dash for None."""
    value: Any = data
    for key in path.split("."):
        value = value[int(key)] if isinstance(value, list) else value[key]
    if value is None:
        return Markup("–")
    shown = format(value, form) if form else str(value)
    return Markup('<data value="{}" data-path="{}">{}</data>').format(value, path, shown.replace("%", " %"))


def _section_values(i: int, section: Section) -> dict[str, Any]:
    """Values of section `i` for the template: plots, videos, facts."""
    report, traces = section.report, section.traces
    episodes = report["per_episode"]
    rate_hz = report["provenance"]["policy"]["rate_hz"]
    values: dict[str, Any] = {"name": section.name, "report": report, "shown": []}
    values["seeds_known"] = seeds_known(report["provenance"].get("training", {}), report["task"])
    for index in episodes_to_show(episodes):
        episode = episodes[index]
        seed, outcome = episode["seed"], "success" if episode["success"] else "failure"
        trace = traces[index] if traces else None
        video = section.videos.get(seed)
        values["shown"].append(
            {
                "index": index,
                "episode": episode,
                "outcome": outcome,
                "video": video and _source(video),
                "actions": trace
                and Markup(plots.actions(f"r{i}s{seed}", trace, f"Seed {seed}, {outcome}", rate_hz)),
                "changes": [(t, verdict.value) for t, verdict in trace.changes] if trace else [],
            }
        )
    success = [episode["success"] for episode in episodes]
    ticks = {outcome: [e["steps"] for e in episodes if e["success"] is outcome] for outcome in (True, False)}
    values["steps"] = Markup(
        plots.steps(f"r{i}steps", ticks[True], ticks[False], report["settings"]["max_steps"])
    )
    details = report["details"]
    if traces:
        values["ends"] = Markup(plots.ends(f"r{i}ends", traces, success))
    plan_ms = [plan_s * 1e3 for trace in traces for plan_s in trace.plan_s] or details.get("plan_samples_ms")
    if plan_ms and details["plan_ms"]:
        marks = {key: details["plan_ms"][key] for key in ("p50", "p90", "p99")}
        values["latency"] = Markup(plots.latency(f"r{i}plans", plan_ms, marks))
    if "realtime_factor" in report:
        values["real_time"] = Markup(plots.real_time(f"r{i}time", episodes))
    values["facts"] = list(_facts(report["provenance"]))
    return values


def _facts(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as (dotted name, text), without empty ones."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _facts(value, f"{prefix}{key}.")
        elif value not in ("", None, []):
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            rows.append((f"{prefix}{key}", text))
    return rows


def _source(video: bytes) -> Markup:
    return Markup("data:video/mp4;base64,") + escape(base64.b64encode(video).decode())


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    text = files("dp_ros.evaluation.report").joinpath("templates/report.html.j2").read_text()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)
