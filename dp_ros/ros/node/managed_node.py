"""Base of our lifecycle nodes: a transition that fails leaves nothing made, and an error stops the robot."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.exceptions import ParameterException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

from dp_ros.control.control_clock import ControlClock
from dp_ros.errors import message_of
from dp_ros.ros.node.diagnostics import ERROR, OK, WARN, Status, to_diagnostics
from dp_ros.ros.node.parameters import read_config
from dp_ros.ros.node.scheduling import set_priority
from dp_ros.schema.nodes import LifecycleConfig

_ACKED_S = 0.25
_DIAGNOSTICS_S = 1.0
# rclpy's own handlers of QoS events take a millisecond of each turn of the executor. Diagnostics say the same.
_NO_EVENTS = (
    PublisherEventCallbacks(use_default_callbacks=False),
    SubscriptionEventCallbacks(use_default_callbacks=False),
)
_ACTIVE = (State.TRANSITION_STATE_ACTIVATING, State.PRIMARY_STATE_ACTIVE)

Transition = Callable[..., TransitionCallbackReturn]


def reported(transition: Transition) -> Transition:
    """Decorate a transition of a ManagedNode: its exception is undone and reported. rclpy would swallow it."""

    @functools.wraps(transition)
    def wrapped(node: ManagedNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:
            return node._failed(transition.__name__.removeprefix("on_"), error)

    return wrapped


def one_line(error: Exception) -> str | None:
    """The line that tells a user of `error`; None for a bug."""
    return str(error) if isinstance(error, ParameterException) else message_of(error)


def why_apart(kind: type, other: TopicEndpointInfo, publishers: QoSProfile, subscribers: QoSProfile) -> str:
    """Why our endpoint, with messages `kind`, and another one exchange nothing, and the remedy; empty where they do."""
    types = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}", other.topic_type
    if types[0] != types[1]:
        return f"(it has {types[1]}, this node {types[0]}): use one message type"
    compatibility, why = qos_check_compatible(publishers, subscribers)
    if compatibility != QoSCompatibility.ERROR:
        return ""
    return f"({why.removeprefix('ERROR: ').rstrip('; ').lower()}): change its QoS"


class ManagedNode(LifecycleNode):
    """Lifecycle node that destroys all it made.

    A subclass implements `on_configure` and `on_activate`, decorated with `reported`, and makes publishers, timers and
    the like with `add_...`. Deactivation destroys what was made since activation began, clean-up the rest. `stop` and
    `release` are for everything else: the last command, threads, files. Each may be called twice, and after a
    transition that failed half-way.

    A UserError in `on_configure` or `on_activate` fails the transition: the node returns to the state before it, with
    nothing left of the attempt. A bug, or any error in another transition, stops and releases the node (`on_error`); a
    bug ends the process, too.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.fatal: str | None = None  # reason why the process must end; see `run_node`
        self.problem = ""  # why the last transition failed
        self.single: tuple[str, ...] = ()  # resolved topics of one sensor each
        self.names: Mapping[
            str, str
        ] = {}  # our topic -> the robot's, where it has another name (topics_file)
        self.starts = read_config(self, LifecycleConfig)
        self.is_starting = False  # `run_node` configures and activates it, and reports what fails
        self.steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._configured, self._activated = ExitStack(), ExitStack()  # each destroys what was made meanwhile

    # ---- making ----------------------------------------------------------------------------------------

    def resolved(self, topic: str) -> str:
        """The full name of one of our topics, as the graph has it."""
        return str(self.resolve_topic_name(self.names.get(topic, topic)))

    def add_publisher(self, kind: type, topic: str, profile: Any) -> Any:
        name = self.names.get(topic, topic)
        made = self.create_publisher(kind, name, profile, event_callbacks=_NO_EVENTS[0])
        return self.add(made, self.destroy_publisher)

    def add_subscription(self, kind: type, topic: str, callback: Callable[..., None], profile: Any) -> Any:
        name = self.names.get(topic, topic)
        made = self.create_subscription(kind, name, callback, profile, event_callbacks=_NO_EVENTS[1])
        return self.add(made, self.destroy_subscription)

    def add_service(self, kind: type, name: str, callback: Callable[[Any, Any], Any]) -> Any:
        return self.add(self.create_service(kind, name, callback), self.destroy_service)

    def add_guard_condition(self, callback: Callable[[], None]) -> Any:
        return self.add(self.create_guard_condition(callback), self.destroy_guard_condition)

    def add_timer(self, period_s: float, callback: Callable[[], None], clock: Clock | None = None) -> Any:
        """A timer on the steady clock, which a wall clock that is set back does not stop; or on `clock`."""
        timer = self.create_timer(period_s, callback, clock=clock or self.steady_clock)
        return self.add(timer, self.destroy_timer)

    def add_diagnostics(self, status: Callable[[], Status]) -> None:
        """Publish `status()` once a second.

        Publishers that the node cannot hear are an error. Subscribers that cannot hear the node are a warning, and so
        are several publishers of a topic in `single`.
        """
        publisher = self.add_publisher(DiagnosticArray, "/diagnostics", 10)

        def publish() -> None:
            level, message, values = status()
            if unheard := self._unheard():
                level, message = ERROR, "; ".join([*unheard, *([message] if level == ERROR else [])])
            elif level == OK and (warnings := [*self._deaf(), *self._mixed()]):
                level, message = WARN, "; ".join(warnings)
            publisher.publish(to_diagnostics(self, (level, message, values)))

        self.add_timer(_DIAGNOSTICS_S, publish)

    def add_priority(self, priority: int) -> None:
        """Call this thread's callbacks with a real-time priority of 1 to 99, where the system allows it; 0: never."""
        if priority and (why := set_priority(priority)):
            self.get_logger().info(f"realtime_priority {priority} is not in effect: {why}")
        elif priority:
            self.add(0, set_priority)

    def hear(self, *topics: str) -> None:
        """Call the callbacks for the messages of these topics that wait, within another callback.

        For a callback that takes long, and needs messages meanwhile. Topics are named as in `add_subscription`.
        """
        names = {self.resolved(topic) for topic in topics}
        for subscription in self.subscriptions:
            if subscription.topic_name not in names:
                continue
            callback: Any = subscription.callback
            with subscription.handle:
                while taken := subscription.handle.take_message(subscription.msg_type, subscription.raw):
                    callback(taken[0])

    def without_time(self) -> str:
        """Why no time passes for this node; empty where it does. Its control timer then never fires."""
        if self.get_parameter("use_sim_time").value and not self.get_clock().now().nanoseconds:
            return "waiting for time on /clock: start the simulator, or set use_sim_time to false"
        return ""

    def _mixed(self) -> list[str]:
        """One line for each topic of `single` with several publishers."""
        lines = []
        for topic in self.single:
            names = [info.node_name for info in self.get_publishers_info_by_topic(topic)]
            if len(names) > 1:
                who = ", ".join(sorted(set(names)))
                lines.append(f"{topic}: {len(names)} publishers mix their messages ({who}): stop all but one")
        return lines

    def _unheard(self) -> list[str]:
        """One line for each publisher whose messages do not reach any subscription of this node."""
        ours: dict[str, list[Any]] = {}
        # A subscription's own name has the remapping, which the graph's functions do not know.
        for subscription in self.subscriptions:
            ours.setdefault(subscription.topic_name, []).append(subscription)
        lines = []
        for topic, heard in ours.items():
            for info in self.get_publishers_info_by_topic(topic):
                reasons = [why_apart(s.msg_type, info, info.qos_profile, s.qos_profile) for s in heard]
                if all(reasons):
                    lines.append(f"{topic}: nothing of {info.node_name} arrives {reasons[0]}")
        return lines

    def _deaf(self) -> list[str]:
        """One line for each subscription that the messages of this node do not reach."""
        lines = []
        me = self.get_name(), self.get_namespace()
        for publisher in self.publishers:
            topic = publisher.topic_name
            if self.count_subscribers(topic) <= publisher.get_subscription_count():
                continue
            # A publisher's own `qos_profile` is the one that was asked for; the graph has the real one.
            made = self.get_publishers_info_by_topic(topic)
            own = next((i.qos_profile for i in made if (i.node_name, i.node_namespace) == me), None)
            for info in self.get_subscriptions_info_by_topic(topic) if own else ():
                if why := why_apart(publisher.msg_type, info, own, info.qos_profile):
                    lines.append(f"{topic}: nothing arrives at {info.node_name} {why}")
        return lines

    def add(self, made: Any, destroy: Callable[[Any], object]) -> Any:
        """Keep `made` until the counterpart of the present transition calls `destroy(made)`."""
        is_active = self._state_machine.current_state[0] in _ACTIVE  # rclpy has no public name for it
        (self._activated if is_active else self._configured).callback(destroy, made)
        return made

    def control_rate_hz(self) -> float | None:
        """Rate of the node's ticks; None where it has none, or does not know it yet."""
        return None

    def control_clock(self) -> Clock:
        """The clock of timers that command a robot: steady, or the ROS clock in simulated time (`use_sim_time`)."""
        return self.get_clock() if self.get_parameter("use_sim_time").value else self.steady_clock

    def control_time(self, is_lockstep: bool = False) -> ControlClock:
        """Time of a control loop: steady, or the ROS clock's in simulated time and in lockstep."""
        return ControlClock(
            lambda: int(self.get_clock().now().nanoseconds),
            is_steady=not (is_lockstep or self.get_parameter("use_sim_time").value),
            on_set=lambda seconds: self.get_logger().warning(f"the clock was set by {seconds:+.3f} s"),
        )

    def wait_until_acked(self, *publishers: Any) -> None:
        """Wait for messages in flight: a message whose publisher is destroyed may never arrive."""
        for publisher in publishers:
            publisher.wait_for_all_acked(Duration(seconds=_ACKED_S))

    # ---- undoing ---------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Undo the subclass's part of activation."""

    def release(self) -> None:
        """Undo the subclass's part of configuration."""

    def close(self) -> None:
        """Stop and release; the second even when the first raises."""
        try:
            self._stop()
        finally:
            self._release()

    def _stop(self) -> None:
        with self._activated:
            self.stop()

    def _release(self) -> None:
        with self._configured:
            self.release()

    # ---- transitions -----------------------------------------------------------------------------------

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        return super().on_deactivate(state)

    @reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.close()
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a transition that raised: stop and release. The node is unconfigured then."""
        self.close()
        self.get_logger().error(f"stopped and released: {self.problem}")
        return TransitionCallbackReturn.SUCCESS

    def _failed(self, transition: str, error: Exception) -> TransitionCallbackReturn:
        """Report what `transition` raised. FAILURE where it could be undone, else ERROR: `on_error` is called next."""
        line = one_line(error)
        if line is None:
            traceback.print_exception(error)
            line = self.fatal = f"{type(error).__name__}: {error}"
        self.problem = line
        if not self.is_starting:
            self.get_logger().error(f"{transition} failed: {line}")
        undo = {"configure": self._release, "activate": self._stop}.get(transition)
        if undo is None or self.fatal is not None:
            return TransitionCallbackReturn.ERROR
        try:
            undo()
        except Exception as second:
            traceback.print_exception(second)
            self.fatal = f"{type(second).__name__}: {second}"
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.FAILURE
