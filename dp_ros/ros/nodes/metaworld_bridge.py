"""Bridge node: a simulated arm behind the topics of a real one.

lockstep: publish the observation stamped t, wait for the command stamped t, step once. realtime: step on a steady
clock, hold when no fresh command came, and tell in the diagnostics what share of real time is reached. An episode
begins by the service `episode/reset`, or by itself with `auto_reset`, and ends with a message on `episode/result`. With
`expert`, the scripted expert commands the arm over the command topics, as a policy would, and publishes its labels on
`expert/ee_pose` and `expert/gripper`.

The node is called metaworld_bridge for every simulator, because its parameter files address it by that name before
the parameter `task` is known.
"""

from __future__ import annotations

import json
import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Int64, String
from std_srvs.srv import Trigger

from dp_ros.poses import orientation_of
from dp_ros.ros.messages import conversions
from dp_ros.ros.messages.commands import CommandPairing
from dp_ros.ros.node import qos
from dp_ros.ros.node.diagnostics import OK, WARN
from dp_ros.ros.node.managed_node import ManagedNode, reported
from dp_ros.ros.node.node_main import run_process
from dp_ros.ros.node.parameters import read_config
from dp_ros.ros.nodes.bridge_task import BridgeTask
from dp_ros.ros.nodes.expert_commander import ExpertCommander
from dp_ros.ros.nodes.realtime_loop import RealtimeLoop
from dp_ros.ros.nodes.robot_sensors import BASE_FRAME, RobotSensors
from dp_ros.schema import BridgeConfig
from dp_ros.sim.arm import (
    ArmSpec,
    Array,
    Observation,
    SimulatedArm,
    keep_gripper,
    make_arm,
    rest_command,
    simulator_of,
)

_EPISODE_GAP_NS = 2_000_000_000  # longer than any policy's episode_gap_s: a new episode is a jump in time
_FIRST_AGAIN_S = 0.5  # period of repeating the first observation, because a reader may still be connecting
_LOCKSTEP_TIMER_S = 0.02


class MetaworldBridge(ManagedNode):
    """Lifecycle node around one `SimulatedArm`."""

    def __init__(self) -> None:
        super().__init__("metaworld_bridge")
        self._config = read_config(self, BridgeConfig)
        self._task: BridgeTask | None = None
        self._arm: SimulatedArm | None = None
        self._sensors: RobotSensors | None = None
        self._loop: RealtimeLoop | None = None
        self._active = False

    # ---- lifecycle -------------------------------------------------------------------------------------

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        config, publisher = self._config, self.add_publisher
        self._task = self._task or BridgeTask(self, config.task)
        config = config.model_copy(update={"task": self._task.configure()})
        self._arm = arm = make_arm(ArmSpec.of(config))
        self._dt_ns = round(1e9 / arm.rate_hz)
        self._sensors = RobotSensors(arm, config, publisher)
        self._seed_publisher = publisher(Int64, "episode/seed", qos.LATCHED)
        self._success_publisher = publisher(Bool, "episode/success", qos.LATCHED)
        self._result_publisher = publisher(String, "episode/result", qos.RELIABLE_DEEP)
        self._expert = ExpertCommander(config, BASE_FRAME, publisher) if config.expert else None
        self._pairing = CommandPairing(
            self._on_command, lambda stamp_ns: config.mode == "realtime" or stamp_ns == self._waiting_ns
        )
        # Deep: the two halves of one stamp are of one command only as long as no message is lost.
        self.add_subscription(PoseStamped, "command/ee_pose", self._pairing.pose, qos.RELIABLE_DEEP)
        self.add_subscription(JointState, "command/gripper", self._on_gripper, qos.RELIABLE_DEEP)
        if config.follow_recorder:
            self.add_subscription(String, "record/command", self._on_record, qos.RELIABLE)
        self.add_service(Trigger, "episode/reset", self._on_reset)
        self.add_diagnostics(self._status)
        self._next_seed, self._time_ns = config.first_seed, 0
        self._running, self._problem = False, ""
        self._waiting_ns: int | None = None  # lockstep: stamp of the awaited command
        self._asked_s = self._published_s = 0.0
        self._newest: tuple[int, Array] | None = None  # realtime: stamp and command, in effect
        self._on_the_way: deque[tuple[int, Array]] = deque(maxlen=1000)  # realtime: not in effect yet
        self._after_success = 0
        self.get_logger().info(f"{arm.spec.task} ready, {config.mode}, {self._sensors.summary}")
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._arm is not None
        assert self._task is not None
        self._active = True
        self._task.publish()
        if self._config.mode == "realtime":
            self._place(self._next_seed)  # a robot stands there before its first episode
            self._loop = RealtimeLoop(1.0 / self._arm.rate_hz, self._realtime_tick, self.add_timer)
        else:
            self.add_timer(_LOCKSTEP_TIMER_S, self._lockstep_tick)
        return super().on_activate(state)

    def stop(self) -> None:
        if not self._active:
            return
        if self._running:
            self._end("deactivated")
        self._active, self._loop = False, None

    def release(self) -> None:
        if self._sensors is not None:
            self._sensors.close()
            self._sensors = None
        if self._arm is not None:
            self._arm.close()
            self._arm = None

    # ---- episodes --------------------------------------------------------------------------------------

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self._active:
            response.success, response.message = False, f"{self.get_name()} is not active"
            return response
        if lacking := self._lacks_readers():
            response.success, response.message = False, f"{lacking} has too few subscribers yet"
            return response
        if others := self._other_commanders():
            response.success, response.message = False, others
            return response
        if self._running:
            self._end("reset")
        self._begin()
        response.success, response.message = True, str(self._seed)
        return response

    def _on_record(self, msg: String) -> None:
        """Begin the next episode when a recording ends, not when it starts: no recording contains the jump in time."""
        if self._active and self._running and msg.data in ("success", "failure", "discard"):
            self._end(f"recorded as {msg.data}")
            self._begin()

    def _lacks_readers(self) -> str:
        """A topic with fewer subscribers than `min_readers`, else empty; a late one would miss the first message."""
        assert self._sensors is not None
        publishers = self._sensors.publishers + (self._expert.publishers if self._expert else [])
        lacking = (p for p in publishers if p.get_subscription_count() < self._config.min_readers)
        return next((publisher.topic_name for publisher in lacking), "")

    def _other_commanders(self) -> str:
        """Reason why the expert may not command, else empty: another node publishes commands."""
        if self._expert and self.count_publishers("command/ee_pose") > 1:
            return "command/ee_pose has another publisher: stop the policy or the teleoperation, or set expert to false"
        return ""

    def _begin(self) -> None:
        self._seed, self._next_seed = self._next_seed, self._next_seed + 1
        self._running, self._problem = True, ""
        self._seed_publisher.publish(Int64(data=self._seed))
        self._place(self._seed)

    def _place(self, seed: int) -> None:
        """Reset arm and scene to `seed`, after a jump in time. Another task replaces the arm."""
        assert self._arm is not None
        assert self._task is not None
        assert self._sensors is not None
        began_s = time.monotonic()
        self._arm = self._task.next_arm(self._arm, self._sensors)
        observation = self._arm.reset(seed)
        self._time_ns += _EPISODE_GAP_NS
        if self._expert:
            self._expert.begin(self._arm, seed, orientation_of(observation.ee_pose))
        self._after_success = 0
        self._newest = None
        self._on_the_way.clear()
        self._last = rest_command(self._arm, observation)
        self._asked_s = time.monotonic()
        self._publish(observation, expect_command=self._running)
        self._placed_s = time.monotonic()
        if self._loop:
            self._loop.exclude(self._placed_s - began_s)

    def _end(self, reason: str) -> None:
        assert self._arm is not None
        self._running, self._waiting_ns = False, None
        success = self._arm.success
        self._problem = "" if success else f"episode {self._seed} failed: {reason}"
        self._success_publisher.publish(Bool(data=success))
        result: dict[str, Any] = {
            "seed": self._seed,
            "success": success,
            "steps": self._arm.steps,
            "reason": "" if success else reason,
        }
        if self._loop:
            took_s = time.monotonic() - self._placed_s
            result["realtime_factor"] = round(self._arm.steps / self._arm.rate_hz / took_s, 4)
        self._result_publisher.publish(String(data=json.dumps(result)))
        self.get_logger().info(
            f"episode {self._seed}: {'success' if success else reason} after {self._arm.steps} steps"
        )

    # ---- commands and time -----------------------------------------------------------------------------

    def _on_gripper(self, msg: JointState) -> None:
        if not np.isfinite(
            msg.effort
        ).all():  # an effort that is left out means "not commanded", NaN does not
            self._refuse("command/gripper", f"effort {list(msg.effort)} is not finite")
            return
        try:
            self._pairing.gripper(msg)
        except conversions.ConversionError as error:
            self._refuse("command/gripper", str(error))

    def _on_command(self, stamp_ns: int, command: Array) -> None:
        """`command` (4,); NaN as its gripper: not commanded, the gripper keeps the last command."""
        if not self._active:
            return
        before = self._on_the_way[-1] if self._on_the_way else self._newest
        command = keep_gripper(command, before[1] if before else self._last)
        if not np.isfinite(command).all():
            self._refuse("command", "is not finite")
        elif self._config.mode == "realtime":
            is_newer = before is None or stamp_ns > before[0]
            if (
                is_newer and stamp_ns <= self._time_ns
            ):  # a command stamped in the future would stay fresh for ever
                self._on_the_way.append((stamp_ns, command))
        elif self._running and stamp_ns == self._waiting_ns:
            self._step(command)

    def _refuse(self, topic: str, why: str) -> None:
        self.get_logger().error(f"{topic}: {why}; it was ignored", throttle_duration_sec=1.0)

    def _step(self, command: Array) -> None:
        assert self._arm is not None
        self._time_ns += self._dt_ns
        self._last = command
        with self._part("physics"):
            self._arm.advance(command)
        observation = self._observe()
        self._after_success += self._arm.success
        if self._after_success > self._config.keep_steps or self._arm.steps >= self._config.max_steps:
            self._publish(observation, expect_command=False)
            self._end("time limit")
        else:
            self._asked_s = time.monotonic()
            self._publish(observation)

    def _observe(self) -> Observation:
        assert self._arm is not None
        observation = self._arm.observe()
        if self._loop:
            for camera, took_s in self._arm.drawing_s.items():
                self._loop.meter.add(f"the picture of {camera}", took_s)
        return observation

    def _part(self, name: str) -> AbstractContextManager[None]:
        """Measure a part of the tick, in real time."""
        return self._loop.meter.part(name) if self._loop else nullcontext()

    def _lockstep_tick(self) -> None:
        if self._running and self._waiting_ns is not None:
            self._wait_for_command()
        elif self._may_begin():
            self._begin()

    def _may_begin(self) -> bool:
        """Whether an episode may begin by itself: exactly one commander is there, and every reader."""
        return (
            self._config.auto_reset
            and self.count_publishers("command/ee_pose") > 0
            and not self._lacks_readers()
            and not self._other_commanders()
        )

    def _wait_for_command(self) -> None:
        assert self._arm is not None
        now_s = time.monotonic()
        if now_s - self._asked_s > self._config.command_timeout_s:
            self._end(f"no command within {self._config.command_timeout_s:g} s")
        elif self._arm.steps == 0 and now_s - self._published_s > _FIRST_AGAIN_S:
            self._publish(self._arm.observe())

    def _realtime_tick(self) -> None:
        """One step: the newest command while it is fresh, else the last one again."""
        assert self._arm is not None
        if self._running:
            delay_ns = round(self._config.command_delay_s * 1e9)
            while self._on_the_way and self._on_the_way[0][0] <= self._time_ns - delay_ns:
                self._newest = self._on_the_way.popleft()
            max_age_ns = self._config.command_max_age_s * 1e9 + delay_ns
            fresh = self._newest is not None and self._time_ns - self._newest[0] <= max_age_ns
            self._step(self._newest[1] if fresh and self._newest is not None else self._last)
        else:
            self._time_ns += self._dt_ns
            self._publish(self._observe(), expect_command=False)
            if self._may_begin():
                self._begin()

    def _publish(self, observation: Observation, expect_command: bool = True) -> None:
        """The observation of now, and the expert's command for it."""
        self._waiting_ns = self._time_ns if expect_command else None
        self._published_s = time.monotonic()
        assert self._sensors is not None
        with self._part("publishing"):
            self._sensors.publish(observation, self._time_ns, film=self._running)
        if self._expert and self._running and (expect_command or self._config.mode == "realtime"):
            with self._part("the expert"):
                self._expert.command(self._time_ns)

    def _status(self) -> tuple[bytes, str, dict[str, str]]:
        steps = self._arm.steps if self._arm else 0
        values = {
            "task": self._task.present if self._task else self._config.task,
            "simulator": simulator_of(self._config.task).name,
            "mode": self._config.mode,
            "steps": str(steps),
        }
        problems = [self._problem, self._sensors.problem if self._sensors else ""]
        if self._loop:
            now_s, meter = time.monotonic(), self._loop.meter
            problems.append(self._loop.report(self.get_logger()))
            if (factor := meter.factor(now_s)) is not None:
                values["realtime_factor"] = f"{factor:.3f}"
            values |= {f"{part} [ms]": f"{took_ms:.2f}" for part, took_ms in meter.parts_ms().items()}
        if any(problems):
            return WARN, "; ".join(filter(None, problems)), values
        return OK, "episode running" if self._running else "idle", values


def main() -> None:
    run_process(MetaworldBridge)


if __name__ == "__main__":
    main()
