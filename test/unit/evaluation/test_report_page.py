"""The report's page: its numbers are those of the data, it is accessible, and it needs no network."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from dp_ros.control.safety import Verdict
from dp_ros.evaluation.report.html import (
    Example,
    Section,
    episodes_to_show,
    number,
    render_html,
    report_data,
)
from dp_ros.evaluation.report.summary import summarise
from dp_ros.evaluation.results import EpisodeResult, Report
from dp_ros.evaluation.statistics import wilson_interval
from dp_ros.evaluation.trace import Trace

VOID = {"meta", "link", "br", "img", "input", "hr", "source"}
VIDEO = b"\x00\x00\x00\x18ftypmp42"


def trace(ticks: int, seed: int) -> Trace:
    rng = np.random.default_rng(seed)
    verdict = [Verdict.PASS] * ticks
    verdict[3:5] = [Verdict.LIMITED_SPEED] * 2
    verdict[-2:] = [Verdict.HOLD_NO_PLAN] * 2
    return Trace(
        rng.normal(0.0, 0.01, (ticks, 4)).cumsum(0),
        rng.normal(0.0, 0.01, (ticks + 1, 3)).cumsum(0),
        tuple(verdict),
        rng.uniform(0.05, 0.2, ticks // 4),
        np.arange(ticks) // 4,
    )


def section(name: str, outcomes: str, videos: bool = True, **data: Any) -> Section:
    """An evaluation with one episode for each letter: s, success; anything else, failure."""
    report = Report("drawer-open-v3", f"models/{name}", "in-process")
    for seed, letter in enumerate(outcomes):
        ticks = 20 + seed if letter == "s" else 60
        reason = "" if letter == "s" else "the plan failed: 1.5 < 2 & <b>odd</b>"
        report.results.append(EpisodeResult(seed, letter == "s", ticks, reason))
        report.traces.append(trace(ticks, seed))
        report.plan_s.extend(report.traces[-1].plan_s)
    report.settings = {"max_steps": 60, "sampler": "ddim", "sampler_iterations": 10, "jobs": 2, "threads": 1}
    report.provenance = {
        "command": f"dp_ros eval {name} --episodes {len(outcomes)}",
        "dp_ros": "0.1.0",
        "weights_sha256": "ab" * 32,
        "policy": {"network": "unet", "rate_hz": 80.0, "encoder": {"cameras": ["left", "right"]}},
        "training": {"step": 1500, "data": {"episodes": 200, "noise": [0.0, 0.3], **data}},
    }
    content = {**report.as_dict(), "details": summarise(report)}
    return Section(name, content, report.traces, dict.fromkeys(range(len(outcomes)), VIDEO) if videos else {})


def in_real_time(name: str, outcomes: str) -> Section:
    """An evaluation over ROS in real time: no traces, and the times of each episode."""
    of = section(name, outcomes, videos=False)
    report = Report("drawer-open-v3", f"models/{name}", "ros", plan_s=list(np.linspace(0.010, 0.020, 50)))
    for seed, letter in enumerate(outcomes):
        times = {"realtime_factor": 1.0 - seed / 100, "held_share": seed / 20, "first_move": 3 + seed}
        report.results.append(
            EpisodeResult(seed, letter == "s", 30, "" if letter == "s" else "late", **times)
        )
    settings, provenance = of.report["settings"], of.report["provenance"]
    report.settings, report.provenance = {**settings, "mode": "realtime"}, provenance
    return Section(name, {**report.as_dict(), "details": summarise(report)})


def curve() -> dict[str, Any]:
    points = []
    for strength, successes in ((0.0, 10), (2.0, 7), (4.0, 0)):
        low, high = wilson_interval(successes, 10)
        points.append(
            {
                "strength": strength,
                "episodes": 10,
                "successes": successes,
                "success_rate": successes / 10,
                "wilson_low": low,
                "wilson_high": high,
                "disturbed": 9 if strength else 0,
                "held_share": strength / 10,
                "warned_share": strength / 5 if successes else None,
                "jerk_m_s3": {"boundary": None, "inside": 12.5, "difference": None}
                if strength == 4
                else {"boundary": 42.0, "inside": 12.5, "difference": 29.5},
            }
        )
    return {"kind": "action-delay", "unit": "ticks", "says": "every command late", "points": points}


class Page(HTMLParser):
    """Every element with its attributes and text; raises where a tag is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.numbers: list[tuple[dict[str, str | None], str]] = []
        self.cells: list[str] = []  # texts of table cells, without their numbers
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in VOID:
            return
        self._open.append(tag)
        if tag == "data":
            self.numbers.append((dict(attrs), ""))
        if tag == "td":
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["data"]:
            attributes, shown = self.numbers[-1]
            self.numbers[-1] = (attributes, shown + data)
        elif "td" in self._open:
            self.cells[-1] += data


@pytest.fixture(scope="module")
def sections() -> list[Section]:
    return [section("first", "ssfsssfff"), section("second", "sssssssss"), section("third", "f" * 9, False)]


@pytest.fixture(scope="module")
def text(sections: list[Section]) -> str:
    return render_html("Three models", sections, [curve()], [Example("action-delay", "late", VIDEO)])


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_every_number_on_the_page_is_the_one_in_the_json(sections: list[Section], page: Page) -> None:
    """Each <data> says where it is from; and no table cell has a number that does not."""
    data = report_data([Section(s.name, json.loads(json.dumps(s.report))) for s in sections], [curve()])
    assert len(page.numbers) > 200
    for attributes, shown in page.numbers:
        value: Any = data
        for key in str(attributes["data-path"]).split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]
        assert float(str(attributes["value"])) == value
        scale, places = (100, 0) if "%" in shown else (1, len(shown.partition(".")[2]))
        digits = float(shown.rstrip(" %"))
        assert digits == pytest.approx(value * scale, rel=0, abs=0.5001 * 10**-places)
    for cell in page.cells:
        assert not re.search(r"\d", cell.replace("1.5 < 2", "").replace("drawer-open-v3", "")), cell


def test_page_of_real_time_shows_pace_holds_first_moves_and_latency() -> None:
    sections = [in_real_time("late", "ssf"), section("lockstep", "sss", videos=False)]
    sections[1].traces = ()
    text = render_html("Real time", sections)
    page = Page(text)
    shown = {attributes["data-path"]: text for attributes, text in page.numbers}
    assert shown["reports.0.held_share"] == "5.00 %"
    assert shown["reports.0.realtime_factor"] == "0.990"
    assert shown["reports.0.first_move"] == "4.0"
    assert [shown[f"reports.0.per_episode.2.{key}"] for key in ("first_move", "held_share", "realtime_factor")] == [
        "5", "10.0 %", "0.980",
    ]  # fmt: skip
    assert shown["reports.0.details.plan_ms.p50"] == "15.0"
    labels = [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"]
    assert "Share of ticks held and real-time factor of 3 episodes" in labels
    assert "Histogram of the durations of 50 plans in milliseconds" in labels
    assert not any("reports.1." in str(path) and "realtime" in str(path) for path in shown)
    rows = re.findall(r"<tr>.*?</tr>", text[: text.index("</table>")], re.DOTALL)
    assert len({row.count("<td") + row.count("<th") for row in rows}) == 1  # as many cells in each row


def test_headline_numbers_are_on_the_page(page: Page) -> None:
    shown = {attributes["data-path"]: text for attributes, text in page.numbers}
    assert shown["reports.0.details.successes"] == "5"
    assert shown["reports.0.success_rate"] == "56 %"
    assert shown["reports.2.wilson_high"] == "30 %"
    assert shown["comparisons.1.disagree"] == "5"  # first against third
    assert shown["robustness.0.points.1.success_rate"] == "70 %"
    assert shown["robustness.0.points.1.disturbed"] == "9"


def test_page_needs_no_network(text: str, page: Page) -> None:
    assert "://" not in text
    assert "@import" not in text
    assert "<script" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        for key in ("src", "href", "xlink:href", "poster", "srcset", "action"):
            address = attributes.get(key)
            assert address is None or address.startswith(("data:", "#")), (tag, address)


def test_ids_are_unique_and_every_reference_finds_its_own(text: str, page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    wanted = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)|aria-labelledby="([^"]+)"', text)
    assert {name for names in wanted for name in names if name} <= set(ids)


def test_plots_and_videos_have_text(page: Page) -> None:
    tags = [tag for tag, _ in page.elements]
    assert tags.count("video") == 6 + 3 + 1
    assert tags.count("h1") == 1
    for tag, attributes in page.elements:
        if tag in ("svg", "video"):
            assert attributes.get("aria-label"), tag
        if tag == "th":
            assert attributes.get("scope")
    assert ("html", {"lang": "en"}) in page.elements


def test_words_of_others_are_shown_not_obeyed(text: str) -> None:
    """Reasons come from exceptions."""
    assert "<b>odd" not in text
    assert "1.5 &lt; 2 &amp; &lt;b&gt;odd" in text


def test_the_first_three_of_each_outcome_are_shown() -> None:
    assert episodes_to_show([{"success": letter == "s"} for letter in "fssfssff"]) == [1, 2, 4, 0, 3, 6]
    assert episodes_to_show([{"success": True}]) == [0]


def test_page_without_episodes_of_an_outcome_without_traces_and_without_plans() -> None:
    bare = section("bare", "ff", videos=False)
    bare.traces = ()
    bare.report["details"].update(plan_ms=None, verdicts={}, end_m=[])
    bare.report["plan_ms"] = {"p50": None, "p99": None}
    text = render_html("Bare", [bare])
    assert Page(text)
    assert "No plan was made" in text
    assert "No videos" in text


@pytest.mark.parametrize(
    ("data", "known"),
    [
        ({"first_seed": 100, "tried": 9}, True),  # as all checkpoints before
        ({"seeds": [[100, 109]]}, True),
        ({"task": "reach-v3"}, True),  # another task's episodes are not this one's, whatever their seeds
        ({}, False),
        ({"seeds": [[100, 109]], "seeds_unknown": 3}, False),
        ({"seeds": [], "seeds_unknown": 13}, False),
    ],
)
def test_page_says_unseen_only_of_seeds_that_are_known_to_be(data: dict[str, Any], known: bool) -> None:
    one = section("one", "sf", videos=False, **data)
    one.traces = ()  # no plots of episodes, which take most of the time
    text = render_html("One", [one])
    assert ("on seeds that the policy was not trained on" in text) is known
    assert ("not known whether the policy was trained on these seeds" in text) is not known


def test_page_says_what_its_intervals_do_not_cover(text: str) -> None:
    assert re.search(r"do not cover\s+the\s+sampler's noise", text)


def test_number_that_is_none_is_a_dash() -> None:
    assert number({"a": [{"b": None}]}, "a.0.b") == "–"
    assert (
        number({"a": [{"b": 0.256}]}, "a.0.b", ".0%") == '<data value="0.256" data-path="a.0.b">26 %</data>'
    )
