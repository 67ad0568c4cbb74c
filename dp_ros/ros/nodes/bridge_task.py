"""Task of a bridge: the parameter `task`, which may change while the node runs, from the next episode on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter
from std_msgs.msg import String

from dp_ros.errors import UserError
from dp_ros.ros.node import qos
from dp_ros.ros.node.managed_node import ManagedNode
from dp_ros.ros.nodes.robot_sensors import RobotSensors
from dp_ros.sim.arm import SimulatedArm, check_task, make_arm, simulator_of


class BridgeTask:
    """The task of the present episode, which is published on `episode/task`, and that of the next one."""

    def __init__(self, node: ManagedNode, task: str) -> None:
        """TaskError."""
        self.present = self._next = check_task(task)
        self._node = node
        self._publisher: Any = None
        node.add_on_set_parameters_callback(self._on_set)

    def configure(self) -> str:
        """Make the publisher; the task of the next episode is the present one."""
        self._publisher = self._node.add_publisher(String, "episode/task", qos.LATCHED)
        self.present = self._next
        return self.present

    def publish(self) -> None:
        self._publisher.publish(String(data=self.present))

    def next_arm(self, arm: SimulatedArm, sensors: RobotSensors) -> SimulatedArm:
        """The arm of the next episode: `arm`, or where its task is another one, the arm that replaces it."""
        if self._next == self.present:
            return arm
        made = make_arm(replace(arm.spec, task=self._next))
        sensors.replace_arm(made)
        arm.close()
        self.present = self._next
        self.publish()
        self._node.get_logger().info(f"the task is {self.present} now")
        return made

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        wanted = next((parameter.value for parameter in parameters if parameter.name == "task"), None)
        if wanted is None:
            return SetParametersResult(successful=True)
        try:
            task = check_task(wanted)
            one, other = simulator_of(self.present), simulator_of(task)
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if one.name != other.name:
            why = f"{task} is of {other.name}, the robot of {one.name}: start another bridge"
            return SetParametersResult(successful=False, reason=why)
        self._next = task
        return SetParametersResult(successful=True)
