"""Judgement of a checkpoint and of the settings it is served with, before ROS is asked for anything."""

from __future__ import annotations

from pathlib import Path

from dp_ros.doctor.findings import Finding, error, ok
from dp_ros.doctor.measurements import Expected
from dp_ros.errors import UserError
from dp_ros.policy.checkpoint_config import policy_config, read_stats
from dp_ros.policy.checkpoint_folder import find_checkpoint
from dp_ros.schema import PolicyConfig, RuntimeConfig, TopicMap, TopicsFile, parse
from dp_ros.schema.base import set_dotted
from dp_ros.schema.nodes import NODES
from dp_ros.schema.params_file import node_parameters

# Parameters of the node that are no setting of the runtime.
_OTHER = {"use_sim_time"} | {
    name for config in NODES["policy_node"] if config is not RuntimeConfig for name in config.model_fields
}


def served_checkpoint(name: str) -> tuple[Path | None, list[Finding]]:
    """The folder of a checkpoint that loads, weights included; None where it does not."""
    from dp_ros.policy.checkpoint import load_checkpoint

    try:
        folder = find_checkpoint(name)
        policy = load_checkpoint(folder).config
    except UserError as wrong:
        what, _, remedy = str(wrong).rpartition(": ")
        return None, [error("checkpoint", what, remedy)]
    cameras = ", ".join(f"{camera} {policy.encoder.target(camera)}" for camera in policy.encoder.cameras)
    return folder, [ok("checkpoint", f"{folder}: {policy.rate_hz:g} Hz, {cameras}")]


def served_settings(params_file: Path, node: str) -> tuple[RuntimeConfig | None, bool, list[Finding]]:
    """(settings of the policy node, use_sim_time, findings); no settings where the file is wrong.

    node: its full name, "/arm/policy_node".
    """
    try:
        given = node_parameters(params_file, node)
        values: dict[str, object] = {}
        for name, value in given.items():
            if name not in _OTHER and not name.startswith("qos_overrides."):
                set_dotted(values, name, value)
        runtime = parse(RuntimeConfig, values, where=str(params_file))
    except UserError as wrong:
        return None, False, [error("params", str(wrong), "")]
    box = f"workspace {list(runtime.gate.workspace_low_m)} to {list(runtime.gate.workspace_high_m)} m"
    return runtime, given.get("use_sim_time") is True, [ok("params", f"{params_file}: {box}")]


def expected_of(folder: Path, runtime: RuntimeConfig) -> Expected:
    """Interface of a checkpoint, with which the robot's topics are compared."""
    policy: PolicyConfig = policy_config(folder)
    return Expected.of(policy, runtime, read_stats(folder))


def served_topics(params_file: Path, node: str) -> TopicMap:
    """The map that the parameter file names for the node; our names where it names none. ConfigError."""
    try:
        given = node_parameters(params_file, node)
    except UserError:  # `served_settings` says so
        return TopicMap()
    return parse(TopicsFile, {k: v for k, v in given.items() if k == "topics_file"}, str(params_file)).read()


def with_gripper_of(
    runtime: RuntimeConfig, topics: TopicMap, params_file: Path
) -> tuple[RuntimeConfig, list[Finding]]:
    """The settings with the gripper of the map, where the parameter file leaves its defaults, and findings."""
    try:
        return topics.gripper_of(runtime, str(params_file)), []
    except UserError as wrong:
        return runtime, [error("params", str(wrong), "")]
