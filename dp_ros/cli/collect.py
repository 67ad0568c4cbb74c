"""`dp_ros collect`: demonstrations by the scripted expert, as a dataset or as bags."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dp_ros.cli.console import ProgressLine, folder_mb
from dp_ros.cli.errors import USAGE, CliError, on_interrupt
from dp_ros.cli.options import (
    Cluster,
    Jobs,
    camera_option,
    given,
    numbers,
    size_option,
    size_px,
    typed_config,
)

if TYPE_CHECKING:
    from dp_ros.schema import CollectConfig


class Via(StrEnum):
    DIRECT = "direct"
    ROS = "ros"


class Compression(StrEnum):
    NONE = "none"
    ZSTD = "zstd"


# The defaults are those of CollectConfig; a test compares the help with them.
def collect(
    task: Annotated[
        str,
        typer.Option(
            help="Task of the simulated arm, e.g. drawer-open-v3; or several, a,b,c, a group (mt10, easy, medium, "
            "hard, very_hard), or all 50 of Metaworld."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the dataset or the bags; the same command resumes a stopped run.")
    ],
    episodes: Annotated[
        int | None,
        typer.Option(show_default="250", help="Number of successful episodes to record, of each task."),
    ] = None,
    cameras: Annotated[list[str] | None, camera_option("record", "gripperPOV")] = None,
    size: Annotated[
        str | None, size_option("224x224", "`convert` has no such default: it keeps pictures as recorded.")
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            show_default="0.0",
            help="Standard deviation of the noise on the executed action, 1 for 1 cm per tick; several values, "
            "e.g. 0,0.3,0.6, are used in turn, one an episode.",
        ),
    ] = None,
    markers: Annotated[
        bool | None,
        typer.Option(
            "--markers/--no-markers", show_default="no-markers", help="Draw goal and finger markers."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(show_default="100000", help="Seed of the first episode; the next seeds follow."),
    ] = None,
    jobs: Jobs = -1,
    max_steps: Annotated[
        int | None, typer.Option(show_default="300", help="Time limit of an episode in ticks.")
    ] = None,
    keep_steps: Annotated[
        int | None, typer.Option(show_default="10", help="Number of ticks recorded after success.")
    ] = None,
    via: Annotated[
        Via,
        typer.Option(help="direct: to a dataset. ros: over topics, one bag an episode; convert them next."),
    ] = Via.DIRECT,
    compression: Annotated[
        Compression, typer.Option(help="Compression of the bags, with --via ros.")
    ] = Compression.NONE,
    cluster: Cluster = "",
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            show_default="the expert alone",
            help="A policy that moves the arm first; the expert takes over after a while, and only its part is "
            "recorded. Cameras, size and markers are the policy's by default.",
        ),
    ] = None,
    policy_ticks: Annotated[
        int | None,
        typer.Option(
            show_default="200",
            help="Longest time before the expert takes over, in ticks; each episode draws its own. With --policy.",
        ),
    ] = None,
) -> None:
    """Record demonstrations by the task's scripted expert.

    Example: dp_ros collect --task drawer-open-v3 --out runs/data/drawer --episodes 200 --size 96x96
    """
    folder, of_policy = _policy(policy)
    if policy_ticks is not None and folder is None:
        raise CliError("--policy-ticks goes with --policy", USAGE)
    settings = of_policy | given(
        episodes=episodes,
        cameras=cameras,
        **size_px(size),
        policy_ticks=policy_ticks,
        noise=numbers("--noise", noise, "0,0.3,0.6"),
        markers=markers,
        first_seed=seed,
        max_steps=max_steps,
        keep_steps=keep_steps,
    )
    from dp_ros.schema import CollectConfig

    typed_config(CollectConfig, settings)  # before the simulator is loaded
    if via is Via.ROS and cluster:
        raise CliError(
            "--cluster goes with --via direct: over topics, one robot records one episode at a time", USAGE
        )
    if via is Via.ROS and folder:
        raise CliError("--policy goes with --via direct", USAGE)
    from dp_ros.cli.inspect import dataset_facts
    from dp_ros.sim.arm import find_tasks

    tasks = find_tasks(task)
    config = typed_config(CollectConfig, {"task": tasks[0], **settings})
    if via is Via.ROS:
        if len(tasks) > 1:
            raise CliError("--via ros records one task: give one --task, or --via direct", USAGE)
        _collect_bags(config, out, compression)
        return
    from dp_ros.train.collect import collect as run

    more: dict[str, Any] = {}
    if folder:
        from dp_ros.evaluation.corrections import Corrections

        corrections = Corrections.of(folder, config, tasks)
        more = {"demonstrate": corrections, "weights_sha256": corrections.weights_sha256}
    began = time.monotonic()
    facts = dataset_facts(out)
    counts = dict.fromkeys(tasks, 0) | ({t: c.episodes for t, c in facts.tasks.items()} if facts else {})
    before = sum(counts[t] for t in tasks)
    total = config.episodes * len(tasks)
    resume = on_interrupt("the finished episodes are kept: run the same command to resume")
    with ProgressLine("collecting", total, before) as progress, resume:

        def on_episode(task: str, kept: int, tried: int) -> None:
            counts[task] = kept
            done = sum(counts[t] for t in tasks)
            name = f"{task}, " if len(tasks) > 1 else ""
            progress.update(done, f"{name}{tried} tried")

        done = run(config, out, jobs, on_episode, cluster, tasks, **more)
    facts = dataset_facts(out)
    ticks = facts.ticks if facts else 0
    kept, tried = (sum(each) for each in zip(*done.values(), strict=True))
    print(
        f"{out}: {kept} episodes ({tried} tried){f' of {len(tasks)} tasks' if len(tasks) > 1 else ''}, {ticks} ticks, "
        f"{folder_mb(out):.1f} MB, {time.monotonic() - began:.1f} s"
    )


def _policy(policy: str | None) -> tuple[Path | None, dict[str, Any]]:
    """(folder of the checkpoint, settings of its datasets, some of which options replace); none without a policy."""
    if policy is None:
        return None, {}
    from dp_ros.policy.checkpoint_config import bridge_for
    from dp_ros.policy.checkpoint_folder import find_checkpoint, name_of

    folder = find_checkpoint(policy)
    scene = bridge_for(folder).model_dump(include={"cameras", "width_px", "height_px", "markers"})
    return folder, {**scene, "policy": name_of(folder)}


def _collect_bags(config: CollectConfig, out: Path, compression: Compression) -> None:
    from dp_ros.ros.processes.environment import require_ros

    require_ros()
    from dp_ros.ros.processes.collecting import collect_bags

    began = time.monotonic()
    resume = on_interrupt("the finished bags are kept: run the same command to resume")
    with ProgressLine("recording", config.episodes) as progress, resume:
        kept, tried = collect_bags(
            config,
            out,
            compression=compression.value,
            on_episode=lambda kept, tried: progress.update(kept, f"{tried} tried"),
        )
    print(
        f"{out}: {kept} successful bags ({tried} tried), {folder_mb(out):.1f} MB, "
        f"{time.monotonic() - began:.1f} s; next: dp_ros convert {out} --out DATASET"
    )
