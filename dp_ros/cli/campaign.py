"""`dp_ros campaign`: many models on a machine that nobody watches, and their results in small files."""

from __future__ import annotations

import gc
import json
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dp_ros.cli.console import ProgressLine, duration
from dp_ros.cli.errors import FAILED, CliError, Interrupted, describe
from dp_ros.cli.train import find_preset

if TYPE_CHECKING:
    from dp_ros.schema import CollectConfig, RuntimeConfig, TrainConfig
    from dp_ros.train.progress import Progress

SETTINGS = "settings.json"
JOBS_ON_GPU = 4

app = typer.Typer(help="Train many models unattended; hand their results on in small files.")


@dataclass(frozen=True)
class Job:
    """One model: a task and a preset."""

    collect: CollectConfig
    train: TrainConfig
    preset: str
    folder: Path
    assignments: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.collect.task}-{Path(self.preset).stem}"

    @property
    def data(self) -> Path:
        """Models that see the same pictures share their demonstrations."""
        c = self.collect
        return self.folder / "data" / f"{c.task}-{'-'.join(c.cameras)}-{c.width_px}x{c.height_px}"

    @property
    def run(self) -> Path:
        return self.folder / "runs" / self.name

    @property
    def results(self) -> Path:
        return self.folder / "results" / self.name

    @property
    def model(self) -> Path:
        return self.results / self.name


@app.command()
def run(
    tasks: Annotated[list[str], typer.Option("--task", help="Metaworld task; repeat.")],
    out: Annotated[Path, typer.Option(help="Folder of it all; the same command goes on where it stopped.")],
    presets: Annotated[
        list[str] | None,
        typer.Option(
            "--config", show_default="paper", help="A preset or a YAML file of TrainConfig; repeat."
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Replace a setting of every training, e.g. device=cuda; repeat.",
        ),
    ] = None,
    demonstrations: Annotated[int, typer.Option(min=1, help="Demonstrations of each task.")] = 250,
    noise: Annotated[str, typer.Option(help="Noise injected into them, by turns, e.g. 0,0.3,0.6.")] = "0",
    episodes: Annotated[int, typer.Option(min=1, help="Episodes that each model is evaluated on.")] = 50,
    max_steps: Annotated[int, typer.Option(min=1, help="Time limit of such an episode in ticks.")] = 200,
    jobs: Annotated[int, typer.Option(help="Processes that simulate; -1 for one per core.")] = -1,
    hours: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Stop after so long: the training under way saves its state and is packed."
        ),
    ] = None,
) -> None:
    """Collect, train, evaluate and pack every task with every preset; what fails is named, the rest goes on."""
    began = time.monotonic()
    planned = _plan(tasks, presets or ["paper"], tuple(assignments or []), demonstrations, noise, out)

    def time_is_over() -> bool:
        return hours is not None and time.monotonic() - began >= hours * 3600

    from dp_ros.train.stopping import sigterm_as_ctrl_c

    outcomes: dict[str, str] = {}
    try:
        with sigterm_as_ctrl_c():
            for job in planned:
                outcomes[job.name] = _one(job, episodes, max_steps, jobs, time_is_over)
                print(f"{job.name}: {outcomes[job.name]}", flush=True)
                with suppress(OSError):  # a full disk: said at the end, when nothing is left to go on with
                    _hand_over(out, outcomes)  # now, for nobody knows how this process ends
    except KeyboardInterrupt:
        raise Interrupted("run the same command to go on") from None
    finally:
        parts = _hand_over(out, outcomes)
        print(
            f"{out / 'parts'}: {len(parts)} parts and manifest.json; put together with `dp_ros campaign join`"
        )
    if any(outcome.startswith("failed") for outcome in outcomes.values()):
        raise typer.Exit(FAILED)


@app.command()
def join(
    parts: Annotated[Path, typer.Argument(help="Folder with manifest.json and every part.")],
    out: Annotated[Path, typer.Option(help="Folder to make, e.g. results.")],
) -> None:
    """Put the results of a campaign together again, verified."""
    from dp_ros.evaluation.archive import join as put_together

    files = put_together(parts, out)
    print(f"{out}: {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB, verified")


def _plan(
    tasks: list[str],
    presets: list[str],
    assignments: tuple[str, ...],
    demonstrations: int,
    noise: str,
    out: Path,
) -> list[Job]:
    """Every mistake in the settings is found here, before hours of work."""
    from dp_ros.cli.collect import numbers
    from dp_ros.schema import CollectConfig, TrainConfig, load_yaml, parse, parse_assignment
    from dp_ros.sim.metaworld_arm import check_task

    planned = []
    for preset in presets:
        path = find_preset(preset)
        train = load_yaml(TrainConfig, path, dict(parse_assignment(text) for text in assignments))
        encoder = train.policy.encoder
        for task in tasks:
            settings = {
                "task": check_task(task),
                "episodes": demonstrations,
                "cameras": encoder.cameras,
                "width_px": encoder.width_px,
                "height_px": encoder.height_px,
                "noise": numbers(noise),
            }
            collect = parse(CollectConfig, settings, where="campaign")
            planned.append(Job(collect, train, path.name, out, assignments))
    names = [job.name for job in planned]
    if len(set(names)) < len(names):
        raise CliError("a task and preset are given twice: two models would have one name")
    return planned


def _one(job: Job, episodes: int, max_steps: int, jobs: int, time_is_over: Callable[[], bool]) -> str:
    """Bring one model as far as time allows; what became of it."""
    from dp_ros.files import write_json
    from dp_ros.train.stopping import TrainingPaused

    report = job.results / "report.json"
    settings = _settings(job, episodes, max_steps)
    if report.exists():
        return _done_before(job, settings)
    try:
        try:
            _collect(job, jobs, time_is_over)
            _train(job, time_is_over)
        except TrainingPaused as paused:
            if (job.run / "checkpoint").exists():
                _pack(job)
            return f"unfinished ({paused})"
        _pack(job)
        if time_is_over():
            return "trained, not evaluated: the time is over"
        write_json(job.results / SETTINGS, settings)
        return _evaluate(job, report, episodes, max_steps, jobs)
    except Exception as error:
        return f"failed: {_named(error)}"


def _named(error: Exception) -> str:
    """The error in one line; of one that nobody expected, its traceback on stderr too."""
    described = describe(error)
    if described:
        return described[0]
    traceback.print_exception(error)
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _settings(job: Job, episodes: int, max_steps: int) -> dict[str, Any]:
    """What a model's results follow from."""
    from dp_ros.train.trainer import RESUME_IRRELEVANT

    return {
        "collect": job.collect.model_dump(mode="json"),
        "train": job.train.model_dump(mode="json", exclude=RESUME_IRRELEVANT),
        "episodes": episodes,
        "max_steps": max_steps,
    }


def _done_before(job: Job, settings: dict[str, Any]) -> str:
    path = job.results / SETTINGS
    if path.exists():  # results made before it was kept have none
        kept = json.loads(path.read_text())
        other = [name for name, value in settings.items() if kept.get(name) != value]
        if other:
            return f"failed: its results are of other settings ({', '.join(other)}): give the same, or another --out"
    return "done before"


def _collect(job: Job, jobs: int, time_is_over: Callable[[], bool]) -> None:
    from dp_ros.train.collect import collect
    from dp_ros.train.stopping import TrainingPaused

    with ProgressLine(f"{job.collect.task}: collecting", job.collect.episodes) as progress:

        def on_episode(kept: int, tried: int) -> None:
            progress.update(kept, f"{tried} tried")
            if time_is_over() and kept < job.collect.episodes:
                raise TrainingPaused(f"{kept} of {job.collect.episodes} demonstrations")

        if time_is_over():
            raise TrainingPaused("not begun")
        collect(job.collect, job.data, jobs, on_episode)


def _train(job: Job, time_is_over: Callable[[], bool]) -> None:
    from dp_ros.train.run import train
    from dp_ros.train.run_folder import STATE

    _free_gpu()  # of a job before that failed: an error on its way still holds what it was raised in
    with ProgressLine(f"{job.name}: training") as progress:

        def on_progress(report: Progress) -> None:
            note = f"loss {report.loss:.4f}, {report.step_s:.2f} s/step, {duration(report.eta_s)} left"
            progress.update(report.step, note, report.steps)

        train(
            job.train,
            job.data,
            job.run,
            resume=(job.run / STATE).exists(),
            on_start=lambda hardware: progress.say(f"{job.name}: training on {hardware}"),
            on_progress=on_progress,
            on_validation=lambda measured: progress.say(f"{job.name}: {measured}"),
            command={"config": job.preset, "set": list(job.assignments)},
            time_is_over=time_is_over,
        )
    _free_gpu()  # evaluation's workers need it


def _free_gpu() -> None:
    """Give back what a training that is over holds."""
    import torch

    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def _pack(job: Job) -> None:
    from dp_ros.cli.pack import pack

    pack(job.run, job.model, "f16")


def _evaluate(job: Job, report_path: Path, episodes: int, max_steps: int, jobs: int) -> str:
    """Measure the packed model, as it will be served, and write it into its card."""
    from dp_ros.cli.evaluate import lockstep_runtime, run_episodes
    from dp_ros.cli.pack import card
    from dp_ros.files import write_json

    runtime = lockstep_runtime("checkpoint", 0, 0, 0)
    jobs = evaluation_jobs(jobs, episodes, runtime)
    report = run_episodes(job.model, "", 0, episodes, "in-process", max_steps, runtime, None, jobs)
    pending = report_path.with_name("pending.json")
    write_json(pending, report.as_dict())
    card(job.model, [pending])
    pending.rename(report_path)  # last: now the model counts as done
    return report.summary()


def evaluation_jobs(jobs: int, episodes: int, runtime: RuntimeConfig) -> int:
    """How many processes evaluate; few where they share a GPU, on which each keeps a context and the policy."""
    import torch

    from dp_ros.evaluation.rollout import worker_count

    count = worker_count(jobs, episodes)
    on_gpu = runtime.device != "cpu" and torch.cuda.is_available()
    return min(count, JOBS_ON_GPU) if on_gpu else count


def _hand_over(out: Path, outcomes: dict[str, str]) -> list[Path]:
    """The results so far as parts, whatever happened."""
    from dp_ros.evaluation.archive import split
    from dp_ros.files import write_json

    results = out / "results"
    written: dict[str, Any] = {"outcomes": outcomes}
    write_json(results / "campaign.json", written)
    return split(results, out / "parts")
