"""Publishers of a policy's commands and of its heartbeat; in shadow mode, of topics beside them.

In shadow mode no publisher of a command topic exists, so no command can leave, and no watchdog is told that a policy
drives.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String

from dp_ros.control.heartbeat import Guard
from dp_ros.control.safety import Command
from dp_ros.ros.messages.commands import command_to_messages
from dp_ros.ros.node import qos
from dp_ros.ros.node.managed_node import ManagedNode
from dp_ros.ros.node.rivals import other_publishers
from dp_ros.schema import ConfigError, RuntimeConfig
from dp_ros.schema.gripper import GripperCommands

_HUNG_S = 0.3  # between two ticks; at least two periods
_WAIT_S = 0.3  # the middleware needs about 0.1 s to discover a publisher
_WATCHED_WAIT_S = (
    5.0  # where a watchdog is there: it has taken over, and its message may have to be sent again
)


class Hang:
    """Detector of a process that has just hung. Another node may command the arm since then, and the middleware may
    not have discovered its publisher yet."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.begin()

    def begin(self, period_s: float = 0.0) -> None:
        """No tick was due before the next one; period_s: between two ticks."""
        self._most_s = max(_HUNG_S, 2.0 * period_s)
        self._asked_s, self._until_s = float("inf"), float("-inf")

    def reason(self, is_watched: bool = False) -> str:
        """At each tick: why the policy must wait; empty where it need not.

        is_watched: a watchdog is there. The wait is longer then, and `end` ends it.
        """
        now_s = self._clock()
        if now_s - self._asked_s > self._most_s:
            self._until_s = now_s + (_WATCHED_WAIT_S if is_watched else _WAIT_S)
        self._asked_s = now_s
        return f"this process hung for more than {self._most_s:g} s" if now_s < self._until_s else ""

    def end(self) -> None:
        """The watchdog has said what it does."""
        self._until_s = float("-inf")

    def is_now(self) -> bool:
        """Whether the process hung since this tick began: what the tick decided is too old to be sent."""
        return self._clock() - self._asked_s > self._most_s


class PolicyCommands:
    """Commands of one policy node."""

    def __init__(self, node: ManagedNode, runtime: RuntimeConfig, gripper: GripperCommands) -> None:
        """ConfigError in shadow mode where a remapping leads to a command topic."""
        self._node, self._runtime, self._gripper_of_robot = node, runtime, gripper
        self._heart = None
        if runtime.shadow:
            reserved = {node.resolved(topic) for topic in ("command/ee_pose", "command/gripper")}
            for name in ("policy/shadow/ee_pose", "policy/shadow/gripper"):
                if (topic := node.resolved(name)) in reserved:
                    raise ConfigError(f"shadow: {name} is remapped to {topic}, a topic of commands")
            self._pose = node.add_publisher(PoseStamped, "policy/shadow/ee_pose", qos.RELIABLE)
            self._gripper = node.add_publisher(JointState, "policy/shadow/gripper", qos.RELIABLE)
        else:
            self._heart = node.add_publisher(Bool, "policy/heartbeat", qos.RELIABLE)
            self._pose = node.add_publisher(PoseStamped, "command/ee_pose", qos.RELIABLE)
            self._gripper = node.add_publisher(JointState, "command/gripper", qos.RELIABLE)
        has_own_time = runtime.mode == "realtime" and not node.get_parameter("use_sim_time").value
        self._hang = Hang() if has_own_time else None  # a simulator may stop its time
        self._guard = ""  # what the watchdog said last
        if self._heart is not None:
            heard = node.add_subscription(String, "watchdog/status", self._on_guard, qos.LATCHED)
            self._status_topic = heard.topic_name

    @property
    def summary(self) -> str:
        """For the log: empty where the arm is commanded."""
        return f", shadow: nothing is commanded, see {self._pose.topic_name}" if self._runtime.shadow else ""

    def begin(self, period_s: float) -> None:
        """The arm is commanded from now on, at a tick each `period_s`."""
        if self._hang:
            self._hang.begin(period_s)

    def is_too_old(self) -> bool:
        """Whether the process hung since the tick began, so that its command must not be sent."""
        return self._hang is not None and self._hang.is_now()

    def publish(self, command: Command, frame_id: str) -> None:
        pose, gripper = command_to_messages(command, frame_id, self._gripper_of_robot)
        self._pose.publish(pose)
        # In lockstep the simulated arm waits for both messages.
        if command.gripper is not None or self._runtime.mode == "lockstep":
            self._gripper.publish(gripper)

    def beat(self) -> None:
        """Tell a watchdog that the thread which makes the commands is alive."""
        if self._heart is not None and self._runtime.heartbeat_hz:
            self._heart.publish(Bool(data=True))

    def end(self) -> None:
        """The last command was published: tell the watchdog, and wait for what is in flight."""
        if self._heart is None:
            return
        if self._runtime.heartbeat_hz:
            self._heart.publish(Bool(data=False))
        self._node.wait_until_acked(self._pose, self._gripper, self._heart)

    def _on_guard(self, msg: String) -> None:
        self._guard = msg.data
        if self._hang:
            self._hang.end()

    def rival(self) -> str:
        """Message about another node that may command the arm; in shadow mode nobody is in the way.

        The watchdog is believed also where it commands nothing, or another topic. On a real clock, also for a moment
        after this process hung.
        """
        if self._runtime.shadow:
            return ""
        is_watched = bool(self._guard) and self._node.count_publishers(self._status_topic) > 0
        hung = self._hang.reason(is_watched) if self._hang else ""
        if is_watched and self._guard.startswith(Guard.HOLDING):
            return f"the watchdog stopped the arm ({self._guard}): call its service watchdog/release"
        return hung or other_publishers(self._node, (self._pose, self._gripper), "the policy drives")
