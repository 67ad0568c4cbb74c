"""docs/reference.md is what `dp_ros reference` prints, so that no parameter in it is typed by hand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dp_ros.cli import main
from dp_ros.cli.interfaces import interfaces
from dp_ros.schema.nodes import NODES

ROOT = Path(__file__).parents[3]


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """The table below a heading: name -> the other cells."""
    lines = text.partition(f"### {heading}\n")[2].partition("\n#")[0].splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| `")
    ]
    return {name.strip("`"): rest for name, *rest in cells}


@pytest.mark.parametrize(
    ("page", "file"),
    [("settings", "reference.md"), ("commands", "commands.md"), ("interfaces", "interfaces.md")],
)
def test_page_is_what_the_command_prints(page: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reference", page]) == 0
    printed = capsys.readouterr().out
    assert (ROOT / "docs" / file).read_text() == printed, f"docs/{file}: run `make reference`"


def test_the_contracts_name_every_topic_and_service_of_the_nodes() -> None:
    """In the page that people write, each interface has a row with its type, or stands in one of a group."""
    written = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", (ROOT / "docs/topics.md").read_text(), re.MULTILINE)
    rows = [(set(re.findall(r"`([^`]+)`", names)), kinds) for names, kinds in written]
    missing = []
    for interface in interfaces(tuple(NODES)):
        names = {interface.name, f"/{interface.name}"}
        if interface.name == "record/<word>":
            names = {f"record/{word}" for word in ("start", "success", "failure", "discard")}
        package, kind = interface.kind.split("/")
        said = [kinds for known, kinds in rows if known & names]
        if not any((package in kinds and kind in kinds) or "as " in kinds for kinds in said):
            missing.append(f"{interface.name} ({interface.kind})")
    assert missing == []


def test_roles_are_read_from_the_source() -> None:
    found = {interface.name: interface for interface in interfaces(tuple(NODES))}
    command = found["command/ee_pose"]
    assert {"policy_node", "teleop_node"} <= command.publishes
    assert {"metaworld_bridge", "policy_watchdog"} <= command.subscribes
    assert found["record/<word>"].offers == {"recorder_node"}
    assert not any("watch_node" in each.publishes for each in found.values())
    assert "teleop_keyboard" not in found["/diagnostics"].publishes


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
