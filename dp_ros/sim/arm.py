"""Simulated robot arms: the contract every simulator keeps, and the registry of simulators.

A simulator is one module of this room that holds a `SIMULATOR`. To add one, write the module and append its name to
`_MODULES`; the commands, the bridge and the evaluation then find its tasks by name.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
import yaml
from numpy.typing import NDArray

from dp_ros.actions import POSITION, gripper_of, join, opening_to_command
from dp_ros.errors import USAGE, UserError
from dp_ros.poses import position_of
from dp_ros.resources import share_file

if TYPE_CHECKING:
    from dp_ros.schema import BridgeConfig, CollectConfig
    from dp_ros.sim.background import BackgroundRenderer
    from dp_ros.sim.robot_model import RobotModel

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

TASK_GROUPS, ALL = "config/task_groups.yaml", "all"
DIFFICULTIES = ("easy", "medium", "hard", "very_hard")
# In the order of the search. A module is imported when the search reaches it, so the light one comes first.
_MODULES = ("tiny_arm", "metaworld_arm")


class TaskError(UserError):
    """A task or camera that does not exist, or a change of the scene that the task does not allow."""

    exit_code = USAGE


@dataclass(frozen=True)
class ArmSpec:
    """An arm to make: its task, and the cameras it observes with."""

    task: str
    cameras: tuple[str, ...] = ()
    width_px: int = 96
    height_px: int = 96
    markers: bool = False  # draw goals and other marks that no real camera would see

    @classmethod
    def of(cls, config: BridgeConfig | CollectConfig) -> ArmSpec:
        """The arm that a config describes."""
        return cls(config.task, config.cameras, config.width_px, config.height_px, config.markers)


@dataclass(frozen=True)
class Observation:
    """Everything the arm senses at one tick."""

    images: dict[str, Image]  # camera -> (H, W, 3) RGB
    ee_pose: Array  # (7,) measured, base frame: x, y, z [m] and quaternion x, y, z, w
    gripper: float  # measured opening, 0 closed to 1 open

    @property
    def ee_position_m(self) -> Array:
        return position_of(self.ee_pose)


class SimulatedArm(Protocol):
    """One arm in one task. The seed of the reset and the commands determine every state and picture.

    A command is an absolute vector (4,): x, y, z [m, base frame] and gripper [-1 open, 1 closed]. The arm's target
    moves towards it by at most `max_step_m` along each axis in a tick, and stays inside `target_bounds_m`.
    """

    @property
    def spec(self) -> ArmSpec:
        """The arm's spec; `task` is the full name."""

    @property
    def rate_hz(self) -> float:
        """Ticks in a second of simulated time."""

    @property
    def success(self) -> bool:
        """Whether the task has been solved since the reset."""

    @property
    def steps(self) -> int:
        """Ticks since the reset."""

    def reset(self, seed: int) -> Observation:
        """Begin the episode of `seed`; the cameras are back in their places."""

    def step(self, command: Array) -> Observation:
        """`advance`, then `observe`."""

    def advance(self, command: Array) -> None:
        """Follow a finite command for one tick, without drawing."""

    def observe(self) -> Observation:
        """The present state, with a picture of each camera of the spec. RenderingError."""

    def render(self, camera: str, width_px: int | None = None, height_px: int | None = None) -> Image:
        """Picture (H, W, 3) of any camera of the scene, of the spec's size by default. TaskError, RenderingError."""

    @property
    def drawing_s(self) -> dict[str, float]:
        """CPU time of this thread that the last picture of each camera of the spec took."""

    def background_renderer(
        self, camera: str, width_px: int, height_px: int, rate_hz: float
    ) -> BackgroundRenderer:
        """A process that draws the arm from any camera of the scene, beside the simulation. TaskError."""

    def focal_length_px(self, camera: str) -> float:
        """Focal length of both axes, for pictures of the spec's size."""

    def camera_pose(self, camera: str) -> Array:
        """Pose (7,) of a camera's optical frame in the base frame: z along the line of sight, y down. TaskError."""

    def robot_model(self) -> RobotModel:
        """Links and joints of the robot; the joints that move are those of `joint_positions`."""

    def expert_command(self) -> Array:
        """The scripted expert's command (4,) at the present state, within reach of one tick."""

    def perturb(self, command: Array, noise: Array) -> Array:
        """The command (4,) whose move is changed by `noise` (3,) times `max_step_m`, within reach of one tick."""

    @property
    def target_m(self) -> Array:
        """Position (3,) the arm is told to hold, base frame."""

    @property
    def target_bounds_m(self) -> tuple[Array, Array]:
        """Lowest and highest target, (3,) each."""

    @property
    def max_step_m(self) -> float:
        """Longest move of the target along one axis in a tick."""

    def joint_positions(self) -> tuple[list[str], list[float]]:
        """Names and positions of the arm's own joints [rad, or m where they slide]."""

    def simulator_state(self) -> Array:
        """Everything that determines the future, as one vector, to compare two runs."""

    def move_camera(self, camera: str, offset_m: Array) -> None:
        """Displace a camera by (3,) until the next reset, along the axes of its mount."""

    def move_object(self, offset_m: Array) -> None:
        """Displace the task's object by (3,) in the base frame, at once. TaskError where it does not lie free."""

    def close(self) -> None:
        """Free the simulator and its pictures' memory."""


@dataclass(frozen=True)
class Simulator:
    """A family of tasks that one simulator offers, and the facts that hold for all of them."""

    name: str
    tasks: tuple[str, ...]
    movable_tasks: tuple[str, ...]  # tasks whose object lies free, so that `move_object` works
    rate_hz: float
    spectator: str  # camera that shows the whole scene to people
    make: Callable[[ArmSpec], SimulatedArm]
    version: str = ""  # appended to a task that is named without it


def make_arm(spec: ArmSpec) -> SimulatedArm:
    """The simulated arm of `spec`. TaskError names an unknown task or camera."""
    simulator, task = _find(spec.task)
    return simulator.make(replace(spec, task=task))


def simulator_of(task: str) -> Simulator:
    """The simulator that offers `task`. TaskError when none does."""
    return _find(task)[0]


def check_task(task: str) -> str:
    """The task's full name: "drawer-open" becomes "drawer-open-v3". TaskError names the nearest known task."""
    return _find(task)[1]


def find_tasks(text: str) -> tuple[str, ...]:
    """Full names of the tasks in a list "a,b"; "all" and the names of `config/task_groups.yaml` mean several tasks.

    TaskError names an unknown task, or one that is named twice.
    """
    names = [name.strip() for name in text.split(",")]
    groups = task_groups()
    tasks = [task for name in names for task in (groups[name] if name in groups else [check_task(name)])]
    for task in tasks:
        if tasks.count(task) > 1:
            raise TaskError(f"--task {text}: names {task} twice")
    return tuple(tasks)


@lru_cache(maxsize=1)
def task_groups() -> dict[str, tuple[str, ...]]:
    """Name of a group -> its tasks: those of `config/task_groups.yaml`, and "all" of the four of difficulty."""
    groups = {
        name: tuple(tasks) for name, tasks in yaml.safe_load(share_file(TASK_GROUPS).read_text()).items()
    }
    return {**groups, ALL: tuple(task for name in DIFFICULTIES for task in groups[name])}


def spectator_of(task: str, camera: str = "auto") -> str:
    """`camera`, or where it is "auto" the camera that shows the whole scene of the task. TaskError."""
    return simulator_of(task).spectator if camera == "auto" else camera


def rest_command(arm: SimulatedArm, observation: Observation) -> Array:
    """The command (4,) that keeps the arm as it is: its own target, and the gripper as measured."""
    return join(arm.target_m, opening_to_command(observation.gripper))


def keep_gripper(command: Array, last: Array) -> Array:
    """`command` (4,), with the gripper of `last` (4,) where its own is NaN: not commanded."""
    return join(POSITION.of(command), gripper_of(last)) if np.isnan(gripper_of(command)) else command


def _find(task: str) -> tuple[Simulator, str]:
    known: dict[str, str] = {}  # full name without the version -> full name
    examples: list[str] = []
    for simulator in _simulators(task):
        for name in (task, task + simulator.version):
            if name in simulator.tasks:
                return simulator, name
        known |= {name.removesuffix(simulator.version): name for name in simulator.tasks}
        examples.append(f"{simulator.name} has {len(simulator.tasks)}, e.g. {simulator.tasks[0]}")
    near = difflib.get_close_matches(task, [*known, *known.values()], n=1)
    hint = f"did you mean '{known.get(near[0], near[0])}'?" if near else "; ".join(examples)
    raise TaskError(f"unknown task '{task}'; {hint}")


def _simulators(task: str) -> Iterator[Simulator]:
    for name in _MODULES:
        try:
            yield importlib.import_module(f"dp_ros.sim.{name}").SIMULATOR
        except ModuleNotFoundError as error:
            raise TaskError(
                f"task '{task}' may be of {name}, which needs {error.name}: pip install 'dp_ros[sim]'"
            ) from None
        except ImportError as error:  # a shared library, e.g. GLFW's, which PYGLFW_LIBRARY can misplace
            given = [f"{key}={value}" for key, value in os.environ.items() if key.startswith("PYGLFW_")]
            remedy = f"unset {', '.join(given)}" if given else "reinstall it with pip install 'dp_ros[sim]'"
            raise TaskError(
                f"task '{task}' may be of {name}, which cannot be imported ({error}): {remedy}"
            ) from error
