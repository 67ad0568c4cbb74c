"""Base of the arms that MuJoCo simulates: pictures, cameras that can be displaced, and a target that moves in steps."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import mujoco
import numpy as np

from dp_ros.actions import ACTION_DIM, GRIPPER, POSITION, gripper_of, join
from dp_ros.poses import make_pose
from dp_ros.sim.arm import ArmSpec, Array, Image, Observation, TaskError
from dp_ros.sim.background import BackgroundRenderer
from dp_ros.sim.rendering import Renderer
from dp_ros.sim.robot_model import RobotModel, make_robot_model


class MujocoArm(ABC):
    """Common half of a `SimulatedArm`; a subclass adds the physics, the measurements and the expert.

    The native action (4,) in [-1, 1] moves the target: `target += action * max_step_m`, clipped to the bounds; its
    gripper is the command's. The conversions of both directions are exact, so that a recorded episode replays to the
    same states.
    """

    max_step_m: ClassVar[float]
    rate_hz: ClassVar[float]
    robot_name: ClassVar[str]
    root_body: ClassVar[str]  # of the robot; all below it is the robot, too
    tool_body: ClassVar[str]  # carries the tool's frame

    def __init__(self, spec: ArmSpec, model: Any, data: Any) -> None:
        """`model` and `data` are MuJoCo's. TaskError names a camera that the model does not have."""
        self.spec, self.model, self.data = spec, model, data
        self._renderer = Renderer(model, spec.markers)
        for camera in spec.cameras:
            self._check_camera(camera)
        self._camera_m = [(place, place.copy()) for place in _camera_places(model)]
        self.success = False
        self.steps = 0
        self.drawing_s: dict[str, float] = {}

    @abstractmethod
    def advance(self, command: Array) -> None:
        """See `SimulatedArm`."""

    @abstractmethod
    def measure(self) -> tuple[Array, float]:
        """Pose (7,) and opening of an `Observation`."""

    @property
    @abstractmethod
    def tool_in_body(self) -> Array:
        """Quaternion (4,) x, y, z, w of the tool's frame in `tool_body`."""

    @property
    @abstractmethod
    def target_m(self) -> Array:
        """See `SimulatedArm`."""

    @property
    @abstractmethod
    def target_bounds_m(self) -> tuple[Array, Array]:
        """See `SimulatedArm`."""

    def begin_episode(self) -> None:
        """Restore the cameras, the count of steps and the success."""
        for place, original in self._camera_m:
            place[:] = original
        self.success, self.steps = False, 0

    def step(self, command: Array) -> Observation:
        self.advance(command)
        return self.observe()

    def observe(self) -> Observation:
        ee_pose, gripper = self.measure()
        images = {}
        for camera in self.spec.cameras:
            began_s = time.thread_time()
            images[camera] = self.render(camera)
            self.drawing_s[camera] = time.thread_time() - began_s
        return Observation(images, ee_pose, gripper)

    def render(self, camera: str, width_px: int | None = None, height_px: int | None = None) -> Image:
        self._check_camera(camera)
        size_px = width_px or self.spec.width_px, height_px or self.spec.height_px
        return self._renderer.render(self.data, camera, *size_px)

    def background_renderer(
        self, camera: str, width_px: int, height_px: int, rate_hz: float
    ) -> BackgroundRenderer:
        self._check_camera(camera)
        markers = self.spec.markers
        return BackgroundRenderer(
            self.model, self.data, camera, width_px, height_px, markers=markers, rate_hz=rate_hz
        )

    def focal_length_px(self, camera: str) -> float:
        return self._renderer.focal_length_px(camera, self.spec.height_px)

    def camera_pose(self, camera: str) -> Array:
        self._check_camera(camera)
        number = self.model.camera(camera).id
        # MuJoCo's cameras look along -z with y up, optical frames along z with y down.
        optical = self.data.cam_xmat[number].reshape(3, 3) * np.array([1.0, -1.0, -1.0])
        return make_pose(self.data.cam_xpos[number], quaternion_of(optical))

    @property
    def assets(self) -> Path | None:
        """Folder that the paths of the model's mesh files start from; None where it has none."""
        return None

    def robot_model(self) -> RobotModel:
        tool = self.tool_body, self.tool_in_body
        return make_robot_model(self.robot_name, self.model, self.root_body, tool, self.assets)

    def move_camera(self, camera: str, offset_m: Array) -> None:
        """Along the world's axes where the camera keeps its orientation as its mount moves, else along the mount's."""
        for place in _camera_places(self.model):
            place[self.model.camera(camera).id] += offset_m
        mujoco.mj_camlight(self.model, self.data)

    def to_native(self, command: Array) -> Array:
        """Absolute command (4,) -> native action (4,) in [-1, 1]."""
        native = np.empty(ACTION_DIM)
        native[POSITION.slice] = (POSITION.of(command) - self.target_m) / self.max_step_m
        native[GRIPPER.slice] = GRIPPER.of(command)
        return np.clip(native, -1.0, 1.0)

    def to_command(self, native: Array) -> Array:
        """Native action (4,) -> the absolute command (4,) with the same effect."""
        action = np.clip(np.asarray(native, dtype=np.float64), -1.0, 1.0)
        low, high = self.target_bounds_m
        position = np.clip(self.target_m + POSITION.of(action) * self.max_step_m, low, high)
        return join(position, gripper_of(action))

    def perturb(self, command: Array, noise: Array) -> Array:
        native = self.to_native(command)
        native[POSITION.slice] += noise
        return self.to_command(native)

    def close(self) -> None:
        self._renderer.close()

    def _check_camera(self, camera: str) -> None:
        known = self._renderer.camera_names()
        if camera not in known:
            raise TaskError(f"{self.spec.task} has no camera '{camera}'; it has {', '.join(known)}")


def site_orientation(data: Any, site: str) -> Array:
    """Quaternion (4,) x, y, z, w of a site, world frame."""
    return quaternion_of(data.site(site).xmat)


def quaternion_of(matrix: Array) -> Array:
    """Rotation matrix (3, 3) or (9,) -> quaternion (4,) x, y, z, w."""
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(matrix).ravel())
    w, x, y, z = quat
    return np.array([x, y, z, w])


def _camera_places(model: Any) -> tuple[Array, Array, Array]:
    """Positions of the cameras, (ncam, 3) each: which of the three counts depends on how a camera follows its body."""
    return model.cam_pos, model.cam_pos0, model.cam_poscom0
