"""The report as one HTML file with everything in it: it can be mailed, kept and printed, and asks nobody for more.

Each result on the page is looked up in the data that is also written as page.json, by the path that its <data> element
carries: the page cannot say anything else than the files. What is drawn, and the ticks at which the gate's verdict
changed, are of the traces in NAME.npz.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from dp_ros.evaluation.comparison import compare
from dp_ros.evaluation.report import plots
from dp_ros.evaluation.seeds import seeds_known
from dp_ros.evaluation.trace import Trace
from dp_ros.schema import ConfigError

SHOWN = 3  # episodes of each outcome that are filmed and drawn


@dataclass
class Section:
    """One evaluation on the page."""

    name: str
    report: dict[str, Any]  # what its JSON file holds, "details" included
    traces: Sequence[Trace] = ()  # one for each episode, or none
    videos: dict[int, bytes] = field(default_factory=dict)  # seed -> mp4


@dataclass
class Example:
    """A video of a disturbed episode."""

    kind: str
    caption: str
    video: bytes


def chosen(per_episode: Sequence[Mapping[str, Any]], count: int = SHOWN) -> list[int]:
    """The indices of the episodes to show: the first `count` successes and the first `count` failures."""
    return [
        i
        for outcome in (True, False)
        for i in [i for i, episode in enumerate(per_episode) if episode["success"] is outcome][:count]
    ]


def page_data(sections: Sequence[Section], curves: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Every number of the page: reports, their comparisons in pairs, robustness."""
    comparisons = []
    for (i, a), (j, b) in combinations(enumerate(sections), 2):
        try:
            comparison = compare(a.report, b.report)
        except ConfigError:  # of other tasks or seeds: nothing to compare
            continue
        names = {"a": a.name, "b": b.name}
        comparisons.append({**comparison.as_dict(), **names, "a_report": i, "b_report": j})
    return {
        "reports": [{"name": section.name, **section.report} for section in sections],
        "comparisons": comparisons,
        "robustness": list(curves),
    }


def render(
    title: str,
    sections: Sequence[Section],
    curves: Sequence[Mapping[str, Any]] = (),
    examples: Sequence[Example] = (),
) -> str:
    """The page as text."""
    data = page_data(sections, curves)
    return _template().render(
        title=title,
        data=data,
        shown_count=SHOWN,
        number=lambda path, form="": number(data, path, form),
        sections=[_drawn(i, section) for i, section in enumerate(sections)],
        intervals=Markup(plots.intervals("all", [(s.name, s.report) for s in sections])),
        curves=[Markup(plots.curve(f"curve{i}", curve)) for i, curve in enumerate(curves)],
        examples=[(example, _source(example.video)) for example in examples],
    )


def write_page(path: str | Path, text: str) -> None:
    """A reader sees the old page or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        staging.write_text(text)
        os.replace(staging, path)
    finally:
        staging.unlink(missing_ok=True)


def number(data: Mapping[str, Any], path: str, form: str = "") -> Markup:
    """The value at a path such as "reports.0.wilson_low", shown by a format specification; a dash for none."""
    value: Any = data
    for key in path.split("."):
        value = value[int(key)] if isinstance(value, list) else value[key]
    if value is None:
        return Markup("–")
    shown = format(value, form) if form else str(value)
    return Markup('<data value="{}" data-path="{}">{}</data>').format(value, path, shown.replace("%", " %"))


def _drawn(i: int, section: Section) -> dict[str, Any]:
    """A section with its pictures and videos."""
    report, traces = section.report, section.traces
    episodes = report["per_episode"]
    rate_hz = report["provenance"]["policy"]["rate_hz"]
    drawn: dict[str, Any] = {"name": section.name, "report": report, "shown": []}
    drawn["seeds_known"] = seeds_known(report["provenance"].get("training", {}), report["task"])
    for index in chosen(episodes):
        episode = episodes[index]
        seed, outcome = episode["seed"], "success" if episode["success"] else "failure"
        trace = traces[index] if traces else None
        video = section.videos.get(seed)
        drawn["shown"].append(
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
    drawn["steps"] = Markup(
        plots.steps(f"r{i}steps", ticks[True], ticks[False], report["settings"]["max_steps"])
    )
    if traces:
        drawn["ends"] = Markup(plots.ends(f"r{i}ends", traces, success))
        plan_ms = [plan_s * 1e3 for trace in traces for plan_s in trace.plan_s]
        if plan_ms:
            spread = report["details"]["plan_ms"]
            marks = {key: spread[key] for key in ("p50", "p90", "p99")}
            drawn["latency"] = Markup(plots.latency(f"r{i}plans", plan_ms, marks))
    drawn["facts"] = list(_flat(report["provenance"]))
    return drawn


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as dotted names and text."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
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
