"""SROS 2 policy of our graph: which enclave may publish, subscribe to, offer and call what. Needs no ROS.

Only the policy, the watchdog and teleoperation may publish commands. The format is that of `ros2 security` (policy
version 0.2.0).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree

from dp_ros.cli.interfaces import Interface, interfaces
from dp_ros.ros.processes.environment import enclave_path
from dp_ros.schema.nodes import NODES as CONFIGS
from dp_ros.schema.nodes import LifecycleConfig
from dp_ros.schema.topics import COMPRESSED

NODES = ("policy_node", "policy_watchdog", "teleop_node", "teleop_keyboard", "recorder_node", "watch_node")
ROBOT, PEOPLE = "robot", "people"
_ALL = "/*"
_READERS = {"recorder_node", "watch_node"}  # of topics that their settings name
_OF_ROBOT = ("ee_pose", "gripper/state", "joint_states", "camera/<name>/camera_info", "camera/<name>/pose")
_TO_ROBOT = ("command/ee_pose", "command/gripper", "command/twist")
_OF_PEOPLE = ("emergency_stop", "policy/instruction", "record/command", "record/note", "joy")
_PARAMETERS = (
    "describe_parameters",
    "get_parameter_types",
    "get_parameters",
    "list_parameters",
    "set_parameters",
    "set_parameters_atomically",
    "get_type_description",
)
_LIFECYCLE = (
    "change_state",
    "get_state",
    "get_available_states",
    "get_available_transitions",
    "get_transition_graph",
)


@dataclass
class Enclave:
    """Permissions of one process; names are absolute, relative to the namespace, or begin with ~ for its node."""

    name: str
    publish: set[str] = field(default_factory=set)
    subscribe: set[str] = field(default_factory=set)
    reply: set[str] = field(default_factory=set)
    request: set[str] = field(default_factory=set)


def enclaves(cameras: Iterable[str], names: Mapping[str, str]) -> list[Enclave]:
    """cameras: of the policy. names: our topics -> the robot's, where it has others (`TopicMap.names`)."""
    found, seen = interfaces(NODES), tuple(cameras)
    pictures = {f"camera/{camera}/image_raw{end}" for camera in seen for end in ("", COMPRESSED)}
    every = [_of_node(node, found, pictures) for node in NODES]
    robot = Enclave(ROBOT, {*_OF_ROBOT, *pictures, "/tf", "/tf_static"}, set(_TO_ROBOT), {_ALL})
    people = Enclave(PEOPLE, set(_OF_PEOPLE), {_ALL}, {_ALL}, {_ALL})
    for enclave in (*every, robot, people):
        enclave.publish = _named(enclave.publish, seen, names) | {"/rosout", "/parameter_events"}
        enclave.subscribe = _named(enclave.subscribe, seen, names) | {"/clock", "/parameter_events"}
    return [*every, robot, people]


def policy_xml(every: Iterable[Enclave], namespace: str) -> str:
    """The policy file, for the nodes in a ROS namespace (/ for none)."""
    root = ElementTree.Element("policy", version="0.2.0")
    paths = ElementTree.SubElement(root, "enclaves")
    for enclave in every:
        profiles = ElementTree.SubElement(
            ElementTree.SubElement(paths, "enclave", path=enclave_path(namespace, enclave.name)), "profiles"
        )
        profile = ElementTree.SubElement(
            profiles, "profile", ns=f"/{namespace.strip('/')}", node=enclave.name
        )
        for kind, roles in (("topic", ("publish", "subscribe")), ("service", ("reply", "request"))):
            for role in roles:
                if names := sorted(getattr(enclave, role)):
                    listed = ElementTree.SubElement(profile, f"{kind}s", {role: "ALLOW"})
                    for name in names:
                        ElementTree.SubElement(listed, kind).text = name
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _of_node(node: str, found: Iterable[Interface], pictures: set[str]) -> Enclave:
    enclave = Enclave(node)
    for interface in found:
        for role, nodes in (
            ("publish", interface.publishes),
            ("subscribe", interface.subscribes),
            ("reply", interface.offers),
        ):
            if node in nodes:
                getattr(enclave, role).add(interface.name.replace("<word>", "*"))
    enclave.reply |= {f"~/{name}" for name in _PARAMETERS}
    if LifecycleConfig in CONFIGS[node]:
        enclave.reply |= {f"~/{name}" for name in _LIFECYCLE}
        enclave.publish.add("~/transition_event")
    if node == "policy_node":
        enclave.subscribe |= pictures
    if node in _READERS:
        enclave.subscribe = {_ALL}
    if node == "policy_watchdog":
        enclave.publish |= set(_TO_ROBOT)
    return enclave


def _named(topics: Iterable[str], cameras: Iterable[str], names: Mapping[str, str]) -> set[str]:
    """The robot's names, with each camera in the place of <name>."""
    each: set[str] = set()
    for topic in topics:
        each |= {topic.replace("<name>", camera) for camera in cameras} if "<name>" in topic else {topic}
    return {names.get(topic, topic) for topic in each}
