"""Model card of a checkpoint: its interface, data, training and measured results.

All of it is read from the checkpoint's files; no figure is typed by hand.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dp_ros.evaluation.card_tables import group_name, table_of_one_task, tables_of_tasks
from dp_ros.evaluation.model_results import read_results
from dp_ros.evaluation.report.plots import learning_curve
from dp_ros.files import write_bytes, write_text
from dp_ros.policy.checkpoint import CARD
from dp_ros.policy.checkpoint_config import instructions_of, policy_config, read_config
from dp_ros.schema import CollectConfig

CURVE = "curve.png"


def card_text(folder: str | Path, name: str) -> str:
    """Card of the checkpoint in `folder`, as Markdown, from its config.json and results.json."""
    config, policy = read_config(folder), policy_config(folder)
    training, data = config["training"], config["training"].get("data", {})
    settings = training.get("config", {})
    encoder, horizons, diffusion = policy.encoder, policy.horizons, policy.diffusion
    size_mb = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
    pictures = encoder.describe(str(encoder.target(camera)) for camera in encoder.cameras)
    proprioception = "proprioception" if encoder.proprioception else "no proprioception"
    task = f" for Metaworld's {policy.task}" if policy.task else ""
    results = read_results(folder)
    names = _names_of_data(training)
    lines = [
        f"# {name}",
        "",
        f"Diffusion Policy ({policy.network}){task}. {size_mb:.0f} MB, weights in {config['weights_dtype']}.",
        "",
        f"- **Observes** {', '.join(encoder.cameras)}, {pictures}, {proprioception}: "
        f"T_o = {horizons.T_o} frames at {policy.rate_hz:g} Hz; "
        f"goal markers {'drawn' if config['scene'].get('markers') else 'hidden'}.",
        f"- **Predicts** {policy.action.position} end-effector positions and gripper: "
        f"T_p = {horizons.T_p} actions, of which T_a = {horizons.T_a} are executed.",
        f"- **Samples** with {diffusion.sampler.upper()}, "
        f"{diffusion.sampler_iterations} of {diffusion.iterations} iterations, {diffusion.spacing} spacing.",
        *_instructions(folder),
        *_teacher(training),
        "",
        "## Data",
        "",
        *_data(data, names[-1]),
        "## Training",
        "",
        *_init(training, names[:-1]),
        f"{training.get('step')} steps of {settings.get('batch_size')} windows, {_targets(training)}; "
        f"learning rate {settings.get('lr')}, "
        f"{settings.get('precision')}, seed {settings.get('seed')}; "
        f"dp_ros {training.get('dp_ros')}, commit {training.get('commit', 'unknown')}.{_effort(training)}",
        "",
        f"    {train_command(training, names[-1])}",
        "",
        *([f"![Loss over the steps]({CURVE})", ""] if _curve(training) else []),
        "## Measured",
        "",
    ]
    if results:
        table = tables_of_tasks if policy.instruction else table_of_one_task
        lines += table(name, results, diffusion.model_dump())
    else:
        lines += [
            f"Not measured: `dp_ros eval models/{name}{' --task all' if policy.instruction else ''} --episodes 100 "
            "--json FILE`, then `dp_ros card`."
        ]
    lines += [
        "",
        "## Limits",
        "",
        f"{'One simulated robot' if policy.instruction else 'One task, one simulated robot'}, one camera set-up; never "
        "run on hardware. Success is Metaworld's own measure. Latencies are of the machine the command ran on.",
    ]
    return "\n".join(lines) + "\n"


def write_card(folder: str | Path, name: str) -> None:
    """Write card.md, and the plot of the loss that it shows, into `folder`; each appears whole."""
    folder = Path(folder)
    curve = _curve(read_config(folder)["training"])
    if curve:
        write_bytes(folder / CURVE, learning_curve(curve))
    write_text(folder / CARD, card_text(folder, name))


def _instructions(folder: str | Path) -> list[str]:
    """The line about the sentences that the model knows; none for a model of one task."""
    known = instructions_of(folder)
    if known is None:
        return []
    count = sum(sentence.kind != "held_out" for sentence in known.sentences)
    return [
        f"- **Told** by a sentence what to do: {count} sentences of {len(known.tasks)} tasks, e.g. "
        f"'{known.sentence(known.tasks[0])}'. Others need the extra `text`."
    ]


def _teacher(training: Mapping[str, Any]) -> list[str]:
    """The line about the policy that this one was distilled from; none where there was none."""
    teacher = training.get("teacher")
    if not teacher:
        return []
    return [
        f"- **Distilled** from {teacher['name']}, weights sha256 {teacher['weights_sha256']}, which planned with "
        f"{teacher['sampler'].upper()}, {teacher['sampler_iterations']} iterations, {teacher['spacing']} spacing."
    ]


def _init(training: Mapping[str, Any], names: Sequence[Sequence[str]]) -> list[str]:
    """Lines about the checkpoint that the training began with (`--init`); none where it began with random weights.

    names: of the datasets of each stage before this training, as `_names_of_data` gives them.
    """
    init = training.get("init")
    if not init:
        return []
    begun = f"Begun with the weights of {init['name']} (sha256 {init['weights_sha256']})"
    if "step" not in init or "command" not in init:
        return [*_init(init, names[:-1]), f"{begun}.", ""]
    hardware = (
        f" ({duration(init)} on {init['hardware']})" if "hardware" in init and "seconds" in init else ""
    )
    return [
        *_init(init, names[:-1]),
        f"{begun} after {init['step']} steps{hardware} of:",
        "",
        *_collect_lines(init.get("data", {}), names[-1]),
        f"    {train_command(init, names[-1])}",
        "",
    ]


def _targets(training: Mapping[str, Any]) -> str:
    """Labels of a window, as a part of a sentence."""
    if "teacher" in training:
        return "with the teacher's plans as labels"
    targets = training.get("config", {}).get("noise_samples")
    return f"{targets} diffusion target{'' if targets == 1 else 's'} each"


def _curve(training: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The run's history; None where it has no loss."""
    history = training.get("history") or {}
    return history if history.get("loss") else None


def _effort(training: Mapping[str, Any]) -> str:
    """Duration, hardware and last loss as a sentence; "" where the run kept no history."""
    curve = _curve(training)
    if not curve:
        return ""
    return f" {duration(training)} on {training['hardware']}; last loss {curve['loss'][-1][1]:.3f}."


def duration(*stages: Mapping[str, Any]) -> str:
    """Duration of these `stages` of a training together; "-" where one kept no history."""
    total_s = 0.0
    for stage in stages:
        seconds = (_curve(stage) or stage).get("seconds")
        if seconds is None:
            return "-"
        total_s += seconds
    return f"{total_s / 60:.0f} min"


def stages(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The training and those of the checkpoints that it began with, the first one first."""
    before = training.get("init")
    return [*(stages(before) if before else ()), training]


def _data(data: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """`names`: of the datasets, as the commands call them."""
    size = f"{data.get('episodes')} episodes, {data.get('ticks')} ticks"
    calls, others = _collections(data)
    if not calls:
        return [f"{size}.", ""]
    seeds = " and ".join(str(seed) for seed in sorted({call["first_seed"] for call in calls}))
    noise = " or, in other datasets, ".join(dict.fromkeys(str(call["noise"]) for call in calls))
    return [
        f"{size}: successful episodes of the scripted expert, seeds from {seeds}. Noise is injected "
        f"into the executed action; its standard deviation cycles through {noise} from episode to episode. "
        "Labels are clean.",
        *_corrections(calls),
        *([f"{sum(others)} of the episodes are of a person or another robot."] if others else []),
        "",
        *_collect_lines(data, names),
        "",
    ]


def _corrections(calls: Sequence[Mapping[str, Any]]) -> list[str]:
    """The sentence about the episodes that a policy began; none where the expert moved the arm alone."""
    begun = [call for call in calls if call.get("policy")]
    episodes = sum(call["episodes"] * len(call["tasks"]) for call in begun)
    names = dict.fromkeys(f"{call['policy']} (sha256 {call['policy_sha256']})" for call in begun)
    if not begun:
        return []
    return [f"{episodes} of the episodes begin where the expert took over from {' or '.join(names)}."]


def _names_of_data(training: Mapping[str, Any]) -> list[list[str]]:
    """For each of the stages, what the commands call its datasets: DATA, DATA2 and so on, each name once."""
    names: list[list[str]] = []
    count = 0
    for stage in stages(training):
        calls, others = _collections(stage.get("data", {}))
        numbers = range(count + 1, count + len(calls) + len(others) + 1)
        names.append(["DATA" if number == 1 else f"DATA{number}" for number in numbers])
        count += len(numbers)
    return names


def _collect_lines(data: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    calls, _ = _collections(data)
    return [f"    {collect_command(call, name)}" for call, name in zip(calls, names, strict=False)]


def _collections(data: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[int]]:
    """(calls of `dp_ros collect` that make the data, episodes of each dataset of a person or another robot).

    Datasets that differ by their tasks alone are one call.
    """
    calls: list[dict[str, Any]] = []
    others: list[int] = []
    for part in data.get("parts", [data]):
        if not {"first_seed", "noise"} <= part.keys():
            others.append(part.get("episodes", 0))
            continue
        tasks = [task or "TASK" for task in part.get("tasks", [part.get("task")])]
        settings = {key: value for key, value in part.items() if key not in ("task", "tasks", "episodes")}
        of_task = part.get("episodes", 0) // len(tasks)
        same = next((c for c in calls if (c["settings"], c["of_task"]) == (settings, of_task)), None)
        if same is None or set(same["tasks"]) & set(tasks):
            calls.append({"settings": settings, "of_task": of_task, "tasks": tasks})
        else:
            same["tasks"] += tasks
    return [{**c["settings"], "tasks": c["tasks"], "episodes": c["of_task"]} for c in calls], others


def collect_command(call: Mapping[str, Any], name: str) -> str:
    """The `dp_ros collect` command that makes the dataset `name`. call: settings, tasks, and episodes of each task."""
    cameras = " ".join(f"--camera {camera}" for camera in call.get("cameras", ()))
    noise = ",".join(f"{value:g}" for value in call.get("noise", ()))
    size = f"{call.get('width_px')}x{call.get('height_px')}"
    markers = " --markers" if call.get("markers") else ""
    others = "".join(
        f" --{option.replace('_', '-')} {call[option]}"
        for option in ("max_steps", "keep_steps", "policy", "policy_ticks")
        if call.get(option, _default(option)) != _default(option)
    )
    return (
        f"dp_ros collect --task {group_name(call['tasks'])} --out {name} --episodes {call['episodes']} "
        f"{cameras} --size {size} --noise {noise} --seed {call.get('first_seed')}{markers}{others}"
    )


def _default(option: str) -> Any:
    return CollectConfig.model_fields[option].default


def train_command(training: Mapping[str, Any], names: Sequence[str]) -> str:
    """The `dp_ros train` or `dp_ros distill` command that makes these weights from the datasets `names`."""
    command = training.get("command", {})
    settings = "".join(f" --set {shlex.quote(text)}" for text in command.get("set", ()))
    data = " ".join(f"--data {name}" for name in names)
    if teacher := training.get("teacher"):
        return f"dp_ros distill {teacher['name']} {data} --out RUN{settings}"
    config = Path(command.get("config", "cpu.yaml")).stem
    init = f" --init {training['init']['name']}" if "init" in training else ""
    return f"dp_ros train --config {config} {data} --out RUN{init}{settings}"
