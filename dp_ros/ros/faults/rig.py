"""Robot, policy node and watchdog as processes that can be told to fail, and a client node in this process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from dp_ros.evaluation.faults import Heard
from dp_ros.policy.checkpoint import save_checkpoint
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.ros.faults import recording
from dp_ros.ros.faults.cases import Setting
from dp_ros.ros.faults.policy import CENTRE_M, DONE, ORDERS
from dp_ros.ros.faults.recording import Recorder
from dp_ros.ros.faults.robot import RIVAL_FRAME
from dp_ros.ros.messages import conversions
from dp_ros.ros.node import qos
from dp_ros.ros.processes.environment import SESSION_VARIABLE, node_environment
from dp_ros.ros.processes.node_process import (
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    NodeGroup,
    NodeProcess,
    SessionError,
    parameters_yaml,
)
from dp_ros.ros.processes.shared_memory import clear_shared_memory

HOME_M = [float(CENTRE_M[0]), float(CENTRE_M[1]), float(CENTRE_M[2]) + 0.2]  # far from the policy's circle
_DOWN = (0.0, 1.0, 0.0, 0.0)
_DISCOVERY_S = 1.0
_GONE_S = 2.0
_OURS = {"dp_ros_faults", "dp_ros_faults_robot", "policy_node"}
_ANSWER_S = 2.0  # after which a service is asked again
_RIVAL_PERIOD_S = 0.05
_STATS = {
    "action": {"low": [-0.3, 0.3, 0.0, -1.0], "high": [0.3, 0.9, 0.4, 1.0]},
    "state": {"low": [-0.3, 0.3, 0.0, 0.0], "high": [0.3, 0.9, 0.4, 1.0]},
}


class Rig(NodeGroup):
    """The processes of the suite. A checkpoint with untrained weights is made for the policy."""

    def __init__(self, setting: Setting, domain_id: int | None = None) -> None:
        """SessionError where a robot or a policy is in this ROS domain: they would hear each other."""
        self._policy, self._runtime = setting.policy, setting.runtime
        self._watchdog = setting.watchdog
        self._environment = {**node_environment(domain_id), SESSION_VARIABLE: str(os.getpid())}
        self._robot: subprocess.Popen[str] | None = None
        self._storm: subprocess.Popen[str] | None = None
        self._nodes: dict[str, NodeProcess] = {}
        self.recorder: Recorder | None = None
        self.verdict = ""  # what the policy said last
        self.guard = ""  # what the watchdog said last
        self.overheard: list[Heard] = []  # commands, also those that a dead robot cannot hear
        self._done: list[str] = []
        self._rival: Any = None
        super().__init__({}, domain_id, client="dp_ros_faults")

    def create_interface(self) -> None:
        node, folder = self.node, Path(self._folder.name)
        self.wait(_DISCOVERY_S)
        self._refuse_company(set())
        self.checkpoint = save_checkpoint(DiffusionPolicy(self._policy, _STATS), folder / "policy")
        self._orders = node.create_publisher(String, ORDERS, qos.RELIABLE)
        self._stop = node.create_publisher(Bool, "emergency_stop", qos.LATCHED)
        node.create_subscription(String, DONE, lambda msg: self._done.append(msg.data), qos.RELIABLE)
        node.create_subscription(String, "policy/status", self._on_status, qos.LATCHED)
        node.create_subscription(PoseStamped, "command/ee_pose", self._on_command, qos.RELIABLE_DEEP)
        node.create_subscription(String, "watchdog/status", self._on_guard, qos.LATCHED)
        self._change = node.create_client(ChangeState, "policy_node/change_state")
        self._state = node.create_client(GetState, "policy_node/get_state")
        self._release = node.create_client(Trigger, "watchdog/release")
        self.start_robot()
        self.start_policy()
        self._refuse_company(
            _OURS
        )  # on a busy computer a node may be discovered late; nothing was commanded so far

    def _refuse_company(self, ours: set[str]) -> None:
        """SessionError where another node uses the robot's topics. One that ended is known a little longer."""
        deadline_s = time.monotonic() + _GONE_S
        while topic := self._used_by_others(ours):
            if time.monotonic() > deadline_s:
                raise SessionError(
                    f"another node uses {topic} in this ROS domain, and would be commanded: set ROS_DOMAIN_ID to a "
                    "number of its own"
                )
            self.wait(0.1)

    def _used_by_others(self, ours: set[str]) -> str:
        """The topic of the robot that another node publishes or hears; empty where there is none."""
        node = self.node
        for topic in ("command/ee_pose", "ee_pose"):
            ends = node.get_publishers_info_by_topic(topic) + node.get_subscriptions_info_by_topic(topic)
            if {end.node_name for end in ends} - ours:
                return topic
        return ""

    def _on_command(self, msg: PoseStamped, info: Mapping[str, int]) -> None:
        position_m = tuple(conversions.pose_to_position(msg).tolist())
        stamp_ns, received_ns = conversions.stamp_to_ns(msg.header.stamp), info["received_timestamp"]
        self.overheard.append(Heard(received_ns, received_ns, stamp_ns, position_m, position_m))

    def _on_status(self, msg: String) -> None:
        self.verdict = msg.data

    def _on_guard(self, msg: String) -> None:
        self.guard = msg.data

    def wait(self, seconds: float) -> None:
        self.spin_until(lambda: False, seconds, "")

    # ---- robot -----------------------------------------------------------------------------------------

    def start_robot(self) -> None:
        self._robot = subprocess.Popen(
            [sys.executable, "-m", "dp_ros.ros.faults.robot"],
            env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._ask_robot([self._policy.model_dump(mode="json"), HOME_M])

    def kill_robot(self) -> None:
        assert self._robot is not None
        self._robot.kill()
        self._robot.communicate()

    def _ask_robot(self, order: Any) -> dict[str, Any]:
        assert self._robot is not None
        assert self._robot.stdin is not None
        assert self._robot.stdout is not None
        try:
            self._robot.stdin.write(json.dumps(order) + "\n")
            self._robot.stdin.flush()
            answer: dict[str, Any] = json.loads(self._robot.stdout.readline() or "null")
        except OSError:
            answer = {}
        if not answer:
            raise SessionError("the robot of the suite ended: see its message above")
        return answer

    def heard(self, fault: str | None = None) -> tuple[int, list[Heard]]:
        """The commands since the last call, and the time; `fault` begins a fault of the sensors, "" ends it."""
        answer = self._ask_robot({} if fault is None else {"fault": fault})
        return answer["now_ns"], [
            Heard(received_ns, followed_ns, stamp_ns, tuple(position_m), tuple(arm_m))
            for received_ns, followed_ns, stamp_ns, position_m, arm_m in answer["heard"]
        ]

    # ---- policy ----------------------------------------------------------------------------------------

    def start_policy(self) -> None:
        """Start and configure it."""
        parameters = parameters_yaml(
            "/**/policy_node",
            self._runtime,
            autostart=False,
            checkpoint=str(self.checkpoint),
            use_sim_time=False,
        )
        self._start("dp_ros.ros.faults.policy", "policy_node", parameters)
        self.change(Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE)

    def _start(self, module: str, name: str, parameters: str) -> None:
        process = NodeProcess(module, name, parameters, Path(self._folder.name), self._environment)
        self._nodes[name] = process
        self.processes.append(process)

    def change(self, transition: int, state: int) -> None:
        """A lifecycle transition, asked for until the node is in `state`. SessionError where it does not get there."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        request = ChangeState.Request(transition=Transition(id=transition))
        while (
            known := self._ask(self._state, GetState.Request())
        ) is None or known.current_state.id != state:
            if known is not None:  # else it is not there yet
                self._ask(self._change, request)
            if time.monotonic() > deadline_s:
                raise SessionError(
                    f"policy_node did not do transition {transition} within {START_TIMEOUT_S:g} s"
                )

    def _ask(self, client: Any, request: Any) -> Any:
        """The answer, or None where none came in time: DDS may drop a response."""
        if not client.service_is_ready():
            self.wait(0.02)
            return None
        answer = client.call_async(request)
        self.spin_until(answer.done, _ANSWER_S, "")
        return answer.result() if answer.done() else None

    @property
    def policy_says(self) -> str:
        """The end of its log."""
        return self._nodes["policy_node"].last_line

    def activate(self) -> None:
        self.change(Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE)

    def deactivate(self) -> None:
        self.change(Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE)

    def order(self, engine: str = "", clock_s: float = 0.0) -> None:
        """Faults of the policy's engine and clock from now on; waits until it has taken them."""
        count = len(self._done)
        self._orders.publish(String(data=json.dumps({"engine": engine, "clock_s": clock_s})))
        self.spin_until(lambda: len(self._done) > count, START_TIMEOUT_S, "the policy took no order")

    def signal_policy(self, number: int) -> None:
        os.kill(self._nodes["policy_node"].pid, number)

    def kill_policy(self) -> None:
        process = self._nodes.pop("policy_node")
        self.processes.remove(process)
        process.kill()

    # ---- others ----------------------------------------------------------------------------------------

    def watch(self, is_watched: bool) -> None:
        """Start the watchdog beside the policy, or end it."""
        if is_watched and "policy_watchdog" not in self._nodes:
            parameters = parameters_yaml("/**/policy_watchdog", self._watchdog)
            self._start("dp_ros.ros.nodes.policy_watchdog", "policy_watchdog", parameters)
        if not is_watched and "policy_watchdog" in self._nodes:
            process = self._nodes.pop("policy_watchdog")
            self.processes.remove(process)
            process.stop()
            self.guard = ""

    def record(self, is_recorded: bool) -> None:
        """Record the arm, with a recorder of its own, or end it."""
        if is_recorded and self.recorder is None:
            folder = Path(self._folder.name) / "bags"
            config = recording.config_of(folder, self._policy.encoder.cameras)
            parameters = parameters_yaml(f"/**/{recording.NAME}", config, autostart=True)
            self._start(recording.MODULE, recording.NAME, parameters)
            self.recorder = Recorder(self._nodes[recording.NAME], folder, self.node, self.spin_until)
        if is_recorded and self.recorder is not None:
            self.recorder.start()
        elif self.recorder is not None:
            self.processes.remove(process := self._nodes.pop(recording.NAME))
            process.stop()
            self.recorder.close()
            self.recorder = None

    def fill_disk(self) -> None:
        """The recorder's disk is full from now on."""
        assert self.recorder is not None
        self.recorder.fill_disk()

    def free_disk(self) -> None:
        assert self.recorder is not None
        self.recorder.free_disk()

    def storm(self, is_ready: bool) -> None:
        """Start a process that can disturb the graph, see `let_loose`, or end it."""
        if self._storm is not None and not is_ready:
            _end(self._storm)
            self._storm = None
        elif self._storm is None and is_ready:
            self._storm = subprocess.Popen(
                [sys.executable, "-m", "dp_ros.ros.faults.storm"],
                env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert self._storm.stdout is not None
            self._storm.stdout.readline()

    def let_loose(self) -> None:
        """Participants join and leave from now on."""
        assert self._storm is not None
        assert self._storm.stdin is not None
        self._storm.stdin.write("go\n")
        self._storm.stdin.flush()

    def wait_until_watched(self) -> None:
        """Wait until the watchdog, where there is one, knows that the policy is active."""
        if "policy_watchdog" not in self._nodes:
            return
        self.spin_until(
            lambda: self.guard.startswith(("watching", "holding")), START_TIMEOUT_S, "no watchdog"
        )
        if self.guard.startswith("holding"):  # it took a policy on a busy computer for one that hangs
            self.release()

    def release(self) -> None:
        """Make the watchdog hand back."""

        def is_released() -> bool:
            answer = self._ask(self._release, Trigger.Request())
            return answer is not None and answer.success

        self.spin_until(is_released, START_TIMEOUT_S, "the watchdog did not hand back")

    def emergency_stop(self, is_stopped: bool) -> None:
        self._stop.publish(Bool(data=is_stopped))

    def rival(self, position_m: tuple[float, float, float] | None) -> None:
        """Begin to command the arm to stay there from here, too; None ends it."""
        if self._rival is not None:
            publisher, timer = self._rival
            self.node.destroy_timer(timer)
            self.node.destroy_publisher(publisher)
            self._rival = None
        if position_m is not None:
            publisher = self.node.create_publisher(PoseStamped, "command/ee_pose", qos.RELIABLE)

            def publish() -> None:
                publisher.publish(
                    conversions.position_to_pose(position_m, _DOWN, time.time_ns(), RIVAL_FRAME)
                )

            self._rival = publisher, self.node.create_timer(_RIVAL_PERIOD_S, publish)

    def replace_checkpoint(self) -> None:
        """Other weights in the same folder."""
        save_checkpoint(DiffusionPolicy(self._policy, _STATS), self.checkpoint)

    def close(self) -> None:
        self.storm(False)
        if "policy_node" in self._nodes:
            self.signal_policy(signal.SIGCONT)  # else it could not end
        if self._robot is not None:
            _end(self._robot)
        super().close()
        clear_shared_memory()  # of the processes that were killed


def _end(process: subprocess.Popen[str]) -> None:
    """End a process by the end of its input: one that is killed leaves its shared memory behind."""
    try:
        process.communicate(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
