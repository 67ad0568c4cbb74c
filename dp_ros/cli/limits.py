"""`dp_ros limits`: motion of the demonstrations, and the limits of robot.yaml that they suggest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dp_ros.cli.console import check_outputs, table_console
from dp_ros.cli.options import JsonFile

if TYPE_CHECKING:
    from dp_ros.data.limits import Motion

# Quantity -> (title, unit), in the order of the table.
_ROWS = {
    "step_m": ("step in a tick", "m"),
    "speed_m_s": ("speed", "m/s"),
    "acceleration_m_s2": ("acceleration", "m/s²"),
    "jerk_m_s3": ("jerk", "m/s³"),
    "gripper_rate_per_s": ("gripper rate (range 2)", "1/s"),
    "distance_m": ("from measured to commanded", "m"),
}


def limits(
    dataset: Annotated[Path, typer.Argument(help="Dataset of demonstrations.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the proposed parameters to this file; it must not exist."),
    ] = None,
    json_path: JsonFile = None,
) -> None:
    """Show speeds, steps and extent of the demonstrations, and propose limits for robot.yaml from them.

    The limits are percentiles with a margin, in metres and seconds. They let motion like that of the demonstrations
    pass. They do not know tables, people or what the robot can do: measure the workspace, and compare.

    Example: dp_ros limits runs/data/pick --out limits.yaml
    """
    import numpy as np

    from dp_ros.cli.errors import USAGE, CliError
    from dp_ros.data.episodes import open_dataset
    from dp_ros.data.limits import beyond_box, motion_of, proposed_gate
    from dp_ros.data.reader import DatasetReader
    from dp_ros.files import write_json

    if out is not None and out.exists():
        raise CliError(f"{out}: exists: choose another file, or remove it", USAGE)
    check_outputs(files=(out, json_path))
    motion = motion_of(dataset, open_dataset(dataset), np.array(DatasetReader(dataset).noise))
    gate = proposed_gate(motion)
    _show(dataset, motion)
    if beyond := beyond_box(motion, gate):
        print(f"note: the demonstrations reached {beyond}, outside the proposed workspace, in a few ticks")
    text = _fragment(dataset, gate)
    print(text, end="")
    if out is not None:
        out.write_text(text)
    if json_path is not None:
        write_json(json_path, {"motion": motion.as_dict(), "gate": gate})


def _show(path: Path, motion: Motion) -> None:
    from rich.table import Table

    table = Table("", "median", "99 %", "99.9 %", "largest", "unit", title=str(path), title_justify="left")
    for name, (title, unit) in _ROWS.items():
        spread = getattr(motion, name)
        cells = (f"{value:.3g}" for value in (spread.p50, spread.p99, spread.p999, spread.max))
        table.add_row(title, *cells, unit)
    table_console().print(table)
    print(
        f"{motion.episodes} episodes, {motion.ticks} ticks at {motion.rate_hz:g} Hz; rates of {motion.measured_rates}"
    )
    for axis, low, high in zip("xyz", motion.lowest_m, motion.highest_m, strict=True):
        print(f"extent {axis}: {low:.3f} to {high:.3f} m")


def _fragment(path: Path, gate: dict[str, Any]) -> str:
    """The proposal as a parameter file."""
    lines = [
        f"# Proposed from {path} by `dp_ros limits`: percentiles of its motion with a margin.",
        "# The workspace has the demonstrations in it, not your table: measure before you trust it. 0.0: no limit.",
        "/**/policy_node:",
        "  ros__parameters:",
        "    gate:",
    ]
    return "\n".join([*lines, *(f"      {name}: {value}" for name, value in gate.items())]) + "\n"
