"""A tiny arm for tests and first trials: a gripper on three slides that pushes a block over a goal line.

The scene is our own and is made in a few milliseconds; a policy for it trains in seconds on a CPU. The tool's frame
can be mounted at an angle, as on a robot whose tool does not point straight down: see `TILT_DEG`.
"""

from __future__ import annotations

import math
from typing import ClassVar

import mujoco
import numpy as np

from dp_ros.actions import POSITION, gripper_of, join
from dp_ros.poses import make_pose
from dp_ros.sim.arm import ArmSpec, Array, Observation, Simulator
from dp_ros.sim.mujoco_arm import MujocoArm, site_orientation

TILT_DEG = {"tiny-push": 0.0, "tiny-push-tilt30": 30.0, "tiny-push-tilt180": 180.0}  # of the tool, about x
GOAL_Y_M = 0.76
OPEN_M = 0.02  # travel of each finger
_HAND = ("hand_x", "hand_y", "hand_z")
_FINGERS = ("right_finger", "left_finger")
_BLOCK = ("block_x", "block_y")
_LOW_M, _HIGH_M = np.array([-0.2, 0.45, 0.03]), np.array([0.2, 0.9, 0.25])
HAND_M, _HAND_SPREAD_M = (
    np.array([0.0, 0.52, 0.07]),
    np.array([0.12, 0.02, 0.01]),
)  # drawn from mean +- spread
_BLOCK_M, _BLOCK_SPREAD_M = np.array([0.0, 0.63]), np.array([0.015, 0.015])
_AHEAD_M = 0.06  # in front of the block lies the point where the expert begins to push ...
_ALIGNED_M = 0.01  # ... once it is that near

# The cameras of the hand are named as Metaworld names its own, so that the defaults of commands fit both.
_SCENE = """
<mujoco model="tiny_push">
  <option gravity="0 0 0" integrator="implicitfast"/>
  <visual><headlight ambient="0.5 0.5 0.5" diffuse="0.5 0.5 0.5" specular="0 0 0"/></visual>
  <default>
    <geom contype="0" conaffinity="0"/>
    <default class="slide"><joint type="slide" damping="16"/></default>
    <default class="finger"><joint type="slide" axis="1 0 0" range="0 0.02" damping="2"/></default>
    <default class="block"><joint type="slide" damping="1" frictionloss="0.6"/></default>
  </default>
  <worldbody>
    <geom name="table" type="box" size="0.4 0.35 0.01" pos="0 0.65 -0.01" rgba="0.55 0.5 0.45 1"/>
    <geom name="edge" type="box" size="0.4 0.01 0.03" pos="0 0.98 0.03" rgba="0.3 0.35 0.5 1"/>
    <geom name="line" type="box" size="0.4 0.006 0.001" pos="0 {goal_y} 0.0005" rgba="0.1 0.6 0.2 1"/>
    <site name="goal" type="sphere" size="0.01" pos="0 {goal_y} 0.1" rgba="1 0.9 0 1"/>
    <camera name="corner" pos="0.45 0.2 0.5" xyaxes="0.707 0.707 0 -0.38 0.38 0.84" fovy="60"/>
    <body name="block" pos="0 0 0.025">
      <joint name="block_x" class="block" axis="1 0 0"/>
      <joint name="block_y" class="block" axis="0 1 0"/>
      <geom type="box" size="0.02 0.02 0.025" mass="0.1" rgba="0.8 0.15 0.1 1" contype="1" conaffinity="2"/>
    </body>
    <body name="hand">
      <joint name="hand_x" class="slide" axis="1 0 0"/>
      <joint name="hand_y" class="slide" axis="0 1 0"/>
      <joint name="hand_z" class="slide" axis="0 0 1"/>
      <geom type="capsule" size="0.008" fromto="0 0 0.03 0 0 0.2" mass="0.2" rgba="0.2 0.2 0.25 1"/>
      <geom type="box" size="0.035 0.01 0.008" pos="0 0 0.025" mass="0.01" rgba="0.2 0.2 0.25 1"/>
      <site name="tool" quat="{tool}"/>
      <camera name="gripperPOV" pos="0 -0.1 0.12" xyaxes="1 0 0 0 0.6 0.8" fovy="75"/>
      <camera name="behindGripper" pos="0.12 -0.16 0.14" xyaxes="0.8 0.6 0 -0.36 0.48 0.8" fovy="75"/>
      <body name="right_finger" pos="0.006 0 0">
        <joint name="right_finger" class="finger"/>
        <geom type="box" size="0.005 0.008 0.02" mass="0.02" rgba="0.9 0.9 0.95 1" contype="2" conaffinity="1"/>
      </body>
      <body name="left_finger" pos="-0.006 0 0">
        <joint name="left_finger" class="finger" axis="-1 0 0"/>
        <geom type="box" size="0.005 0.008 0.02" mass="0.02" rgba="0.9 0.9 0.95 1" contype="2" conaffinity="1"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position joint="hand_x" kp="300"/>
    <position joint="hand_y" kp="300"/>
    <position joint="hand_z" kp="300"/>
    <position joint="right_finger" kp="20"/>
    <position joint="left_finger" kp="20"/>
  </actuator>
</mujoco>
"""


class TinyArm(MujocoArm):
    """A `SimulatedArm` that solves its task when the block's centre has passed the line y = `GOAL_Y_M`.

    The seed draws where the hand starts, which varies most, and where the block lies. So a policy that observes
    proprioception learns the task in few steps. Cameras: `gripperPOV` and `behindGripper` on the hand, `corner` for
    people.
    """

    max_step_m: ClassVar[float] = 0.01
    rate_hz: ClassVar[float] = 20.0
    robot_name: ClassVar[str] = "tiny_arm"
    root_body: ClassVar[str] = "hand"
    tool_body: ClassVar[str] = "hand"
    substeps: ClassVar[int] = 10  # of the physics in a tick

    def __init__(self, spec: ArmSpec) -> None:
        """`spec.task` is one of `TILT_DEG`. TaskError names an unknown camera."""
        scene = _SCENE.format(goal_y=GOAL_Y_M, tool=_tool_quat(math.radians(TILT_DEG[spec.task])))
        model = mujoco.MjModel.from_xml_string(scene)
        model.opt.timestep = 1.0 / (self.rate_hz * self.substeps)
        super().__init__(spec, model, mujoco.MjData(model))
        self._target_m: Array = HAND_M.copy()
        address = {model.joint(i).name: int(model.jnt_qposadr[i]) for i in range(model.njnt)}
        self._hand, self._fingers, self._block = (
            [address[name] for name in names] for names in (_HAND, _FINGERS, _BLOCK)
        )

    def reset(self, seed: int) -> Observation:
        self.begin_episode()
        mujoco.mj_resetData(self.model, self.data)
        self._target_m, self.data.qpos[self._block] = self.start(seed)
        self.data.qpos[self._hand] = self._target_m
        self.data.qpos[self._fingers] = OPEN_M
        self.data.ctrl[:] = [*self._target_m, OPEN_M, OPEN_M]
        mujoco.mj_forward(self.model, self.data)
        return self.observe()

    def start(self, seed: int) -> tuple[Array, Array]:
        """Where the hand (3,) and the block (2,) of an episode begin."""
        rng = np.random.default_rng(seed)
        hand_m = rng.uniform(HAND_M - _HAND_SPREAD_M, HAND_M + _HAND_SPREAD_M)
        return hand_m, rng.uniform(_BLOCK_M - _BLOCK_SPREAD_M, _BLOCK_M + _BLOCK_SPREAD_M)

    def advance(self, command: Array) -> None:
        action = self.to_command(self.to_native(command))
        self._target_m = POSITION.of(action)
        opening_m = OPEN_M * (1.0 - gripper_of(action)) / 2.0
        self.data.ctrl[:] = [*self._target_m, opening_m, opening_m]
        mujoco.mj_step(self.model, self.data, self.substeps)
        self.steps += 1
        self.success = self.success or self._is_over_line()

    def measure(self) -> tuple[Array, float]:
        """Pose of the tool's frame, z out of the hand, and the mean opening of the fingers."""
        opening = float(np.mean(self.data.qpos[self._fingers])) / OPEN_M
        pose = make_pose(self.data.qpos[self._hand], site_orientation(self.data, "tool"))
        return pose, min(max(opening, 0.0), 1.0)

    @property
    def tool_in_body(self) -> Array:
        w, x, y, z = self.model.site("tool").quat
        return np.array([x, y, z, w])

    def expert_command(self) -> Array:
        """Close the gripper, go straight to a point in front of the block, push the block over the line, and stay."""
        return self.to_command(self.to_native(self.expert_target(self.max_step_m)))

    def expert_target(self, reach_m: float) -> Array:
        """The expert's command (4,) within `reach_m` of the present target along each axis, and within its bounds."""
        block_x, block_y = self.data.qpos[self._block]
        goal_m = np.array([block_x, block_y - _AHEAD_M, _LOW_M[2]])
        if self._is_over_line():
            goal_m = self._target_m
        elif self._target_m[1] > goal_m[1] - _ALIGNED_M and abs(block_x - self._target_m[0]) < _ALIGNED_M:
            goal_m[1] = GOAL_Y_M
        move_m = goal_m - self._target_m
        move_m *= min(1.0, reach_m / max(float(np.abs(move_m).max()), 1e-9))
        return join(np.clip(self._target_m + move_m, _LOW_M, _HIGH_M), 1.0)

    @property
    def target_m(self) -> Array:
        return self._target_m.copy()

    @property
    def target_bounds_m(self) -> tuple[Array, Array]:
        return _LOW_M.copy(), _HIGH_M.copy()

    def move_object(self, offset_m: Array) -> None:
        """Displace the block; it stays on the table, so the height of the offset has no effect."""
        self.data.qpos[self._block] += offset_m[: len(self._block)]
        mujoco.mj_forward(self.model, self.data)

    def joint_positions(self) -> tuple[list[str], list[float]]:
        """Three slides of the hand and two fingers [m]."""
        return [*_HAND, *_FINGERS], [float(self.data.qpos[i]) for i in (*self._hand, *self._fingers)]

    def simulator_state(self) -> Array:
        """qpos, qvel and the target."""
        return np.concatenate([self.data.qpos, self.data.qvel, self._target_m])

    def _is_over_line(self) -> bool:
        return bool(self.data.qpos[self._block[1]] >= GOAL_Y_M)


def _tool_quat(tilt_rad: float) -> str:
    """The site's quaternion w x y z as MJCF: straight down, then tilted about x."""
    down, tilt, tool = np.array([0.0, 0.0, 1.0, 0.0]), np.zeros(4), np.zeros(4)
    mujoco.mju_axisAngle2Quat(tilt, np.array([1.0, 0.0, 0.0]), tilt_rad)
    mujoco.mju_mulQuat(tool, tilt, down)
    return " ".join(f"{number:.17g}" for number in tool)


SIMULATOR = Simulator(
    name="tiny",
    tasks=tuple(TILT_DEG),
    movable_tasks=tuple(TILT_DEG),
    rate_hz=TinyArm.rate_hz,
    spectator="corner",
    make=TinyArm,
)
