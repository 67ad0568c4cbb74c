"""A small step of the arm, commanded and recorded, to measure its command delay."""

from __future__ import annotations

import time

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.publisher import Publisher

from dp_ros.control.safety import Command
from dp_ros.doctor.delay import Delay, Step, StepError, command_delay, plan_step
from dp_ros.doctor.measurements import Expected
from dp_ros.poses import orientation_of, position_of
from dp_ros.ros.doctor.listener import Listener
from dp_ros.ros.messages.commands import command_to_messages
from dp_ros.ros.node import qos

_REST_S = 0.5  # held before the step, and after it
_FARTHEST_M = 0.05  # from command to measurement, beyond which the step ends
_SILENT_S = 0.5  # without a pose for longer, the step ends


def measure_delay(listener: Listener, expected: Expected, size_m: float) -> Delay | None:
    """Move the tool up (or down) by `size_m` and back, with its orientation kept, and compare command and motion.

    StepError where the step must not begin, or was stopped; nothing is commanded from then on.
    """
    first = listener.newest_pose()
    if first is None:
        raise StepError("command delay: no measured pose: start the robot's driver")
    rate_hz = expected.policy.rate_hz
    _, pose = first
    step = plan_step(pose, expected.runtime.gate, rate_hz, size_m)
    publisher = listener.node.create_publisher(PoseStamped, listener.pose_command, qos.RELIABLE)
    try:
        commanded, measured = _record(listener, publisher, pose, step, 1.0 / rate_hz)
    finally:
        listener.node.destroy_publisher(publisher)
    begin_ns = commanded[0][0]
    commanded_s, commanded_m = _series(commanded, begin_ns)
    measured_s, measured_m = _series(measured, begin_ns)
    return command_delay(commanded_s, commanded_m, measured_s, measured_m, rate_hz)


Rows = list[tuple[int, float]]  # stamp [ns], z [m]


def _record(
    listener: Listener, publisher: Publisher, pose: np.ndarray, step: Step, period_s: float
) -> tuple[Rows, Rows]:
    """(command, measurement) along z."""
    commanded: Rows = []
    measured: Rows = []
    begin_s = next_s = time.monotonic()
    heard_s = begin_s
    while (at_s := time.monotonic() - begin_s) < 2 * _REST_S + step.duration_s:
        offset_m = float(step.offset_m(np.array(at_s - _REST_S)))
        command = _command(pose, offset_m, listener.now_ns())
        publisher.publish(command_to_messages(command, listener.frame_id)[0])
        commanded.append((command.stamp_ns, command.position_m[2]))
        next_s += period_s
        listener.spin_until(next_s)
        newest = listener.newest_pose()
        if newest is not None and (not measured or newest[0] != measured[-1][0]):
            heard_s = time.monotonic()
            measured.append((newest[0], position_of(newest[1])[2]))
            if not np.linalg.norm(position_of(newest[1]) - command.position_m) <= _FARTHEST_M:
                raise StepError(
                    f"command delay: the arm is over {_FARTHEST_M:g} m from its command, stopped: look at the driver"
                )
        if time.monotonic() - heard_s > _SILENT_S:
            raise StepError(
                "command delay: the measured pose stopped, and so did the step: look at the driver"
            )
    return commanded, measured


def _command(pose: np.ndarray, offset_m: float, stamp_ns: int) -> Command:
    position = position_of(pose) + np.array([0.0, 0.0, offset_m])
    return Command(stamp_ns, position, None, orientation_of(pose))


def _series(rows: Rows, begin_ns: int) -> tuple[np.ndarray, np.ndarray]:
    """(times [s] from `begin_ns`, z [m]) in the order of the stamps, each stamp once."""
    unique = dict(sorted(rows))
    return np.array([(stamp - begin_ns) / 1e9 for stamp in unique]), np.array(list(unique.values()))
