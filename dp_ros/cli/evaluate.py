"""`dp_ros eval`: success of a checkpoint on seeds that it was not trained on."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dp_ros.cli.console import ProgressLine, check_outputs, command_line
from dp_ros.cli.errors import USAGE, CliError
from dp_ros.cli.evaluate_report import publish, write_report_json
from dp_ros.cli.options import (
    EngineOption,
    FirstSeed,
    InstructionOption,
    Iterations,
    Jobs,
    JsonFile,
    LimitsFile,
    PolicySeed,
    Precision,
    Sampler,
    SpacingOption,
    Threads,
    TopicMapFile,
    WarmStart,
    lockstep_runtime,
)

InstructionKind = Literal["known", "held_out", "wrong"]  # as evaluation.told has it
if TYPE_CHECKING:
    from collections.abc import Callable

    from dp_ros.evaluation.results import EpisodeResult, Report
    from dp_ros.evaluation.told import Change
    from dp_ros.evaluation.video_frames import Picture
    from dp_ros.schema import RuntimeConfig

Transport = Literal["in-process", "ros"]
Mode = Literal["lockstep", "realtime"]


def evaluate(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT...", help="Checkpoint or run folders, or names of shipped models."
        ),
    ],
    task: Annotated[
        str,
        typer.Option(
            show_default="the checkpoint's",
            help="Task of the simulated arm; or several, a,b,c, a group (mt10, easy, medium, hard, very_hard), or all "
            "50 of Metaworld: then with means, and the same command with --json resumes.",
        ),
    ] = "",
    instruction: InstructionOption = "",
    instructions: Annotated[
        InstructionKind,
        typer.Option(
            help="Sentences for a policy that is told what to do: known ones of the task, held_out ones that training "
            "never saw, or wrong ones, of other tasks."
        ),
    ] = "known",
    episodes: Annotated[
        int, typer.Option(min=1, help="Number of episodes of each task, one seed each.")
    ] = 50,
    seed: FirstSeed = 0,
    transport: Annotated[
        Transport, typer.Option(help="in-process, or ros: bridge and policy node over topics.")
    ] = "in-process",
    mode: Annotated[
        Mode,
        typer.Option(help="lockstep, or realtime: the simulated clock waits for nobody (--transport ros)."),
    ] = "lockstep",
    policy_seed: PolicySeed = 0,
    max_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default="200; of several tasks 500, Metaworld's own",
            help="Time limit of an episode in ticks.",
        ),
    ] = None,
    sampler: Sampler = "checkpoint",
    iterations: Iterations = 0,
    spacing: SpacingOption = "checkpoint",
    warm_start: WarmStart = 0,
    engine: EngineOption = "auto",
    precision: Precision = "auto",
    params_file: LimitsFile = None,
    jobs: Jobs = 1,
    threads: Threads = 0,
    report_path: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="DIR", help="Write an HTML report with videos and plots, and JSON, there."
        ),
    ] = None,
    json_path: JsonFile = None,
    on_bags: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="BAGS",
            help="No episodes: error of the actions along bags, folders of bags or one dataset, without a "
            "simulator; repeat for more.",
        ),
    ] = None,
    topics_file: TopicMapFile = None,
    video: Annotated[
        Path | None,
        typer.Option("--video", metavar="DIR", help="Also make a video of each episode: seedN.mp4."),
    ] = None,
) -> None:
    """Run a policy on episodes it was not trained on and count its successes.

    Example: dp_ros eval runs/drawer --episodes 100 --jobs 2 --threads 1 --report runs/report
    """
    if on_bags:
        from dp_ros.cli.evaluate_bags import evaluate_on_bags

        evaluate_on_bags(checkpoints, on_bags, topics_file, policy_seed, json_path)
        return
    for option, path in (("--json", json_path), ("--video", video)):
        if path and len(checkpoints) > 1:
            raise CliError(f"{option} takes one checkpoint; --report DIR takes several", USAGE)
    if jobs != 1 and transport == "ros":
        raise CliError("--jobs goes with --transport in-process: a session over ROS is one robot", USAGE)
    if mode == "realtime" and transport != "ros":
        raise CliError(
            "--mode realtime goes with --transport ros: in this process nothing runs at once", USAGE
        )
    if instruction and instructions != "known":
        raise CliError("--instruction gives the sentence: leave --instructions out", USAGE)
    from dp_ros.evaluation import many_tasks, model_results
    from dp_ros.policy.checkpoint_folder import find_checkpoint
    from dp_ros.sim.arm import find_tasks

    chosen: dict[str, Any] = {"engine": engine, "precision": precision, "params_file": params_file}
    runtime = lockstep_runtime(policy_seed, threads, sampler, iterations, spacing, warm_start, **chosen)
    folders = [find_checkpoint(checkpoint) for checkpoint in checkpoints]
    # All are checked before the first episode.
    several = find_tasks(task) if task else tasks_of(folders[0])
    if not task and len(folders) > 1 and any(len(tasks_of(folder)) > 1 for folder in folders):
        raise CliError("several checkpoints, of which one does many tasks, need one --task", USAGE)
    tasks = [task_and_seeds(f, t, seed, episodes)[0] for f in folders for t in several or ("",)]
    told = {"instruction": instruction, "instructions": instructions}
    for i, each in enumerate(tasks):
        check_instructions(folders[i // max(1, len(several))], each, range(seed, seed + episodes), **told)
    check_outputs(folders=[report_path, video], files=[json_path])
    ticks = max_steps or (many_tasks.MAX_STEPS if len(several) > 1 else model_results.MAX_STEPS)
    on_video = video_of_each(video, tasks[0]) if video else None

    def run(folder: Path, task: str = task) -> Report:
        return run_episodes(
            folder, task, seed, episodes, transport, ticks, runtime, on_video, jobs, mode, **told
        )

    if len(several) > 1:
        if len(folders) > 1 or report_path or video or transport == "ros":
            raise CliError(
                "several tasks go with one checkpoint, in-process, and with --json, not --report or --video",
                USAGE,
            )
        from dp_ros.cli.evaluate_tasks import evaluate_tasks

        about = describe(folders[0], runtime, ticks, jobs, episodes)
        says: dict[str, Any] = {"policy_seed": policy_seed, "first_seed": seed}
        if tasks_of(folders[0]):
            says["instructions"] = instruction or instructions
        evaluate_tasks(several, about, says, episodes, lambda each: run(folders[0], each), json_path)
        return
    if report_path:
        print(f"report: {publish(report_path, folders, run, runtime, ticks, json_path)}")
        return
    for folder in folders:
        write_report_json(json_path, run(folder))


def tasks_of(checkpoint: Path) -> tuple[str, ...]:
    """The tasks that a checkpoint can be told to do; empty where it does one thing."""
    from dp_ros.policy.checkpoint_config import instructions_of

    known = instructions_of(checkpoint)
    return known.tasks if known else ()


def task_and_seeds(checkpoint: Path, task: str, seed: int, episodes: int) -> tuple[str, range]:
    """Task and seeds of an evaluation; CliError, TaskError or ConfigError where the policy was trained on a seed."""
    from dp_ros.policy.checkpoint_config import policy_config, read_config

    task = task or policy_config(checkpoint).task or next(iter(tasks_of(checkpoint)), "")
    if not task:
        raise CliError(f"{checkpoint}: names no task: give one with --task", USAGE)
    from dp_ros.evaluation.seeds import check_unseen
    from dp_ros.sim.arm import check_task

    task, seeds = check_task(task), range(seed, seed + episodes)
    check_unseen(read_config(checkpoint), task, seeds)
    return task, seeds


def check_instructions(
    checkpoint: Path, task: str, seeds: range, instruction: str, instructions: InstructionKind
) -> None:
    """InstructionError where an episode has no sentence, or the one for all is not understood."""
    from dp_ros.evaluation.told import instruction_for
    from dp_ros.policy.checkpoint_config import instructions_of

    known = instructions_of(checkpoint)
    for seed in seeds:
        instruction_for(known, task, seed, instruction, instructions)
    if known and instruction:
        known.meaning(instruction)


def run_episodes(
    checkpoint: Path,
    task: str,
    seed: int,
    episodes: int,
    transport: Transport,
    max_steps: int,
    runtime: RuntimeConfig,
    on_video: Callable[[EpisodeResult, list[Picture]], None] | None,
    jobs: int = 1,
    mode: Mode = "lockstep",
    *,
    instruction: str = "",
    instructions: InstructionKind = "known",
    then: Change | None = None,
) -> Report:
    """Run episodes over the chosen transport; print each when it ends, then the summary.

    then: over ROS, what each filmed episode is told in its middle.
    """
    run: Callable[..., Report]
    options: dict[str, Any] = {}
    if transport == "ros":
        from dp_ros.ros.processes.environment import require_ros

        require_ros()
        from dp_ros.ros.processes.session import evaluate as run

        options = {"mode": mode, "instruction": instruction, "instructions": instructions, "then": then}
    else:
        from dp_ros.evaluation.rollout import evaluate_in_process as run

        options = {"jobs": jobs, "instruction": instruction, "instructions": instructions}
    from dp_ros.inference.engine import choose_engine

    task, seeds = task_and_seeds(checkpoint, task, seed, episodes)
    runtime, why = choose_engine(checkpoint, runtime)
    print(f"engine: {runtime.engine} {runtime.precision}, {why}", flush=True)
    about = describe(checkpoint, runtime, max_steps, jobs, episodes)
    with ProgressLine("episodes", episodes) as progress:
        report = run(
            checkpoint,
            task,
            seeds,
            max_steps=max_steps,
            runtime=runtime,
            on_episode=_shown(progress),
            on_video=on_video,
            weights_sha256=about["provenance"]["weights_sha256"],
            **options,
        )
    report.settings, report.provenance = {**about["settings"], "mode": mode}, about["provenance"]
    if any(result.instruction for result in report.results):
        report.settings["instructions"] = instruction or instructions
    print(report.summary())
    return report


def describe(
    checkpoint: Path, runtime: RuntimeConfig, max_steps: int, jobs: int, episodes: int
) -> dict[str, dict[str, Any]]:
    """The `settings` and `provenance` of a report on `episodes` to come.

    They are read before the first episode, because a training may replace the checkpoint meanwhile.
    """
    from dp_ros.evaluation.provenance import provenance, settings

    return {
        "settings": settings(checkpoint, runtime, max_steps, jobs, episodes),
        "provenance": provenance(checkpoint, command_line()),
    }


def video_of_each(folder: Path, task: str) -> Callable[[EpisodeResult, Any], None]:
    """An `on_video` callback that writes one file per episode of `task`."""

    def write(result: EpisodeResult, pictures: list[Picture]) -> None:
        from dp_ros.data.video import write_video
        from dp_ros.evaluation.episode import video_fps

        write_video(folder / f"seed{result.seed}.mp4", pictures, video_fps(task))

    return write


def _shown(progress: ProgressLine) -> Callable[[EpisodeResult], None]:
    """A callback that prints each episode and counts it."""
    done = count(1)

    def show(result: EpisodeResult) -> None:
        _print(result)
        progress.update(next(done), "")

    return show


def _print(result: EpisodeResult) -> None:
    outcome = "success" if result.success else f"FAILED ({result.reason})"
    line = f"seed {result.seed}: {outcome} after {result.steps} steps"
    if result.realtime_factor is not None and result.held_share is not None:
        line += f", real-time factor {result.realtime_factor:.3f}, {result.held_share:.1%} of ticks held"
    print(line, flush=True)
