"""A whole campaign of tiny models: it stops at its time limit, resumes, and its archive is complete."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from dp_ros.cli import errors, main
from dp_ros.policy.checkpoint import load_checkpoint, read_config

pytestmark = [pytest.mark.sim, pytest.mark.slow]


def test_campaign_stops_in_time_goes_on_and_is_put_together_again(
    can_render: None,
    tiny_config: Path,
    tmp_path: Path,
    dp_ros_here,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a machine without OpenVINO: torch plans, and no time goes into the export of the other engine."""
    version = metadata.version

    def version_without_openvino(package: str) -> str:
        if package == "openvino":
            raise metadata.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(metadata, "version", version_without_openvino)
    out, name = tmp_path / "campaign", f"handle-press-v3-{tiny_config.stem}"
    command = (
        "campaign", "run", "--task", "handle-press", "--config", tiny_config, "--out", out, "--demonstrations", 2,
        "--episodes", 2, "--max-steps", 5, "--jobs", 1,
    )  # fmt: skip
    stopped = dp_ros_here(*command, "--hours", 0)
    assert stopped.returncode == 0, stopped.stderr
    assert f"{name}: unfinished (not begun)" in stopped.stdout

    done = dp_ros_here(*command)
    assert done.returncode == 0, done.stderr
    assert f"{name}: handle-press-v3 [in-process]: " in done.stdout
    parts = list((out / "parts").iterdir())
    assert all(part.stat().st_size <= 16_000_000 for part in parts)

    again = dp_ros_here(*command)
    assert f"{name}: done before" in again.stdout
    other = dp_ros_here(*command, "--max-steps", 6)
    assert other.returncode == errors.FAILED
    assert f"{name}: failed: its results are of other settings (max_steps): give the same" in other.stdout

    assert main(["campaign", "join", str(out / "parts"), "--out", str(tmp_path / "results")]) == 0
    assert "verified" in capsys.readouterr().out
    model = tmp_path / "results" / name / name
    load_checkpoint(model)
    assert read_config(model)["training"]["step"] == 30
    assert "/2 = " in (model / "card.md").read_text()
    report = json.loads((tmp_path / "results" / name / "report.json").read_text())
    assert report["episodes"] == 2


def test_campaign_names_what_failed_and_goes_on_with_the_rest(
    can_render: None, tiny_config: Path, tmp_path: Path, dp_ros_here
) -> None:
    done = dp_ros_here(
        "campaign", "run", "--task", "handle-press", "--config", tiny_config, "--out", tmp_path, "--demonstrations", 1,
        "--jobs", 1, "--set", "batch_size=1000",
    )  # fmt: skip
    assert done.returncode == errors.FAILED
    assert "failed: " in done.stdout
    assert "batch_size 1000 (--set batch_size=1000) exceeds the" in done.stdout
    assert "Traceback" not in done.stderr
    assert (tmp_path / "parts" / "manifest.json").exists()
