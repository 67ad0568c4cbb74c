"""One model of a campaign: collected, trained, packed and evaluated; each step that is done is skipped on resume."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dp_ros.cli.console import ProgressLine, duration
from dp_ros.cli.errors import describe
from dp_ros.documents import read_json

if TYPE_CHECKING:
    from dp_ros.schema import CollectConfig, RuntimeConfig, Source, TrainConfig
    from dp_ros.train.progress import Progress

SETTINGS = "settings.json"
JOBS_ON_GPU = 4


@dataclass(frozen=True)
class Job:
    """One model: a task and a preset."""

    collect: CollectConfig
    train: TrainConfig
    preset: str
    folder: Path
    assignments: tuple[str, ...]
    sources: Mapping[str, Source] | None = None  # of the values of `train`

    @property
    def name(self) -> str:
        return f"{self.collect.task}-{Path(self.preset).stem}"

    @property
    def data(self) -> Path:
        """The demonstrations, shared by models with the same cameras and picture size."""
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


def run_job(job: Job, episodes: int, max_steps: int, jobs: int, time_is_over: Callable[[], bool]) -> str:
    """Bring one model as far as time allows; its outcome in one line, "failed: ..." for any exception."""
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
    """The error in one line; the traceback of a bug goes to stderr."""
    described = describe(error)
    if described:
        return described[0]
    traceback.print_exception(error)
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _settings(job: Job, episodes: int, max_steps: int) -> dict[str, Any]:
    """The settings that determine a model's results."""
    from dp_ros.train.trainer import RESUME_IRRELEVANT

    return {
        "collect": job.collect.model_dump(mode="json"),
        "train": job.train.model_dump(mode="json", exclude=RESUME_IRRELEVANT),
        "episodes": episodes,
        "max_steps": max_steps,
    }


def _done_before(job: Job, settings: dict[str, Any]) -> str:
    path = job.results / SETTINGS
    if path.exists():  # results of the first versions have none
        kept = read_json(path)
        other = [name for name, value in settings.items() if kept.get(name) != value]
        if other:
            return f"failed: its results are of other settings ({', '.join(other)}): give the same, or another --out"
    return "done before"


def _collect(job: Job, jobs: int, time_is_over: Callable[[], bool]) -> None:
    from dp_ros.train.collect import collect
    from dp_ros.train.stopping import TrainingPaused

    with ProgressLine(f"{job.collect.task}: collecting", job.collect.episodes) as progress:

        def on_episode(task: str, kept: int, tried: int) -> None:
            progress.update(kept, f"{tried} tried")
            if time_is_over() and kept < job.collect.episodes:
                raise TrainingPaused(f"{kept} of {job.collect.episodes} demonstrations")

        if time_is_over():
            raise TrainingPaused("not begun")
        collect(job.collect, job.data, jobs, on_episode)


def _train(job: Job, time_is_over: Callable[[], bool]) -> None:
    from dp_ros.train.run import train
    from dp_ros.train.run_folder import STATE

    _free_gpu()  # of a job that failed: its exception held the tensors until now
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
            on_warning=lambda line: progress.say(f"{job.name}: warning: {line}"),
            command={"config": job.preset, "set": list(job.assignments)},
            sources=job.sources,
            time_is_over=time_is_over,
        )
    _free_gpu()  # the evaluation's workers need it


def _free_gpu() -> None:
    """Return the GPU memory of a finished training."""
    import torch

    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def _pack(job: Job) -> None:
    from dp_ros.cli.pack import pack

    pack(str(job.run), job.model, "f16")


def _evaluate(job: Job, report_path: Path, episodes: int, max_steps: int, jobs: int) -> str:
    """Evaluate the packed model and write its card; the summary."""
    from dp_ros.cli.evaluate import run_episodes
    from dp_ros.cli.options import lockstep_runtime
    from dp_ros.cli.pack import card
    from dp_ros.files import write_json

    runtime = lockstep_runtime(0, 0)
    jobs = evaluation_jobs(jobs, episodes, runtime)
    report = run_episodes(job.model, "", 0, episodes, "in-process", max_steps, runtime, None, jobs)
    pending = report_path.with_name("pending.json")
    write_json(pending, report.as_dict())
    card(str(job.model), [pending])
    pending.rename(report_path)  # last, because its presence means that the model is done
    return report.summary()


def evaluation_jobs(jobs: int, episodes: int, runtime: RuntimeConfig) -> int:
    """Number of processes that evaluate; few where they share a GPU, on which each keeps a context and the policy."""
    import torch

    from dp_ros.evaluation.rollout import worker_count

    count = worker_count(jobs, episodes)
    on_gpu = runtime.device != "cpu" and torch.cuda.is_available()
    return min(count, JOBS_ON_GPU) if on_gpu else count
