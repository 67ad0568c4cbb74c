"""Judgement of a checkpoint and of the settings it is served with, before ROS is asked for anything."""

from __future__ import annotations

import json
from pathlib import Path

from dp_ros.doctor.findings import Finding, error, ok
from dp_ros.doctor.measurements import Expected
from dp_ros.errors import UserError
from dp_ros.policy.checkpoint_config import STATS, policy_config
from dp_ros.policy.checkpoint_folder import find_checkpoint
from dp_ros.schema import PolicyConfig, RuntimeConfig, TopicMap, parse
from dp_ros.schema.base import set_dotted
from dp_ros.schema.gripper import GripperState
from dp_ros.schema.params_file import node_parameters

_OTHER = (
    "autostart",
    "checkpoint",
    "use_sim_time",
)  # parameters of the node that are no setting of the runtime


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
    return Expected.of(policy, runtime, json.loads((folder / STATS).read_text()))


def with_gripper_of(runtime: RuntimeConfig, topics: TopicMap) -> RuntimeConfig:
    """The settings with the gripper's joint and range of the map, where the parameter file leaves their defaults."""
    names = set(GripperState.model_fields) - runtime.model_fields_set
    return runtime.model_copy(update={name: getattr(topics, name) for name in names})
