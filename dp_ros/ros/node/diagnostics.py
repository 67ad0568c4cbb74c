"""A node's status as a message of `/diagnostics`."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

Status = tuple[bytes, str, Mapping[str, str]]  # level, message, values


def to_diagnostics(node: Node, status: Status) -> DiagnosticArray:
    """The status as a DiagnosticArray with one entry, named after the node and stamped with its clock."""
    level, message, values = status
    array = DiagnosticArray()
    array.header.stamp = node.get_clock().now().to_msg()
    array.status = [
        DiagnosticStatus(
            level=level,
            name=node.get_fully_qualified_name(),
            message=message,
            hardware_id="dp_ros",
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
    ]
    return array
