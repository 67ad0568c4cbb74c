"""`dp_ros eval --report` and `--json`: what an evaluation leaves on the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dp_ros.evaluation.results import Report
    from dp_ros.schema import RuntimeConfig


def publish(
    report_path: Path,
    folders: list[Path],
    run: Callable[[Path], Report],
    runtime: RuntimeConfig,
    max_steps: int,
    json_path: Path | None,
) -> Path:
    """Run the evaluations, each written when it ends; then make their videos and the page."""
    from dp_ros.evaluation.report.write_report import (
        add_videos,
        section_of,
        unique_names,
        write_report,
        write_section,
    )
    from dp_ros.evaluation.rollout import EvalConfig

    sections, settings = [], []
    for folder, name in zip(folders, unique_names(folders), strict=True):
        report = run(folder)
        write_report_json(json_path, report)
        sections.append(section_of(report, name))
        settings.append(EvalConfig(report.checkpoint, report.task, runtime, max_steps))
        write_section(report_path, sections[-1])
    for section, setting in zip(sections, settings, strict=True):
        add_videos(section, setting)
    return write_report(report_path, f"Evaluation of {', '.join(s.name for s in sections)}", sections)


def write_report_json(json_path: Path | None, report: Report) -> None:
    if json_path:
        from dp_ros.files import write_json

        write_json(json_path, report.as_dict())
