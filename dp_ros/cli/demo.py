"""`dp_ros demo`: a trained policy drives the simulated arm over topics."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dp_ros.cli.errors import CliError
from dp_ros.cli.evaluate import Mode

if TYPE_CHECKING:
    from dp_ros.evaluation.results import EpisodeResult
    from dp_ros.evaluation.video_frames import Picture

DEFAULT_CHECKPOINT = "models/drawer-open-v3-unet"
DEFAULT_FOLDER = Path("runs/demo")


def demo(
    checkpoint: Annotated[
        str,
        typer.Option(help="Checkpoint or run folder, or the name of a shipped model."),
    ] = DEFAULT_CHECKPOINT,
    instruction: Annotated[
        str,
        typer.Option(
            show_default="the sentences of the task in turn",
            help="Sentence for a policy that is told what to do; its task is that of the simulated arm, too.",
        ),
    ] = "",
    then: Annotated[
        str, typer.Option(metavar="SENTENCE", help="What the policy is told in the middle of each episode.")
    ] = "",
    after: Annotated[int, typer.Option(min=1, help="Ticks of the episode before --then.")] = 80,
    task: Annotated[
        str,
        typer.Option(
            show_default="the checkpoint's, or that of the last sentence", help="Task of the simulated arm."
        ),
    ] = "",
    episodes: Annotated[int, typer.Option(min=1, help="Number of episodes, one seed each.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode.")] = 0,
    mode: Annotated[
        Mode, typer.Option(help="lockstep, or realtime: the simulated clock waits for nobody.")
    ] = "lockstep",
    json_path: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", show_default=f"{DEFAULT_FOLDER}/TASK.json", help="File of the report."
        ),
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE or DIR",
            show_default=f"{DEFAULT_FOLDER}/TASK.mp4",
            help="One video of all episodes (FILE.mp4), or one video per episode in DIR.",
        ),
    ] = None,
    report_path: Annotated[
        Path | None,
        typer.Option("--report", metavar="DIR", help="Write an HTML report with videos and plots there."),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Serve a live page for a browser on this machine, and the topics to Foxglove; print their addresses.",
        ),
    ] = False,
) -> None:
    """Run the simulated arm and the policy node as processes, count the successes and make videos of the episodes.

    Example: dp_ros demo --mode realtime --episodes 10 --watch
    """
    from dp_ros.cli.console import check_outputs
    from dp_ros.cli.evaluate import check_instructions, run_episodes, task_and_seeds, video_of_each
    from dp_ros.ros.processes.environment import require_ros

    require_ros()
    from dp_ros.data.video import VideoWriter
    from dp_ros.evaluation import many_tasks, model_results
    from dp_ros.evaluation.episode import video_fps
    from dp_ros.evaluation.report.html import SHOWN
    from dp_ros.evaluation.report.write_report import (
        mp4,
        section_of,
        unique_names,
        write_report,
        write_section,
    )
    from dp_ros.evaluation.told import Change
    from dp_ros.evaluation.video_frames import write_filmstrip
    from dp_ros.files import write_json
    from dp_ros.policy.checkpoint_config import instructions_of
    from dp_ros.policy.checkpoint_folder import find_checkpoint
    from dp_ros.schema import RuntimeConfig

    folder = find_checkpoint(checkpoint)
    known = instructions_of(folder)
    last = then or instruction
    told = known.meaning(last).task if known and last else ""
    task, seeds = task_and_seeds(folder, task or told, seed, episodes)
    for sentence in dict.fromkeys((instruction, last)):
        check_instructions(folder, task, seeds, sentence, "known")
    json_path = json_path or DEFAULT_FOLDER / f"{task}.json"
    video = video or DEFAULT_FOLDER / f"{task}.mp4"
    runtime = RuntimeConfig(mode="lockstep")
    strip = video.with_suffix(".png") if video.suffix else video / f"{task}.png"
    check_outputs(folders=[report_path])
    shown: dict[int, bytes] = {}  # seed -> video on the page
    outcomes: list[bool] = []
    with ExitStack() as stack:
        if watch:
            from dp_ros.ros.processes.watching import watching

            print("\n".join(stack.enter_context(watching())), flush=True)
        whole = stack.enter_context(VideoWriter(video, video_fps(task))) if video.suffix == ".mp4" else None
        each = video_of_each(video, task) if whole is None else None

        def keep(result: EpisodeResult, pictures: list[Picture]) -> None:
            if whole is not None:
                whole.add(pictures)
            if each is not None:
                each(result, pictures)
            if result.seed == seed:
                write_filmstrip(strip, pictures)
            if report_path and outcomes.count(result.success) < SHOWN:
                shown[result.seed] = mp4(pictures, video_fps(task))
            outcomes.append(result.success)

        ticks = many_tasks.MAX_STEPS if known else model_results.MAX_STEPS
        report = run_episodes(
            folder, task, seed, episodes, "ros", ticks, runtime, keep, mode=mode, instruction=instruction,
            then=Change(then, after) if then else None,
        )  # fmt: skip
    write_json(json_path, report.as_dict())
    print(f"video: {video}\npicture: {strip}\nreport: {json_path}")
    if report_path:
        section = section_of(report, *unique_names([folder]))
        section.videos = shown
        write_section(report_path, section)
        print(f"page: {write_report(report_path, f'Demo of {section.name}', [section])}")
    if not report.successes:
        raise CliError(f"none of the {episodes} episodes succeeded")
