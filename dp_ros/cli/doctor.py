"""`dp_ros doctor`: what is installed, and whether a robot's topics fit a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dp_ros.cli.convert import read_map
from dp_ros.cli.errors import FAILED, USAGE, CliError
from dp_ros.cli.options import JsonFile, TopicMapFile

if TYPE_CHECKING:
    from dp_ros.doctor.findings import Finding
    from dp_ros.doctor.measurements import Expected
    from dp_ros.schema import TopicMap

_LONGEST_STEP_M = 0.05


def doctor(
    checkpoint: Annotated[
        str, typer.Option(show_default="none", help="Compare the robot's live topics with this checkpoint.")
    ] = "",
    params_file: Annotated[
        Path | None,
        typer.Option(
            "--params",
            show_default="config/robot.yaml",
            help="Parameter file that the policy is served with.",
        ),
    ] = None,
    map_file: TopicMapFile = None,
    namespace: Annotated[
        str, typer.Option(show_default="that of the map", help="Namespace of the policy node.")
    ] = "",
    seconds: Annotated[
        float, typer.Option(min=0.5, max=600, help="Time to listen to the topics, in seconds.")
    ] = 5.0,
    sim_time: Annotated[bool, typer.Option("--sim-time", help="Take time from /clock.")] = False,
    measure_delay: Annotated[
        bool,
        typer.Option(
            "--measure-delay", help="Also MOVE THE ARM by a small step and measure its delay; asks twice."
        ),
    ] = False,
    step_m: Annotated[
        float, typer.Option(min=0.005, max=_LONGEST_STEP_M, help="Size of that step in metres.")
    ] = 0.02,
    json_path: JsonFile = None,
) -> None:
    """Find what is missing or does not fit, one line each. Exit code 1 where something must be mended.

    Without --checkpoint: the installation. With it: the checkpoint, its parameters and the robot's topics, which must
    be published; nothing is commanded.

    Example: dp_ros doctor --checkpoint runs/pick --params robot.yaml
    """
    if not checkpoint:
        if measure_delay or params_file or map_file:
            raise CliError("--params, --topics-file and --measure-delay go with --checkpoint", USAGE)
        _report(_installation(), json_path)
        return
    from dp_ros.doctor.checkpoint import (
        expected_of,
        served_checkpoint,
        served_settings,
        served_topics,
        with_gripper_of,
    )
    from dp_ros.resources import share_file

    params = params_file or share_file("config/robot.yaml")
    topics = read_map(map_file) if map_file else served_topics(params, _policy_node(namespace))
    if namespace:
        topics = topics.model_copy(update={"namespace": namespace})
    folder, findings = served_checkpoint(checkpoint)
    runtime, in_sim_time, found = served_settings(params, _policy_node(topics.namespace))
    findings += found
    if folder is not None and runtime is not None:
        runtime, found = with_gripper_of(runtime, topics, params)
        findings += found
        findings += _robot(
            expected_of(folder, runtime),
            topics,
            seconds,
            sim_time or in_sim_time,
            step_m if measure_delay else 0.0,
        )
    _report(findings, json_path)


def _policy_node(namespace: str) -> str:
    return "/".join(["", *filter(None, [namespace.strip("/")]), "policy_node"])


def _installation() -> list[Finding]:
    from dp_ros.doctor.findings import fails
    from dp_ros.doctor.installed import installed

    found = installed()
    if fails(found):  # the check of ROS needs some of the packages
        return found
    from dp_ros.ros.doctor.installed import installed as ros_installed

    return found + ros_installed()


def _robot(
    expected: Expected, topics: TopicMap, seconds: float, sim_time: bool, step_m: float
) -> list[Finding]:
    """Findings of the live topics; with `step_m`, also of the command delay."""
    from dp_ros.doctor.findings import error, fails
    from dp_ros.errors import UserError
    from dp_ros.ros.processes.environment import require_ros

    try:
        require_ros()
    except UserError as missing:
        what, _, remedy = str(missing).partition(": ")
        return [error("robot", what, remedy)]
    from dp_ros.doctor.robot import judge
    from dp_ros.ros.doctor.listener import Listener

    typer.echo(f"listening for {seconds:g} s ...", err=True)
    with Listener(expected, topics, sim_time) as listener:
        findings = judge(listener.listen(seconds), expected)
        if step_m:
            if fails(findings):
                return [
                    *findings,
                    error("command delay", "not measured, because of the errors above", "mend them first"),
                ]
            _ask_twice(step_m)
            from dp_ros.doctor.delay import judge_delay
            from dp_ros.ros.doctor.step import measure_delay

            measured = measure_delay(listener, expected, step_m)
            findings += judge_delay(measured, expected.runtime.command_delay_s, expected.policy.rate_hz)
    return findings


def _ask_twice(step_m: float) -> None:
    questions = (
        f"This MOVES THE ARM {step_m * 100:g} cm up or down and back. Is the space around it free?",
        "Is your hand on the emergency stop, and may it move now?",
    )
    for question in questions:
        if not typer.confirm(question):
            raise CliError("the arm was not moved")


def _report(findings: list[Finding], json_path: Path | None) -> None:
    from dp_ros.doctor.findings import Level, fails
    from dp_ros.files import write_json

    order = (Level.OK, Level.NOTE, Level.WARNING, Level.ERROR)  # what must be mended stands above the prompt
    for finding in sorted(findings, key=lambda each: order.index(each.level)):
        print(f"{finding.level.value.upper():8}{' '.join(finding.line.split())}")
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    print(f"{_count(counts[Level.ERROR], 'error')}, {_count(counts[Level.WARNING], 'warning')}")
    if json_path is not None:
        write_json(
            json_path,
            {"passed": not fails(findings), "findings": [finding.as_dict() for finding in findings]},
        )
    if fails(findings):
        raise typer.Exit(FAILED)


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
