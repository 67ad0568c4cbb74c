"""`dp_ros pack` and `dp_ros card`: a model to ship from a training run, and the card of its evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dp_ros.cli.errors import USAGE, CliError
from dp_ros.cli.options import Checkpoint, Iterations, Sampler, SpacingOption


def pack(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(help="Folder of the model, e.g. models/drawer-open-v3-unet.")],
    dtype: Annotated[
        str, typer.Option(help="f16, or f32 at twice the size; both are served in f32.")
    ] = "f16",
    sampler: Sampler = "checkpoint",
    iterations: Iterations = 0,
    spacing: SpacingOption = "checkpoint",
    paraphrases: Annotated[
        Path | None,
        typer.Option(
            help="File of sentences, e.g. config/instructions.yaml: the policy is to understand the paraphrases of its "
            "tasks, too."
        ),
    ] = None,
) -> None:
    """Copy a checkpoint with weights in half precision and a card without measurements.

    The sampler, its iterations and their spacing may be other ones: the weights stay the same.

    Example: dp_ros pack runs/drawer --out models/my-drawer
    """
    from dp_ros.cli.options import lockstep_runtime
    from dp_ros.evaluation.card import write_card
    from dp_ros.inference.engine import sampler_settings
    from dp_ros.policy.checkpoint import DTYPES, load_checkpoint, read_config, save_checkpoint
    from dp_ros.policy.checkpoint_config import instructions_of, ood_stats_of
    from dp_ros.policy.checkpoint_folder import find_checkpoint

    if dtype not in DTYPES:
        raise CliError(f"unknown dtype '{dtype}': give {' or '.join(DTYPES)}", USAGE)
    source = find_checkpoint(checkpoint)
    config = read_config(source)
    policy = load_checkpoint(source)
    instructions = instructions_of(source)
    if paraphrases and instructions is None:
        raise CliError(f"{source}: takes no instruction: leave --paraphrases out", USAGE)
    if paraphrases and instructions:
        instructions = instructions.with_paraphrases(paraphrases)
    runtime = lockstep_runtime(0, 0, sampler, iterations, spacing)
    diffusion = sampler_settings(policy.config.diffusion, runtime)
    policy.config = policy.config.model_copy(update={"diffusion": diffusion})
    save_checkpoint(
        policy,
        out,
        scene=config["scene"],
        training=config["training"],
        dtype=dtype,
        instructions=instructions,
        ood=ood_stats_of(source),
    )
    write_card(out, out.name)
    print(f"{out}: {sum(file.stat().st_size for file in out.iterdir()) / 1e6:.1f} MB")


def card(
    checkpoint: Checkpoint,
    report: Annotated[
        list[Path] | None,
        typer.Option(
            show_default="the results kept in results.json",
            help="Report of `dp_ros eval --json` on these weights; repeat for more.",
        ),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Keep the results in results.json that no report with the same settings replaces."
        ),
    ] = False,
) -> None:
    """Write the evaluations of a checkpoint beside its weights: results.json, and card.md from it.

    Example: dp_ros card models/my-drawer --report runs/report.json
    """
    from dp_ros.evaluation.card import write_card
    from dp_ros.evaluation.model_results import merged, read_results, results_of, write_results
    from dp_ros.policy.checkpoint_folder import find_checkpoint, name_of

    folder = find_checkpoint(checkpoint)
    if report:
        new = [result for path in report for result in results_of(path, folder)]
        write_results(folder, merged(read_results(folder), new) if keep else new)
    write_card(folder, name_of(folder))
    print(folder / "card.md")
