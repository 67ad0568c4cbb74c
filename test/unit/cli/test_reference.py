"""docs/reference.md is what `dp_ros reference` prints, so that no parameter in it is typed by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dp_ros.cli import main

ROOT = Path(__file__).parents[3]


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """The table below a heading: name -> the other cells."""
    lines = text.partition(f"### {heading}\n")[2].partition("\n#")[0].splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| `")
    ]
    return {name.strip("`"): rest for name, *rest in cells}


def test_page_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reference"]) == 0
    printed = capsys.readouterr().out
    assert (ROOT / "docs/reference.md").read_text() == printed, "docs/reference.md: run `make reference`"


def test_every_row_says_what_it_means(capsys: pytest.CaptureFixture[str]) -> None:
    main(["reference"])
    tables = capsys.readouterr().out.partition("## Presets")[0]
    assert not [line for line in tables.splitlines() if line.startswith("| `") and line.endswith("|  |")]


def test_rows_say_type_default_unit_bounds_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    main(["reference"])
    printed = capsys.readouterr().out
    policy = rows(printed, "policy_node")
    assert policy["gate.max_obs_age_s"][:3] == ["number", "`0.1`", "s, > 0"]
    assert policy["mode"][0] == "`lockstep`, `realtime`"
    assert policy["gate.workspace_low_m"][:2] == ["list of 3: number", "`[-0.5, 0.3, 0.0]`"]
    assert "autostart" in policy
    assert "autostart" not in rows(printed, "teleop_keyboard")
    train = rows(printed, "dp_ros train")
    assert train["epochs"][:3] == ["whole number or null", "`100`", "≥ 1"]
    assert train["policy.encoder.cameras"][:3] == ["list: text", "`[gripperPOV]`", "not empty, at most 4"]
    assert train["policy.transformer.layers"][:3] == ["whole number", "`8`", "≥ 1, ≤ 24"]
    assert "| `policy.transformer.layers` | " in printed.partition("## Presets")[2]


def test_reference_needs_neither_ros_nor_torch() -> None:
    program = (
        "import sys; sys.modules['rclpy'] = sys.modules['torch'] = None; from dp_ros.cli import main; "
        "sys.exit(main(['reference']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "### policy_node" in done.stdout
