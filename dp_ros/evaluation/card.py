"""Model card of a checkpoint: its interface, data, training and measured results.

All of it is read from the checkpoint's files; no figure is typed by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dp_ros.evaluation.card_commands import Names, collect_calls, is_told, stages
from dp_ros.evaluation.card_tables import table_of_one_task, tables_of_tasks
from dp_ros.evaluation.model_results import read_results
from dp_ros.evaluation.report.plots import learning_curve
from dp_ros.files import write_bytes, write_text
from dp_ros.policy.checkpoint import CARD
from dp_ros.policy.checkpoint_config import instructions_of, policy_config, read_config

CURVE = "curve.png"


def card_text(folder: str | Path, name: str) -> str:
    """Card of the checkpoint in `folder`, as Markdown, from its config.json and results.json."""
    config, policy = read_config(folder), policy_config(folder)
    training = config["training"]
    settings = training.get("config", {})
    encoder, horizons, diffusion = policy.encoder, policy.horizons, policy.diffusion
    size_mb = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
    pictures = encoder.describe(str(encoder.target(camera)) for camera in encoder.cameras)
    proprioception = "proprioception" if encoder.proprioception else "no proprioception"
    task = f" for Metaworld's {policy.task}" if policy.task else ""
    results = read_results(folder)
    names = Names.of(training)
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
        *_data(training, names),
        "## Training",
        "",
        *_init(training, names),
        f"{training.get('step')} steps of {settings.get('batch_size')} windows, {_targets(training)}; "
        f"learning rate {settings.get('lr')}, "
        f"{settings.get('precision')}, seed {settings.get('seed')}; "
        f"dp_ros {training.get('dp_ros')}, commit {training.get('commit', 'unknown')}.{_effort(training)}",
        "",
        f"    {names.train_command(training)}",
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


def _init(training: Mapping[str, Any], names: Names) -> list[str]:
    """Lines about the checkpoints that the training began with (`--init`), the first one first."""
    lines: list[str] = []
    for init in stages(training)[:-1]:
        begun = f"Begun with the weights of {init['name']} (sha256 {init['weights_sha256']})"
        if not is_told(init):
            lines += [f"{begun}.", ""]
            continue
        hardware = (
            f" ({duration(init)} on {init['hardware']})" if "hardware" in init and "seconds" in init else ""
        )
        lines += [
            f"{begun} after {init['step']} steps{hardware} of:",
            "",
            *(f"    {command}" for command in names.collect_commands(init)),
            f"    {names.train_command(init)}",
            "",
        ]
    return lines


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


def _data(training: Mapping[str, Any], names: Names) -> list[str]:
    data = training.get("data", {})
    size = f"{data.get('episodes')} episodes, {data.get('ticks')} ticks"
    calls, others = collect_calls(data)
    if not calls:
        return [f"{size}.", ""]
    seeds = " and ".join(str(seed) for seed in sorted({call["first_seed"] for call in calls}))
    noise = " or, in other datasets, ".join(dict.fromkeys(str(call["noise"]) for call in calls))
    return [
        f"{size}: successful episodes of the scripted expert, seeds from {seeds}. Noise is injected "
        f"into the executed action; its standard deviation cycles through {noise} from episode to episode. "
        "Labels are clean.",
        *_corrections(calls, names),
        *([f"{sum(others)} of the episodes are of a person or another robot."] if others else []),
        "",
        *(f"    {command}" for command in names.collect_commands(training)),
        "",
    ]


def _corrections(calls: Sequence[Mapping[str, Any]], names: Names) -> list[str]:
    """The sentence about the episodes that a policy began; none where the expert moved the arm alone."""
    begun = [call for call in calls if call.get("policy")]
    episodes = sum(call["episodes"] * len(call["tasks"]) for call in begun)
    policies = dict.fromkeys(f"{names.policy(call)} (sha256 {call['policy_sha256']})" for call in begun)
    if not begun:
        return []
    return [f"{episodes} of the episodes begin where the expert took over from {' or '.join(policies)}."]
