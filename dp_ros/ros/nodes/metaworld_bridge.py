"""The simulated robot: Metaworld behind the topics of a real arm.

lockstep: publish the observation stamped t, wait for the command stamped t, step once. realtime: step on the
wall clock, hold when no fresh command came. Episodes begin by the service `episode/reset` (or by themselves
with `auto_reset`) and end with a message on `episode/result`. With `expert`, the scripted expert commands the arm over
the command topics, as a policy would, and publishes its clean answers on `expert/ee_pose` and `expert/gripper`.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Bool, Int64, String
from std_srvs.srv import Trigger

from dp_ros.poses import orientation_of
from dp_ros.ros.messages import conversions, images
from dp_ros.ros.messages.commands import CommandPairing
from dp_ros.ros.node import qos
from dp_ros.ros.node.diagnostics import OK, WARN
from dp_ros.ros.node.managed_node import ManagedNode, reported
from dp_ros.ros.node.node_main import run_process
from dp_ros.ros.node.parameters import read_config
from dp_ros.ros.nodes.expert_commander import ExpertCommander
from dp_ros.schema import BridgeConfig
from dp_ros.sim.metaworld_arm import MetaworldArm, Observation

BASE_FRAME = "base_link"
SPECTATOR_PX = 480
_EPISODE_GAP_NS = 2_000_000_000  # longer than any policy's episode_gap_s: a new episode is a jump in time
_FIRST_AGAIN_S = 0.5  # the first observation is repeated so often: a reader may still be connecting


class MetaworldBridge(ManagedNode):
    """Lifecycle node around one `MetaworldArm`."""

    def __init__(self) -> None:
        super().__init__("metaworld_bridge")
        self._config = read_config(self, BridgeConfig)
        self._dt_ns = round(1e9 / self._config.rate_hz)
        self._arm: MetaworldArm | None = None
        self._active = False

    # ---- lifecycle -------------------------------------------------------------------------------------

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        config = self._config
        self._arm = MetaworldArm(
            config.task, config.cameras, config.width_px, config.height_px, config.markers
        )
        if config.spectator:
            self._arm.render(config.spectator, SPECTATOR_PX, SPECTATOR_PX)
        lossless = config.mode == "lockstep"
        observation = qos.observations(config.mode)
        publisher = self.add_publisher
        self._image_publishers = {
            c: publisher(Image, f"camera/{c}/image_raw", observation) for c in config.cameras
        }
        self._info_publishers = {
            c: publisher(CameraInfo, f"camera/{c}/camera_info", observation) for c in config.cameras
        }
        self._spectator_publisher = publisher(
            Image, "camera/spectator/image_raw", qos.RELIABLE_DEEP if lossless else qos_profile_sensor_data
        )
        self._pose_publisher = publisher(PoseStamped, "ee_pose", observation)
        self._gripper_publisher = publisher(JointState, "gripper/state", observation)
        self._joint_publisher = publisher(JointState, "joint_states", 10)
        self._clock_publisher = publisher(Clock, "/clock", 10)
        self._task_publisher = publisher(String, "episode/task", qos.LATCHED)
        self._seed_publisher = publisher(Int64, "episode/seed", qos.LATCHED)
        self._success_publisher = publisher(Bool, "episode/success", qos.LATCHED)
        self._result_publisher = publisher(String, "episode/result", qos.RELIABLE_DEEP)
        self._expert = ExpertCommander(config, BASE_FRAME, publisher) if config.expert else None
        self._pairing = CommandPairing(
            self._on_command, lambda stamp_ns: config.mode == "realtime" or stamp_ns == self._waiting_ns
        )
        # Deep, because halves of one stamp are of one command only as long as none is lost.
        self.add_subscription(PoseStamped, "command/ee_pose", self._pairing.pose, qos.RELIABLE_DEEP)
        self.add_subscription(JointState, "command/gripper", self._on_gripper, qos.RELIABLE_DEEP)
        if config.follow_recorder:
            self.add_subscription(String, "record/command", self._on_record, qos.RELIABLE)
        self.add_service(Trigger, "episode/reset", self._on_reset)
        self.add_diagnostics(self._status)
        self._next_seed = config.first_seed
        self._running = False
        self._problem = ""
        self._time_ns = 0
        self._waiting_ns: int | None = None  # lockstep: the stamp a command is awaited for
        self._asked_s = self._published_s = 0.0
        self._newest: tuple[int, NDArray[np.float64]] | None = None
        self._after_success = 0
        self._hold: NDArray[np.float64] = np.zeros(4)
        self.get_logger().info(f"{self._arm.task} ready, {config.mode}, cameras {', '.join(config.cameras)}")
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._active = True
        realtime = self._config.mode == "realtime"
        self._timer = self.create_timer(1.0 / self._config.rate_hz if realtime else 0.02, self._on_timer)
        self._task_publisher.publish(String(data=self._config.task))
        if realtime:
            self._place(self._next_seed)  # a robot is there from the start, before an episode is counted
        return super().on_activate(state)

    def stop(self) -> None:
        if not self._active:
            return
        if self._running:
            self._end("deactivated")
        self._active = False
        self.destroy_timer(self._timer)

    def release(self) -> None:
        if self._arm is not None:
            self._arm.close()
            self._arm = None
        super().release()

    # ---- episodes --------------------------------------------------------------------------------------

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self._active:
            response.success, response.message = False, "metaworld_bridge is not active"
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
        """At the end rather than at the start: a jump in time must not be part of what is recorded."""
        if self._active and self._running and msg.data in ("success", "failure", "discard"):
            self._end(f"recorded as {msg.data}")
            self._begin()

    def _lacks_readers(self) -> str:
        """An observation topic that has fewer subscribers than `min_readers`; a late one would miss the first."""
        publishers = [self._pose_publisher, self._gripper_publisher, *self._image_publishers.values()]
        publishers += self._expert.publishers if self._expert else []
        lacking = (p for p in publishers if p.get_subscription_count() < self._config.min_readers)
        return next((publisher.topic_name for publisher in lacking), "")

    def _other_commanders(self) -> str:
        """Why the expert may not command: somebody else does. Empty when it may, or need not."""
        if self._expert and self.count_publishers("command/ee_pose") > 1:
            return "command/ee_pose has another publisher: stop the policy or the teleoperation, or set expert to false"
        return ""

    def _begin(self) -> None:
        self._seed, self._next_seed = self._next_seed, self._next_seed + 1
        self._running, self._problem = True, ""
        self._seed_publisher.publish(Int64(data=self._seed))
        self._place(self._seed)

    def _place(self, seed: int) -> None:
        """Arm and task as `seed` places them, after a jump in time."""
        assert self._arm is not None
        observation = self._arm.reset(seed)
        self._time_ns += _EPISODE_GAP_NS
        if self._expert:
            self._expert.begin(self._arm, seed, orientation_of(observation.ee_pose))
        self._after_success = 0
        self._newest = None
        self._hold = np.append(self._arm.target_m, 0.0)
        self._asked_s = time.monotonic()
        self._publish(observation, expect_command=self._running)

    def _end(self, reason: str) -> None:
        assert self._arm is not None
        self._running, self._waiting_ns = False, None
        success = self._arm.success
        self._problem = "" if success else f"episode {self._seed} failed: {reason}"
        self._success_publisher.publish(Bool(data=success))
        result = {
            "seed": self._seed,
            "success": success,
            "steps": self._arm.steps,
            "reason": "" if success else reason,
        }
        self._result_publisher.publish(String(data=json.dumps(result)))
        self.get_logger().info(
            f"episode {self._seed}: {'success' if success else reason} after {self._arm.steps} steps"
        )

    # ---- time ------------------------------------------------------------------------------------------

    def _on_gripper(self, msg: JointState) -> None:
        try:
            self._pairing.gripper(msg)
        except conversions.ConversionError as error:
            self.get_logger().error(f"command/gripper: {error}", throttle_duration_sec=1.0)

    def _on_command(self, stamp_ns: int, command: NDArray[np.float64]) -> None:
        command = np.where(np.isnan(command), self._hold, command)  # a gripper that is not commanded stays
        if not np.isfinite(command).all():
            self.get_logger().error("a command that is not finite was refused", throttle_duration_sec=1.0)
            return
        if self._config.mode == "realtime":
            is_newer = self._newest is None or stamp_ns > self._newest[0]
            if is_newer and stamp_ns <= self._time_ns:  # one of the future would be fresh for ever
                self._newest = (stamp_ns, command)
        elif self._active and self._running and stamp_ns == self._waiting_ns:
            self._step(command)

    def _step(self, command: NDArray[np.float64]) -> None:
        assert self._arm is not None
        self._time_ns += self._dt_ns
        self._hold = command
        observation = self._arm.step(command)
        self._after_success += self._arm.success
        if self._after_success > self._config.keep_steps or self._arm.steps >= self._config.max_steps:
            self._publish(observation, expect_command=False)
            self._end("time limit")
        else:
            self._asked_s = time.monotonic()
            self._publish(observation)

    def _on_timer(self) -> None:
        if self._config.mode == "realtime":
            self._realtime_tick()
        elif self._running and self._waiting_ns is not None:
            self._wait_for_command()
        elif self._is_wanted():
            self._begin()

    def _is_wanted(self) -> bool:
        """Whether an episode may begin by itself: somebody is there to command it, and no two."""
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
        assert self._arm is not None
        if self._running:
            fresh = self._newest is not None and (
                self._time_ns - self._newest[0] <= self._config.command_max_age_s * 1e9
            )
            if fresh and self._newest is not None:
                self._hold = self._newest[1]
            self._step(self._hold)
        else:
            self._time_ns += self._dt_ns
            self._publish(self._arm.observe(), expect_command=False)
            if self._is_wanted():
                self._begin()

    def _publish(self, observation: Observation, expect_command: bool = True) -> None:
        """The observation of now; cameras last, so that who waits for a camera has the rest."""
        assert self._arm is not None
        arm, stamp_ns = self._arm, self._time_ns
        stamp = conversions.ns_to_stamp(stamp_ns)
        self._clock_publisher.publish(Clock(clock=stamp))
        self._waiting_ns = stamp_ns if expect_command else None
        self._published_s = time.monotonic()
        names, positions = arm.joint_positions()
        joints = JointState(name=names, position=positions)
        joints.header.stamp = stamp
        self._joint_publisher.publish(joints)
        self._pose_publisher.publish(conversions.vector_to_pose(observation.ee_pose, stamp_ns, BASE_FRAME))
        self._gripper_publisher.publish(conversions.gripper_state(observation.gripper, stamp_ns))
        if self._config.spectator and arm.steps % 2 == 0 and self._running:
            picture = arm.render(self._config.spectator, SPECTATOR_PX, SPECTATOR_PX)
            self._spectator_publisher.publish(images.rgb_to_image(picture, stamp_ns, "spectator"))
        for camera, pixels in observation.images.items():
            frame_id = f"{camera}_optical_frame"
            self._info_publishers[camera].publish(self._camera_info(camera, stamp, frame_id))
            self._image_publishers[camera].publish(images.rgb_to_image(pixels, stamp_ns, frame_id))
        if self._expert and self._running and (expect_command or self._config.mode == "realtime"):
            self._expert.command(stamp_ns)

    def _camera_info(self, camera: str, stamp: Any, frame_id: str) -> CameraInfo:
        assert self._arm is not None
        f = self._arm.focal_length_px(camera)
        cx, cy = self._arm.width_px / 2, self._arm.height_px / 2
        info = CameraInfo(width=self._arm.width_px, height=self._arm.height_px, distortion_model="plumb_bob")
        info.header.stamp, info.header.frame_id = stamp, frame_id
        info.d = [0.0] * 5
        info.k = [f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [f, 0.0, cx, 0.0, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        return info

    def _status(self) -> tuple[bytes, str, dict[str, str]]:
        steps = self._arm.steps if self._arm else 0
        values = {"task": self._config.task, "mode": self._config.mode, "steps": str(steps)}
        if self._problem:
            return WARN, self._problem, values
        return OK, "episode running" if self._running else "idle", values


def main() -> None:
    run_process(MetaworldBridge)


if __name__ == "__main__":
    main()
