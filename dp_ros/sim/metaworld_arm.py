"""One Metaworld v3 task as a robot arm that takes absolute commands. No ROS.

Metaworld's native action moves a mocap target: `target += clip(a, -1, 1) / 100`, clipped to the mocap
bounds (metaworld.sawyer_xyz_env.set_xyz_action). The arm's command is that target in metres; the two
conversions below are exact, so that a recorded episode replays to the same states.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP
from numpy.typing import NDArray

from dp_ros.errors import USAGE, UserError
from dp_ros.poses import make_pose, position_of
from dp_ros.sim.rendering import Renderer

# The experts ask for more than the arm can do and rely on being clipped.
warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high")

Array = NDArray[np.float64]
RATE_HZ = 80.0  # 5 substeps of 2.5 ms
METRES_PER_ACTION = 0.01
_TOOL_IN_HAND = np.array([0.5**0.5, 0.0, 0.5**0.5, 0.0])  # w, x, y, z: a quarter turn about y
_ARM_JOINTS = {*(f"right_j{i}" for i in range(7)), "r_close", "l_close"}
TASKS: tuple[str, ...] = tuple(sorted(ALL_V3_ENVIRONMENTS))
# Their object lies free. In the others it is a part of the scene or sits in one (the nut of disassemble on its peg; the
# peg of peg-unplug-side in its hole, which a push solves), or it is the mug beside the object (coffee-button).
MOVABLE_TASKS: tuple[str, ...] = tuple(
    f"{name}-v3"
    for name in (
        *("assembly", "basketball", "bin-picking", "box-close", "coffee-pull", "coffee-push"),
        *("hammer", "hand-insert", "peg-insert-side", "pick-out-of-hole", "pick-place"),
        *("pick-place-wall", "push", "push-back", "push-wall", "shelf-place", "soccer", "stick-pull"),
        *("stick-push", "sweep", "sweep-into"),
    )
)


class TaskError(UserError):
    """A task or camera that does not exist; one line with the nearest that does."""

    exit_code = USAGE


def check_task(task: str) -> str:
    """The task's full name ("drawer-open" is completed to "drawer-open-v3"); TaskError when there is none."""
    full = task if task.endswith("-v3") else f"{task}-v3"
    if full in TASKS:
        return full
    near = difflib.get_close_matches(full, TASKS, n=1)
    hint = f"did you mean '{near[0]}'?" if near else "see metaworld's list of 50 v3 tasks"
    raise TaskError(f"unknown task '{task}'; {hint}")


@dataclass(frozen=True)
class Observation:
    """What the arm senses at one tick."""

    images: dict[str, NDArray[np.uint8]]  # camera -> (H, W, 3) RGB
    ee_pose: Array  # (7,) measured, base frame: x, y, z [m] and quaternion x, y, z, w
    gripper: float  # measured opening, 0 closed to 1 open

    @property
    def ee_position_m(self) -> Array:
        return position_of(self.ee_pose)


class MetaworldArm:
    """Any of the 50 tasks, any of its cameras. Determined by (task, seed, commands) alone."""

    def __init__(
        self,
        task: str,
        cameras: tuple[str, ...] = (),
        width_px: int = 96,
        height_px: int = 96,
        markers: bool = False,
    ) -> None:
        self.task = check_task(task)
        env: Any = ALL_V3_ENVIRONMENTS[self.task]()
        env._partially_observable = False  # the experts read the goal ...
        del env.sawyer_observation_space  # ... which the cached bounds of a blind observation clip to zero
        env._freeze_rand_vec = False  # each reset places the objects anew ...
        env.seeded_rand_vec = True  # ... from the seed
        env._set_task_called = True
        env.max_path_length = sys.maxsize  # how long an episode lasts is its driver's business
        _put_upright(env.model)
        self._env = env
        self._expert: Any = ENV_POLICY_MAP[self.task]()
        self._renderer = Renderer(env.model, markers)
        known = self._renderer.camera_names()
        for camera in cameras:
            if camera not in known:
                raise TaskError(f"{self.task} has no camera '{camera}'; it has {', '.join(known)}")
        self.cameras, self.width_px, self.height_px = cameras, width_px, height_px
        self._camera_m = [(place, place.copy()) for place in _camera_places(env.model)]
        self._state: Array = np.zeros(39)
        self.success = False
        self.steps = 0

    def reset(self, seed: int) -> Observation:
        """Start the episode that `seed` stands for."""
        for place, original in self._camera_m:
            place[:] = original
        self._env.seed(seed)
        self._state, _ = self._env.reset()
        self.success, self.steps = False, 0
        return self.observe()

    def step(self, command: Array) -> Observation:
        """Move towards `command` (4,): (x, y, z [m], gripper [-1, 1]), one tick of 12.5 ms; then observe."""
        self.advance(command)
        return self.observe()

    def advance(self, command: Array) -> None:
        """`step` without drawing."""
        self._state, _, _, _, info = self._env.step(self.to_native(command))
        self.steps += 1
        self.success = self.success or bool(info["success"])

    def observe(self) -> Observation:
        return Observation(
            {camera: self.render(camera) for camera in self.cameras},
            make_pose(self._state[:3], self._tool_orientation()),
            float(self._state[3]),
        )

    def _tool_orientation(self) -> Array:
        """(4,) x, y, z, w: z points out of the hand, so that (0, 1, 0, 0) is a tool that points straight down."""
        tool = np.empty(4)
        mujoco.mju_mulQuat(tool, self._env.data.body("hand").xquat, _TOOL_IN_HAND)
        w, x, y, z = tool
        return np.array([x, y, z, w])

    def render(
        self, camera: str, width_px: int | None = None, height_px: int | None = None
    ) -> NDArray[np.uint8]:
        """One camera's picture now, uint8 (H, W, 3)."""
        return self._renderer.render(
            self._env.data, camera, width_px or self.width_px, height_px or self.height_px
        )

    def focal_length_px(self, camera: str) -> float:
        return self._renderer.focal_length_px(camera, self.height_px)

    def move_camera(self, camera: str, offset_m: Array) -> None:
        """Displace a camera by (3,) until the next reset: along the world's axes where it keeps its orientation while
        the hand moves it, as Metaworld's arm cameras do, else along those of what it is mounted on."""
        model, data = self._env.model, self._env.data
        for place in _camera_places(model):
            place[model.camera(camera).id] += offset_m
        mujoco.mj_camlight(model, data)

    def move_object(self, offset_m: Array) -> None:
        """Put the task's object elsewhere: by (3,), base frame, at once. TaskError where it does not lie free."""
        if self.task not in MOVABLE_TASKS:
            raise TaskError(f"the object of {self.task} is fixed to the scene and cannot be moved")
        model, data = self._env.model, self._env.data
        (joint,) = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)
        first = model.jnt_qposadr[joint]
        data.qpos[first : first + 3] += offset_m
        mujoco.mj_forward(model, data)

    @property
    def target_m(self) -> Array:
        """Where the arm is told to be: the mocap target (3,)."""
        return np.array(self._env.data.mocap_pos[0], dtype=np.float64)

    @property
    def target_bounds_m(self) -> tuple[Array, Array]:
        """The box the target is clipped to."""
        return np.array(self._env.mocap_low), np.array(self._env.mocap_high)

    def to_native(self, command: Array) -> Array:
        """Absolute command (4,) -> Metaworld's action (4,) in [-1, 1]."""
        native = np.empty(4)
        native[:3] = (command[:3] - self.target_m) / METRES_PER_ACTION
        native[3] = command[3]
        return np.clip(native, -1.0, 1.0)

    def to_command(self, native: Array) -> Array:
        """Metaworld's action (4,) -> the absolute command (4,) that has the same effect."""
        action = np.clip(np.asarray(native, dtype=np.float64), -1.0, 1.0)
        low, high = self.target_bounds_m
        position = np.clip(self.target_m + action[:3] * METRES_PER_ACTION, low, high)
        return np.append(position, action[3])

    def expert_command(self) -> Array:
        """The scripted expert's absolute command (4,) at this state."""
        return self.to_command(self._expert.get_action(self._state))

    def joint_positions(self) -> tuple[list[str], list[float]]:
        """Names and positions [rad, or m for the fingers] of the arm's own joints, as in the model."""
        model, data = self._env.model, self._env.data
        own = [i for i in range(model.njnt) if model.joint(i).name in _ARM_JOINTS]
        return [model.joint(i).name for i in own], [float(data.qpos[model.jnt_qposadr[i]]) for i in own]

    def simulator_state(self) -> Array:
        """qpos, qvel and the mocap target, to compare two runs."""
        data = self._env.data
        return np.concatenate([data.qpos, data.qvel, data.mocap_pos[0]])

    def close(self) -> None:
        self._renderer.close()
        self._env.close()


def _camera_places(model: mujoco.MjModel) -> tuple[Array, Array, Array]:
    """Where the cameras are, (ncam, 3) each: which of the three counts depends on how a camera follows its body."""
    return model.cam_pos, model.cam_pos0, model.cam_poscom0


def _put_upright(model: mujoco.MjModel) -> None:
    """Metaworld mounts its corner cameras upside down: turn those of the world around their line of sight."""
    half_turn = np.array([0.0, 0.0, 0.0, 1.0])
    for camera in np.flatnonzero(model.cam_bodyid == 0):
        up, turned = np.zeros(3), np.zeros(4)
        mujoco.mju_rotVecQuat(up, np.array([0.0, 1.0, 0.0]), model.cam_quat[camera])
        if up[2] < -0.1:
            mujoco.mju_mulQuat(turned, model.cam_quat[camera], half_turn)
            model.cam_quat[camera] = turned
