"""Lifecycle of our nodes: a failed transition leaves nothing made, an error secures, a bug keeps its traceback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import rclpy
from rclpy.clock import ClockType
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String
from std_srvs.srv import Trigger

from dp_ros.ros.node.diagnostics import OK
from dp_ros.ros.node.managed_node import ManagedNode, reported
from dp_ros.schema import ConfigError

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE, TransitionCallbackReturn.ERROR,
)  # fmt: skip


class Arm(ManagedNode):
    """A node that makes one of everything, and may raise in each of its hooks."""

    def __init__(self) -> None:
        super().__init__("arm")
        self.raises: dict[str, Exception] = {}  # hook -> raised once
        self.stopped = self.released = 0
        self._over = threading.Event()
        self.worker: threading.Thread | None = None

    def _raise(self, hook: str) -> None:
        if hook in self.raises:
            raise self.raises.pop(hook)

    @reported
    def on_configure(self, state):
        self.add_publisher(String, "said", 10)
        self.add_subscription(String, "heard", lambda msg: None, 10)
        self.add_service(Trigger, "ask", lambda request, response: response)
        self.add_guard_condition(lambda: None)
        self.add_diagnostics(lambda: (OK, "", {}))
        self._over.clear()
        self.worker = threading.Thread(target=self._over.wait, name="arm-worker")
        self.worker.start()
        self._raise("configure")
        return SUCCESS

    @reported
    def on_activate(self, state):
        self.control_timer = self.add_timer(0.1, lambda: None, clock=self.control_clock())
        self._raise("activate")
        return super().on_activate(state)

    def stop(self) -> None:
        self.stopped += 1
        self._raise("stop")

    def release(self) -> None:
        self.released += 1
        self._raise("release")
        if self.worker is not None:
            self._over.set()
            self.worker.join()
            self.worker = None

    @property
    def state(self) -> str:
        return self._state_machine.current_state[1]

    def made(self) -> dict[str, int]:
        """Number of the entities of each kind that rclpy keeps for the node."""
        kinds = ("publishers", "subscriptions", "services", "timers", "guards")
        return {kind: len(list(getattr(self, kind))) for kind in kinds} | {"workers": self.worker is not None}


@pytest.fixture
def make_arm(ros_domain: int) -> Iterator[Callable[..., Arm]]:
    """make_arm(*arguments) -> Arm in this process, not spun; arguments as on a command line."""
    arms: list[Arm] = []

    def make(*arguments: str) -> Arm:
        rclpy.init(
            args=["arm", *arguments], domain_id=ros_domain, signal_handler_options=SignalHandlerOptions.NO
        )
        arms.append(Arm())
        return arms[-1]

    yield make
    for arm in arms:
        arm.raises.clear()
        arm.close()
        arm.destroy_node()
    rclpy.try_shutdown()


@pytest.mark.parametrize("autostart", [False, True])
def test_a_failed_configure_leaves_nothing_made_and_a_second_one_works(make_arm, capfd, autostart) -> None:
    """The reason is logged also where the node started by itself, and a lifecycle manager configures it later."""
    arm = make_arm("--ros-args", "-p", f"autostart:={autostart}")
    before = arm.made()
    arm.raises["configure"] = ConfigError("checkpoint: does not exist")
    assert arm.trigger_configure() == FAILURE
    assert (arm.state, arm.fatal) == ("unconfigured", None)
    assert arm.made() == before
    said = capfd.readouterr().err
    assert "configure failed: checkpoint: does not exist" in said
    assert "Traceback" not in said

    assert arm.trigger_configure() == SUCCESS
    assert arm.trigger_activate() == SUCCESS
    one_more = {kind: count + 1 for kind, count in before.items()}
    assert arm.made() == one_more | {"publishers": before["publishers"] + 2, "timers": before["timers"] + 2}


def test_a_failed_activate_leaves_the_node_inactive_and_stopped(make_arm) -> None:
    arm = make_arm()
    assert arm.trigger_configure() == SUCCESS
    configured = arm.made()
    arm.raises["activate"] = ConfigError("the arm does not answer")
    assert arm.trigger_activate() == FAILURE
    assert (arm.state, arm.stopped, arm.released) == ("inactive", 1, 0)
    assert arm.made() == configured
    assert arm.trigger_activate() == SUCCESS
    assert arm.state == "active"


@pytest.mark.parametrize("hook", ["configure", "activate"])
def test_a_bug_in_a_transition_keeps_its_traceback_and_secures_the_node(make_arm, capfd, hook: str) -> None:
    arm = make_arm()
    before = arm.made()
    arm.raises[hook] = ZeroDivisionError("a bug")
    outcomes = [arm.trigger_configure()]
    if hook == "activate":
        outcomes.append(arm.trigger_activate())
    assert outcomes[-1] == ERROR
    assert arm.stopped == arm.released == 1
    assert (arm.state, arm.made()) == ("unconfigured", before)
    assert arm.fatal == "ZeroDivisionError: a bug", "the process must end"
    said = capfd.readouterr().err
    assert "Traceback" in said
    assert "in _raise" in said
    assert "stopped and released: ZeroDivisionError: a bug" in said


@pytest.mark.parametrize("error", [ConfigError("the last command was not sent"), OSError("a bug")])
def test_an_error_while_stopping_tears_down_all_the_same(make_arm, capfd, error: Exception) -> None:
    arm = make_arm()
    before = arm.made()
    arm.trigger_configure()
    arm.trigger_activate()
    arm.raises["stop"] = error
    assert arm.trigger_deactivate() == ERROR
    assert (arm.state, arm.made()) == ("unconfigured", before)
    assert f"deactivate failed: {arm.problem}" in capfd.readouterr().err
    assert (arm.fatal is None) == isinstance(error, ConfigError)


def test_an_error_while_undoing_a_failed_configure_is_not_lost(make_arm, capfd) -> None:
    arm = make_arm()
    before = arm.made()
    arm.raises |= {"configure": ConfigError("no camera"), "release": RuntimeError("the worker hangs")}
    assert arm.trigger_configure() == ERROR
    assert (arm.state, arm.made()) == ("unconfigured", before)
    said = capfd.readouterr().err
    assert "configure failed: no camera" in said
    assert "RuntimeError: the worker hangs" in said


def test_timers_end_with_the_transition_that_undoes_theirs(make_arm) -> None:
    arm = make_arm()
    unconfigured = arm.made()
    arm.trigger_configure()
    configured = arm.made()
    for _ in range(2):
        arm.trigger_activate()
        assert arm.made()["timers"] == configured["timers"] + 1
        arm.trigger_deactivate()
        assert arm.made() == configured
    arm.trigger_cleanup()
    assert arm.made() == unconfigured


@pytest.mark.parametrize("simulated", [False, True])
def test_timers_follow_the_steady_clock_and_control_timers_simulated_time(make_arm, simulated: bool) -> None:
    """A wall clock that is set back stops a timer on the ROS clock for as long."""
    arm = make_arm("--ros-args", "-p", f"use_sim_time:={simulated}")
    arm.trigger_configure()
    (diagnostics,) = arm.timers
    arm.trigger_activate()
    assert diagnostics.clock.clock_type == ClockType.STEADY_TIME
    assert arm.control_timer.clock.clock_type == (ClockType.ROS_TIME if simulated else ClockType.STEADY_TIME)


BROKEN = """
import sys
from dp_ros.ros.node.managed_node import ManagedNode, reported
from dp_ros.ros.node.node_main import run_process
from dp_ros.schema import ConfigError
from rclpy.lifecycle import TransitionCallbackReturn

def fail():
    if sys.argv[1] == "bug":
        return [][0]
    if sys.argv[1] == "file":
        open("/no/such/file")
    raise ConfigError("the camera is\\n unplugged")

class Broken(ManagedNode):
    @reported
    def on_configure(self, state):
        if sys.argv[2] == "configure":
            fail()
        return TransitionCallbackReturn.SUCCESS
    @reported
    def on_activate(self, state):
        self.add_timer(0.01, fail)
        return super().on_activate(state)
    def close(self):
        super().close()
        print("secured", flush=True)

run_process(lambda: Broken("broken"))
"""
MODULE = "dp_ros.ros.nodes.broken"  # of the name only; the program is BROKEN


@pytest.mark.parametrize("where", ["configure", "callback"])
@pytest.mark.parametrize(
    ("kind", "line"),
    [("user", "the camera is unplugged"), ("file", "/no/such/file: No such file or directory")],
)
def test_what_a_user_can_act_on_ends_the_process_with_one_line(
    start_node, tmp_path, where, kind, line
) -> None:
    program = tmp_path / "broken.py"
    program.write_text(BROKEN)
    node = start_node(MODULE, {"autostart": True}, program=(program, kind, where))
    assert node.wait() == 1
    assert node.log.splitlines() == [f"broken: {line}", "secured"]


@pytest.mark.parametrize("where", ["configure", "callback"])
def test_a_bug_ends_the_process_with_its_traceback(start_node, tmp_path, where) -> None:
    program = tmp_path / "broken.py"
    program.write_text(BROKEN)
    node = start_node(MODULE, {"autostart": True}, program=(program, "bug", where))
    assert node.wait() == 1
    assert "Traceback" in node.log
    assert "in fail" in node.log
    assert "IndexError: list index out of range" in node.log
    assert node.log.endswith("secured\n")


def test_wrong_ros_arguments_end_the_process_with_one_line(start_node) -> None:
    node = start_node("dp_ros.ros.nodes.recorder_node", {}, "--params-file", "/no/such.yaml")
    assert node.wait() == 1
    assert "Traceback" not in node.log
    assert node.log.splitlines()[-1].startswith("node: wrong ROS arguments: ")
    assert "/no/such.yaml" in node.log.splitlines()[-1]


def test_a_node_never_starts_without_the_security_that_was_asked_for(
    start_node, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a keystore of broken files: where the middleware has no SROS 2, and where it has."""
    enclave = tmp_path / "enclaves"
    enclave.mkdir()
    for name in ("identity_ca.cert", "cert", "key", "permissions_ca.cert"):
        (enclave / f"{name}.pem").write_text("broken")
    for name in ("governance.p7s", "permissions.p7s"):
        (enclave / name).write_text("broken")
    for name, value in (("ENABLE", "true"), ("STRATEGY", "Enforce"), ("KEYSTORE", str(tmp_path))):
        monkeypatch.setenv(f"ROS_SECURITY_{name}", value)
    node = start_node("dp_ros.ros.nodes.recorder_node", {})
    assert node.wait() == 1
    assert "Traceback" not in node.log
    assert "security" in node.log.splitlines()[-1].lower()


def test_a_managed_node_can_be_configured_again_after_a_failure(start_node, client, tmp_path) -> None:
    """The recorder, whose folder cannot be made at first: it says so, lives, and records once it can."""
    in_the_way = tmp_path / "bags"
    in_the_way.write_text("")
    node = start_node("dp_ros.ros.nodes.recorder_node", {"folder": str(in_the_way), "cameras": ["left"]})
    client.watched.append(node)
    assert not client.change("recorder_node", "configure")
    assert client.state("recorder_node") == "unconfigured"
    client.wait_for(lambda: f"configure failed: {in_the_way}: File exists" in node.log, "the reason")
    assert "Traceback" not in node.log
    in_the_way.unlink()
    assert client.change("recorder_node", "configure")
    assert client.change("recorder_node", "activate")
    assert client.state("recorder_node") == "active"
