"""`dp_ros COMMAND`: one file per command. A command imports what it needs when it runs, so that help is fast."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from dp_ros import __version__
from dp_ros.cli import (
    bag,
    baselines,
    campaign,
    collect,
    compare,
    console,
    convert,
    demo,
    distill,
    doctor,
    errors,
    evaluate,
    exchange,
    export_model,
    faults,
    inspect,
    limits,
    models,
    ood_stats,
    pack,
    reference,
    replay,
    robustness,
    security,
    soak,
    stand_in,
    train,
    view,
    watchdog,
)
from dp_ros.cli.bench import command as bench

app = typer.Typer(
    name="dp_ros",
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback is a bug report: keep it plain
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("collect")(collect.collect)
app.add_typer(bag.app, name="bag")
app.command("convert")(convert.convert)
app.command("export")(exchange.export)
app.command("import")(exchange.import_)
app.command("train")(train.train)
app.command("distill")(distill.distill)
app.command("eval")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("robustness")(robustness.robustness)
app.command("demo")(demo.demo)
app.command("watchdog", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    watchdog.watchdog
)
app.command("stand-in", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    stand_in.stand_in
)
app.command("faults")(faults.faults)
app.command("security")(security.security)
app.command("soak")(soak.soak)
app.command("replay")(replay.replay)
app.command("baselines")(baselines.baselines)
app.add_typer(bench.app, name="bench")
app.command("inspect")(inspect.inspect)
app.command("view")(view.view)
app.command("limits")(limits.limits)
app.command("doctor")(doctor.doctor)
app.command("models")(models.models)
app.command("reference")(reference.reference)
app.command("export-model")(export_model.export_model)
app.command("ood-stats")(ood_stats.ood_stats)
app.command("pack")(pack.pack)
app.command("card")(pack.card)
app.add_typer(campaign.app, name="campaign")


def _version(is_given: bool) -> None:
    if is_given:
        print(f"dp_ros {__version__}")
        raise typer.Exit


@app.callback()
def _dp_ros(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Diffusion Policy for robot arms: from demonstrations to a running policy."""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. A UserError is one line on stderr (see `errors`)."""
    args = list(sys.argv[1:] if args is None else args) or ["--help"]
    command = typer.main.get_command(app)
    console.TYPED.set(tuple(args))
    # A read that fails ends its command in one line; asyncio would print the traceback of each other read in flight.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    return errors.one_line(lambda: command.main(args=args, prog_name="dp_ros", standalone_mode=False))
