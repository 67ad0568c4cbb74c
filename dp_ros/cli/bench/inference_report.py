"""Table and plot of the inference benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from dp_ros.cli.console import table_console
from dp_ros.files import replacing

# Okabe and Ito's colours, which colour-blind readers can tell apart.
_COLOURS = ("#999999", "#d0d0d0", "#d55e00", "#0072b2", "#56b4e9", "#009e73", "#e69f00", "#cc79a7")
_TIMES = ("p50 [ms]", "p99", "min to max", "processor", "memory [MB]")


def print_size(result: Mapping[str, Any]) -> None:
    """The rows of one size."""
    print(
        f"{result['title']}: {result['parameters'] / 1e6:.1f} M parameters, {result['iterations']} iterations, "
        f"{result['plans']} plans each, on {result['device']}{_floors(result)}"
    )
    table = Table("", *_TIMES, "LeRobot / it", "in processor time", "floor / it", "differs by")
    for name, row in result["rows"].items():
        ratios = (f"{row[key]:.2f}" for key in ("ratio", "ratio_processor"))
        share = "-" if row["floor_share"] is None else f"{row['floor_share']:.0%}"
        table.add_row(name, *_cells(row), *ratios, share, f"{row['difference']:.1g}")
    table_console().print(table)


def _floors(result: Mapping[str, Any]) -> str:
    if not result["floor_ms"]:
        return ""
    floors = ", ".join(f"{precision} {ms:.2f} ms" for precision, ms in result["floor_ms"].items())
    rates = result["rates"]
    flops = ", ".join(f"{precision} {rate / 1e9:.0f}" for precision, rate in rates["flops"].items())
    return f". Floor: {floors}, of {flops} GFLOP/s and {rates['memory'] / 1e9:.1f} GB/s"


def print_summary(data: Mapping[str, Any]) -> None:
    """The least ratios over the sizes."""
    for key, what in (
        ("ratio", "both in f32"),
        ("ratio_bf16", "in bf16, LeRobot in f32"),
        ("ratio_bf16_autocast", "both in bf16"),
    ):
        if data[key] is not None:
            print(f"{data[key]:.2f} times as fast as LeRobot or more, {what}")


def print_checkpoint(data: Mapping[str, Any]) -> None:
    """The rows of one checkpoint."""
    print(f"{data['checkpoint']}: {data['plans']} plans each, alone")
    table = Table("", *_TIMES)
    for name, row in data["rows"].items():
        table.add_row(name, *_cells(row))
    table_console().print(table)


def _cells(row: Mapping[str, Any]) -> list[str]:
    wall = row["wall"]
    return [
        f"{wall['median_ms']:.2f}",
        f"{wall['p99_ms']:.2f}",
        f"{wall['min_ms']:.2f} to {wall['max_ms']:.2f}",
        f"{row['processor']['median_ms']:.2f}",
        f"{row['rss_mb']:.0f}, peak {row['peak_mb']:.0f}",
    ]


def save_plot(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """PNG: median of each row with its 99th percentile, and the floors, by size."""
    from matplotlib.figure import Figure

    names = list(results[0]["rows"])
    width = 0.85 / len(names)
    figure = Figure(figsize=(2.5 + 1.6 * len(results), 4.2), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(names):
        at = [group + (i - (len(names) - 1) / 2) * width for group in range(len(results))]
        walls = [result["rows"][name]["wall"] for result in results]
        medians = [wall["median_ms"] for wall in walls]
        above = [max(0.0, wall["p99_ms"] - wall["median_ms"]) for wall in walls]
        error = ([0.0] * len(walls), above)
        colour = _COLOURS[i % len(_COLOURS)]
        axes.bar(at, medians, width, yerr=error, capsize=2, color=colour, label=name)
    for precision, style in (("f32", "-"), ("bf16", ":")):
        floors = [result["floor_ms"].get(precision) for result in results]
        if None not in floors:
            left, right = zip(*((group - 0.45, group + 0.45) for group in range(len(results))), strict=True)
            axes.hlines(floors, left, right, colors="black", linestyles=style, label=f"floor {precision}")
    titles = [result["title"].replace("), ", ")\n") for result in results]
    axes.set_xticks(range(len(results)), titles, fontsize=8)
    axes.set(ylabel="plan [ms], median and 99th percentile", yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    with replacing(path) as staging:
        figure.savefig(staging, format="png", dpi=110)
