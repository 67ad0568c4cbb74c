"""Numbers, table and plot of the realtime benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from dp_ros.cli.console import table_console
from dp_ros.control.timing import CommandTimes
from dp_ros.files import replacing

_ROWS = {
    "overhead": "beyond the plan",
    "overhead_of_plans": "  of first commands from a plan",
    "late": "  tick due to tick",
    "sent": "  tick to publication",
    "transport": "  publication to arrival",
    "picture": "picture to command",
    "plan": "plan",
    "request": "plan request to command",
}


def summary(noted: Mapping[str, Any], rate_hz: float, seconds: float) -> dict[str, Any]:
    """Milliseconds of the commands, share of ticks held, and the processes. noted: as the robot's process returns it.

    The keys of `ms` are those of docs/speed.md. A key has no entry where there was no such command.
    """
    commands = noted["commands"]
    samples: dict[str, list[float]] = {name: [] for name in _ROWS}
    for command in commands:
        times = CommandTimes(*(command.get(field.name) for field in fields(CommandTimes)))
        transport_s = (command["received_ns"] - command["stamp_ns"]) / 1e9 - times.sent
        overhead_s = times.overhead + transport_s
        if times.plan is not None and times.request is not None:
            samples["overhead_of_plans"].append(overhead_s)
            samples["plan"].append(times.plan)
            samples["request"].append(times.request + transport_s)
        samples["overhead"].append(overhead_s)
        samples["late"].append(times.late)
        samples["sent"].append(times.sent)
        samples["transport"].append(transport_s)
        if command["picture_ns"] is not None:
            samples["picture"].append((command["received_ns"] - command["picture_ns"]) / 1e9)
    verdicts = noted["verdicts"]
    held = sum(verdict.startswith("hold") for verdict in verdicts)
    return {
        "rate_hz": rate_hz,
        "seconds": seconds,
        "commands": len(commands),
        "missed_ticks": max(0, round(rate_hz * seconds) - len(verdicts)),
        "held_share": held / len(verdicts) if verdicts else None,
        "ms": {name: _spread(values) for name, values in samples.items() if values},
        "processes": noted["processes"],
    }


def _spread(samples_s: Sequence[float]) -> dict[str, Any]:
    samples_ms = 1e3 * np.asarray(samples_s)
    p50, p99 = np.percentile(samples_ms, (50, 99))
    return {
        "p50": float(p50),
        "p99": float(p99),
        "max": float(samples_ms.max()),
        "samples": [round(float(sample), 3) for sample in samples_ms],
    }


def print_summary(data: Mapping[str, Any]) -> None:
    """The table of one run."""
    held = "none" if data["held_share"] is None else f"{data['held_share']:.2%}"
    print(
        f"{data['checkpoint']}, {data['engine']}: {data['commands']} commands in {data['seconds']:g} s at "
        f"{data['rate_hz']:g} Hz, {held} of ticks held, {data['missed_ticks']} ticks missed"
    )
    table = Table("", "p50 [ms]", "p99", "max", "number")
    for name, what in _ROWS.items():
        if name in data["ms"]:
            row = data["ms"][name]
            numbers = (f"{row[key]:.2f}" for key in ("p50", "p99", "max"))
            table.add_row(what, *numbers, str(len(row["samples"])))
    table_console().print(table)
    for name, process in data["processes"].items():
        print(
            f"{name}: {process['cpu']:.0%} of a core, {process['rss_mb']:.0f} MB, peak {process['peak_mb']:.0f} MB"
        )


def save_plot(data: Mapping[str, Any], path: Path) -> None:
    """PNG: share of commands within a time, of all and of the first ones from a plan, and of the plans themselves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, colour, style in (
        ("overhead", "#0072b2", "-"),
        ("overhead_of_plans", "#d55e00", "--"),
        ("plan", "#555555", ":"),
    ):
        if name in data["ms"]:
            samples = np.sort(data["ms"][name]["samples"])
            within = np.arange(1, len(samples) + 1) / len(samples)
            axes.step(samples, within, where="post", color=colour, ls=style, label=_ROWS[name].strip())
    axes.axhline(0.99, color="#999999", lw=0.8)
    axes.set(xlabel="time [ms]", ylabel="share within that time", xscale="log", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    with replacing(path) as staging:
        figure.savefig(staging, format="png", dpi=110)
