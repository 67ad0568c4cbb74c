"""One DiagnosticStatus of a node, published once a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Diagnostics:
    """Publishes what `status()` returns: (level, message, values)."""

    def __init__(self, node: Node, status: Callable[[], tuple[bytes, str, Mapping[str, str]]]) -> None:
        self._node, self._status = node, status
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = node.create_timer(1.0, self.publish)

    def publish(self) -> None:
        level, message, values = self._status()
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        array.status = [
            DiagnosticStatus(
                level=level,
                name=self._node.get_fully_qualified_name(),
                message=message,
                hardware_id="dp_ros",
                values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
            )
        ]
        self._publisher.publish(array)

    def destroy(self) -> None:
        self._node.destroy_timer(self._timer)
        self._node.destroy_publisher(self._publisher)
