"""`dp_ros eval`: how good a checkpoint is, on seeds it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dp_ros.cli.console import find_checkpoint
from dp_ros.cli.errors import USAGE, CliError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dp_ros.evaluation.film import Picture
    from dp_ros.evaluation.statistics import EpisodeResult, Report
    from dp_ros.schema import RuntimeConfig

Transport = Literal["in-process", "ros"]


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint or run folder, or a name in models/.")],
    task: Annotated[str, typer.Option(show_default="the checkpoint's", help="Metaworld task.")] = "",
    episodes: Annotated[int, typer.Option(min=1, help="How many, one seed each.")] = 50,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the first episode; training seeds are refused.")
    ] = 0,
    transport: Annotated[
        Transport, typer.Option(help="in-process, or ros: bridge and policy node over real topics.")
    ] = "in-process",
    policy_seed: Annotated[int, typer.Option(min=0, help="Seed of the sampler's noise.")] = 0,
    max_steps: Annotated[int, typer.Option(min=1, help="Time limit of an episode in ticks.")] = 200,
    sampler: Annotated[
        Literal["checkpoint", "ddim", "ddpm"], typer.Option(help="Replace the checkpoint's sampler.")
    ] = "checkpoint",
    iterations: Annotated[
        int, typer.Option(min=0, help="Replace its denoising iterations; 0: the checkpoint's.")
    ] = 0,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the report there.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option("--video", metavar="DIR", help="Also film each episode: seedN.mp4.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of the inference; 0: torch's choice.")] = 0,
) -> None:
    """Run a policy on episodes it was not trained on and count its successes."""
    from dp_ros.schema import RuntimeConfig, parse

    settings = {
        "mode": "lockstep",
        "sampler": sampler,
        "sampler_iterations": iterations,
        "policy_seed": policy_seed,
        "threads": threads,
    }
    runtime = parse(RuntimeConfig, settings, where="eval")
    on_video = None
    if video:
        on_video = film_each(video)
    report = run_episodes(
        find_checkpoint(checkpoint), task, seed, episodes, transport, max_steps, runtime, on_video
    )
    if json_path:
        from dp_ros.evaluation.statistics import write_json

        write_json(json_path, report.as_dict())


def run_episodes(
    checkpoint: Path,
    task: str,
    seed: int,
    episodes: int,
    transport: Transport,
    max_steps: int,
    runtime: RuntimeConfig,
    on_video: Callable[[EpisodeResult, list[Picture]], None] | None,
) -> Report:
    """Episodes over the chosen transport, each printed as it ends, then the summary."""
    from dp_ros.policy.checkpoint_config import policy_config, read_config

    task = task or policy_config(checkpoint).task
    if not task:
        raise CliError(f"{checkpoint}: names no task: give one with --task", USAGE)
    run: Callable[..., Report]
    if transport == "ros":
        from dp_ros.ros.environment import require_ros

        require_ros()
        from dp_ros.ros.session import evaluate as run
    else:
        from dp_ros.evaluation.rollout import evaluate_in_process as run
    from dp_ros.evaluation.rollout import check_unseen
    from dp_ros.sim.metaworld_arm import check_task

    task, seeds = check_task(task), range(seed, seed + episodes)
    check_unseen(read_config(checkpoint), task, seeds)
    report = run(
        checkpoint, task, seeds, max_steps=max_steps, runtime=runtime, on_episode=_print, on_video=on_video
    )
    print(report.summary())
    return report


def film_each(folder: Path) -> Callable[[EpisodeResult, Any], None]:
    """An `on_video` that writes one file for each episode."""

    def write(result: EpisodeResult, pictures: list[Picture]) -> None:
        from dp_ros.data.video import write_video
        from dp_ros.evaluation.rollout import VIDEO_FPS

        write_video(folder / f"seed{result.seed}.mp4", pictures, VIDEO_FPS)

    return write


def _print(result: EpisodeResult) -> None:
    outcome = "success" if result.success else f"FAILED ({result.reason})"
    print(f"seed {result.seed}: {outcome} after {result.steps} steps", flush=True)
