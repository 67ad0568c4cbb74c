"""`dp_ros bag ...`: check, repair and label recorded episodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dp_ros.cli.console import ProgressLine, table_console
from dp_ros.cli.convert import read_map
from dp_ros.cli.errors import FAILED, USAGE, CliError
from dp_ros.cli.options import Bags, JsonFile, TopicMapFile, given, set_option, typed_config

if TYPE_CHECKING:
    from dp_ros.data.bags.audit import EpisodeAudit
    from dp_ros.ros.bags.episode import BagEpisode

app = typer.Typer(
    help="Check, repair and label recorded episodes.", no_args_is_help=True, pretty_exceptions_enable=False
)


@app.command("check")
def check(
    bags: Bags,
    map_file: TopicMapFile = None,
    assignments: Annotated[list[str] | None, set_option("a limit of AuditConfig", "max_gap_s=0.2")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a picture of each episode's streams.")
    ] = None,
    json_path: JsonFile = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show a table of the streams of every episode.")
    ] = False,
) -> None:
    """Measure rate, gaps, jitter, order and skew of every stream. Exit code 1 when an episode fails the audit.

    Example: dp_ros bag check runs/bags/mine --set max_gap_s=0.2
    """
    from dp_ros.data.bags.reader import BagError, find_bags
    from dp_ros.files import write_json
    from dp_ros.ros.bags.check import check as audit_of
    from dp_ros.ros.bags.episode_reader import read_episode
    from dp_ros.schema import AuditConfig, TopicMap

    limits = typed_config(AuditConfig, {}, assignments)
    topics = read_map(map_file) if map_file else TopicMap()
    paths = find_bags(bags)
    rows: list[tuple[str, str, str, str]] = []
    figures: dict[str, object] = {}
    failed = 0
    for path in _counted("checking", paths):
        try:
            episode = read_episode(path, topics)
        except BagError as error:
            failed += 1
            rows.append((path.name, "", "FAIL", str(error).removeprefix(f"{path}: ")))
            figures[str(path)] = {"passed": False, "reasons": [str(error)]}
            continue
        audit = audit_of(episode, limits)
        failed += not audit.passed
        figures[str(path)] = audit.as_dict() | {"outcome": episode.info.outcome}
        why = "; ".join((*audit.reasons, *(f"note: {note}" for note in audit.notes)))
        verdict = "pass" if audit.passed else "FAIL"
        rows.append((path.name, f"{audit.duration_s:.2f} s {episode.info.outcome}", verdict, why))
        if verbose or len(paths) == 1:
            _show_streams(path, audit)
        if plot is not None:
            _plot(plot / f"{path.name}.png", episode, audit)
    _show_episodes(rows)
    if json_path is not None:
        write_json(json_path, figures)
    print(f"{len(paths) - failed} of {len(paths)} episodes pass")
    if failed:
        raise typer.Exit(FAILED)


@app.command("repair")
def repair(bags: Bags) -> None:
    """Make bags readable that were not closed or are cut off. All whole chunks are kept.

    Example: dp_ros bag repair runs/bags/mine
    """
    from dp_ros.data.bags.reader import BagError, find_bags
    from dp_ros.data.bags.repair import repair as run

    failed = []
    for path in _counted("repairing", find_bags(bags)):
        try:
            print(f"{path}: {run(path)}")
        except BagError as error:
            failed.append(str(error))
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise CliError(f"{failed[0]}{more}")


@app.command("label")
def label(
    bags: Bags,
    outcome: Annotated[
        str | None, typer.Option(help="Outcome: success, failure, discarded or unknown.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Name of the task.")] = None,
    note: Annotated[str | None, typer.Option(help="Remark.")] = None,
) -> None:
    """Write outcome, task or note into the metadata of bags. Their messages are not changed.

    Example: dp_ros bag label runs/bags/mine/episode_00003 --outcome failure
    """
    from dp_ros.data.bags.label import label_bag
    from dp_ros.data.bags.reader import OUTCOMES, find_bags

    if outcome is not None and outcome not in OUTCOMES:
        raise CliError(f"--outcome {outcome}: give one of {', '.join(OUTCOMES)}", USAGE)
    labels = given(outcome=outcome, task=task, note=note)
    if not labels:
        raise CliError("no label: give --outcome, --task or --note", USAGE)
    for path in find_bags(bags):
        if path.is_file():
            raise CliError(f"{path}: is a file without metadata.yaml; label the bag folder it is in", USAGE)
        label_bag(path, labels)
        print(f"{path}: {', '.join(f'{key} {value}' for key, value in labels.items())}")


def _counted(title: str, paths: Sequence[Path]) -> Iterator[Path]:
    """The paths, with progress on stderr."""
    with ProgressLine(title, len(paths), quiet=len(paths) < 2) as progress:
        for i, path in enumerate(paths):
            yield path
            progress.update(i + 1, path.name)


def _show_streams(path: Path, audit: EpisodeAudit) -> None:
    from rich.table import Table

    table = Table(title=str(path), title_justify="left")
    for name in (
        "stream",
        "messages",
        "rate",
        "longest gap",
        "jitter p95",
        "missing",
        "late",
        "twice",
        "latency",
    ):
        table.add_column(name, justify="left" if name == "stream" else "right")
    for name, stream in audit.streams.items():
        latency_s = stream.latency_p50_s
        table.add_row(
            name,
            str(stream.messages),
            f"{stream.rate_hz:.1f} Hz",
            f"{stream.max_gap_s * 1e3:.1f} ms",
            f"{stream.jitter_s * 1e3:.1f} ms",
            str(stream.missing),
            str(stream.out_of_order),
            str(stream.duplicates),
            "other clock" if latency_s is None else f"{latency_s * 1e3:.1f} ms",
        )
    table_console().print(table)
    print(f"picture to pose: {audit.skew_p50_s * 1e3:.1f} ms median, {audit.skew_max_s * 1e3:.1f} ms at most")
    print(f"commanded from measured orientation: {audit.turn_max_rad:.2f} rad at most")


def _show_episodes(rows: list[tuple[str, str, str, str]]) -> None:
    from rich.table import Table

    table = Table("bag", "episode", "verdict", "why")
    for row in rows:
        table.add_row(*row)
    table_console().print(table)


def _plot(path: Path, episode: BagEpisode, audit: EpisodeAudit) -> None:
    from dp_ros.data.bags.audit_plot import plot_audit

    streams = {name: (each.stamps_ns, each.received_ns) for name, each in episode.streams.items()}
    plot_audit(path, episode.info.name, audit, streams)
    print(f"picture: {path}")
