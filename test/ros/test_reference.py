"""The reference lists the parameters that each node declares, with their defaults and descriptions."""

import contextlib
import importlib
import os
import pty
import sys

import pytest
import rclpy

from dp_ros.cli.reference import settings
from dp_ros.schema.nodes import NODES

OF_EVERY_NODE = ("qos_overrides.", "start_type_description_service", "use_sim_time")


@pytest.fixture
def make_node(ros_domain: int, monkeypatch: pytest.MonkeyPatch):
    """make_node(name) -> the node in this process, on a terminal, which the keyboard needs."""
    leader, follower = pty.openpty()
    rclpy.init(domain_id=ros_domain)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, leader)
        monkeypatch.setattr(sys, "stdin", stack.enter_context(os.fdopen(follower)))
        stack.callback(rclpy.shutdown)

        def make(name: str):
            module = importlib.import_module(f"dp_ros.ros.nodes.{name}")
            node = getattr(module, name.title().replace("_", ""))()
            stack.callback(node.destroy_node)
            stack.callback(node.close)
            return node

        yield make


@pytest.mark.parametrize("name", NODES)
def test_reference_lists_what_a_node_declares(name: str, make_node) -> None:
    node = make_node(name)
    declared = {
        name: parameter.value
        for name, parameter in node.get_parameters_by_prefix("").items()
        if not name.startswith(OF_EVERY_NODE)
    }
    listed = {setting.name: setting for config in NODES[name] for setting in settings(config())}
    assert declared.keys() == listed.keys()
    for name, value in declared.items():
        expected = listed[name].default
        assert value == (list(expected) if isinstance(expected, tuple) else expected)
        assert node.describe_parameter(name).description == listed[name].spec.get("description", "")
