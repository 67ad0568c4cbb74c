"""Metaworld v3's tasks as a robot arm that takes absolute commands.

Metaworld's own action moves a mocap target: `target += clip(a, -1, 1) / 100`, clipped to the mocap bounds
(metaworld.sawyer_xyz_env.set_xyz_action). The arm's command is that target in metres; `MujocoArm` converts.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any, ClassVar

import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from dp_ros.poses import make_pose
from dp_ros.sim.arm import ArmSpec, Array, Observation, Simulator, TaskError
from dp_ros.sim.metaworld_experts import expert_of
from dp_ros.sim.mujoco_arm import MujocoArm

# The experts ask for more than the arm can do and rely on being clipped.
warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high")

_TOOL_IN_HAND = np.array([0.5**0.5, 0.0, 0.5**0.5, 0.0])  # w, x, y, z: a quarter turn about y
_ARM_JOINTS = {*(f"right_j{i}" for i in range(7)), "r_close", "l_close"}
_STATE_DIM = 39  # of Metaworld's observation: hand (3), opening, objects, goal
# Tasks whose object lies free. In the others it is a part of the scene or sits in one (the nut of disassemble on its
# peg; the peg of peg-unplug-side in its hole, which a push solves), or it is the mug beside the object (coffee-button).
MOVABLE_TASKS: tuple[str, ...] = tuple(
    f"{name}-v3"
    for name in (
        *("assembly", "basketball", "bin-picking", "box-close", "coffee-pull", "coffee-push"),
        *("hammer", "hand-insert", "peg-insert-side", "pick-out-of-hole", "pick-place"),
        *("pick-place-wall", "push", "push-back", "push-wall", "shelf-place", "soccer", "stick-pull"),
        *("stick-push", "sweep", "sweep-into"),
    )
)


class MetaworldArm(MujocoArm):
    """A `SimulatedArm` in any of the 50 tasks, with any of their cameras."""

    max_step_m: ClassVar[float] = 0.01
    rate_hz: ClassVar[float] = 80.0  # 5 substeps of 2.5 ms
    robot_name: ClassVar[str] = "sawyer"
    root_body: ClassVar[str] = "base"
    tool_body: ClassVar[str] = "hand"

    def __init__(self, spec: ArmSpec) -> None:
        """`spec.task` is one of Metaworld's full names. TaskError names an unknown camera."""
        env: Any = ALL_V3_ENVIRONMENTS[spec.task]()
        env._partially_observable = False  # the experts read the goal ...
        del env.sawyer_observation_space  # ... which the cached bounds of a blind observation clip to zero
        env._freeze_rand_vec = False  # each reset places the objects ...
        env.seeded_rand_vec = True  # ... as the seed says
        env._set_task_called = True
        env.max_path_length = sys.maxsize  # the caller limits the length of an episode
        _put_upright(env.model)
        self._env = env
        self._expert = expert_of(spec.task)
        self._state: Array = np.zeros(_STATE_DIM)
        super().__init__(spec, env.model, env.data)

    def reset(self, seed: int) -> Observation:
        self.begin_episode()
        self._env.seed(seed)
        self._state, _ = self._env.reset()
        # Some tasks place their goal last: the first picture would have its mark where the last episode had it.
        mujoco.mj_kinematics(self.model, self.data)
        return self.observe()

    def advance(self, command: Array) -> None:
        self._state, _, _, _, info = self._env.step(self.to_native(command))
        self.steps += 1
        self.success = self.success or bool(info["success"])

    def measure(self) -> tuple[Array, float]:
        """Hand and opening as Metaworld measures them; (0, 1, 0, 0) is a tool that points straight down."""
        tool = np.empty(4)  # z points out of the hand
        mujoco.mju_mulQuat(tool, self.data.body("hand").xquat, _TOOL_IN_HAND)
        w, x, y, z = tool
        return make_pose(self._state[:3], np.array([x, y, z, w])), float(self._state[3])

    @property
    def tool_in_body(self) -> Array:
        w, x, y, z = _TOOL_IN_HAND
        return np.array([x, y, z, w])

    @property
    def assets(self) -> Path | None:
        """The folder of the scene's file, in Metaworld's own package."""
        return Path(self._env.fullpath).parent

    def expert_command(self) -> Array:
        return self.to_command(self._expert.get_action(self._state))

    @property
    def target_m(self) -> Array:
        """The mocap target."""
        return np.array(self.data.mocap_pos[0], dtype=np.float64)

    @property
    def target_bounds_m(self) -> tuple[Array, Array]:
        return np.array(self._env.mocap_low), np.array(self._env.mocap_high)

    def move_object(self, offset_m: Array) -> None:
        if self.spec.task not in MOVABLE_TASKS:
            raise TaskError(f"the object of {self.spec.task} is fixed to the scene and cannot be moved")
        (joint,) = np.flatnonzero(self.model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)
        first = self.model.jnt_qposadr[joint]
        self.data.qpos[first : first + 3] += offset_m
        mujoco.mj_forward(self.model, self.data)

    def joint_positions(self) -> tuple[list[str], list[float]]:
        """Seven of the arm [rad] and two fingers [m], named as in the model."""
        model, data = self.model, self.data
        own = [i for i in range(model.njnt) if model.joint(i).name in _ARM_JOINTS]
        return [model.joint(i).name for i in own], [float(data.qpos[model.jnt_qposadr[i]]) for i in own]

    def simulator_state(self) -> Array:
        """qpos, qvel and the mocap target."""
        return np.concatenate([self.data.qpos, self.data.qvel, self.data.mocap_pos[0]])

    def close(self) -> None:
        super().close()
        self._env.close()


def _put_upright(model: mujoco.MjModel) -> None:
    """Turn the world's cameras that hang upside down, as Metaworld's corner cameras do, about their line of sight."""
    half_turn = np.array([0.0, 0.0, 0.0, 1.0])
    for camera in np.flatnonzero(model.cam_bodyid == 0):
        up, turned = np.zeros(3), np.zeros(4)
        mujoco.mju_rotVecQuat(up, np.array([0.0, 1.0, 0.0]), model.cam_quat[camera])
        if up[2] < -0.1:
            mujoco.mju_mulQuat(turned, model.cam_quat[camera], half_turn)
            model.cam_quat[camera] = turned


SIMULATOR = Simulator(
    name="metaworld",
    tasks=tuple(sorted(ALL_V3_ENVIRONMENTS)),
    movable_tasks=MOVABLE_TASKS,
    rate_hz=MetaworldArm.rate_hz,
    spectator="corner2",
    make=MetaworldArm,
    version="-v3",
)
