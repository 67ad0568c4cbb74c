"""Offscreen pictures from MuJoCo, without shadows, reflections and multisampling, which cost much of the time.

Geoms that the camera cannot see are left out (`frustum`). One GL context serves all models, cameras and sizes of the
process; it is closed once, at exit. `gl_backend` chooses what it draws with. Mesa draws in the calling thread;
LP_NUM_THREADS, a number of threads, overrides that.
"""

from __future__ import annotations

import atexit
import os
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from dp_ros.sim.frustum import FrustumCulling
from dp_ros.sim.gl_backend import RenderingError, choose_backend, start_context, started

__all__ = ["Renderer", "RenderingError", "choose_backend"]

MAX_WIDTH_PX, MAX_HEIGHT_PX = 640, 480
_NOT_DRAWN = 5  # a group of geoms that MjvOption leaves out; the models' own are 0 to 4


class _Context:
    """The GL context of the process; a model's textures and meshes are uploaded when it is first drawn."""

    def __init__(self) -> None:
        self._backend = choose_backend()
        # Mesa's rasteriser starts a thread per core. Small pictures wait longer for threads than they gain from them.
        os.environ.setdefault("LP_NUM_THREADS", "0")
        self.gl: Any = start_context(self._backend, MAX_WIDTH_PX, MAX_HEIGHT_PX)
        self._owner: Renderer | None = None
        self._mjr: mujoco.MjrContext | None = None
        atexit.register(self.close)

    def resources(self, owner: Renderer, width_px: int, height_px: int) -> mujoco.MjrContext:
        """GPU resources of the owner's model, uploaded when another model was drawn last.

        The buffer grows with the pictures: Mesa clears all of it for each.
        """
        if self._owner is not owner or self._mjr is None:
            self.release(self._owner)
            owner.model.vis.global_.offwidth, owner.model.vis.global_.offheight = width_px, height_px
            with started(self._backend):
                self._mjr = mujoco.MjrContext(owner.model, mujoco.mjtFontScale.mjFONTSCALE_50)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._mjr)
            self._owner = owner
        mjr = self._mjr
        if width_px > mjr.offWidth or height_px > mjr.offHeight:
            mujoco.mjr_resizeOffscreen(max(width_px, mjr.offWidth), max(height_px, mjr.offHeight), mjr)
        return mjr

    def release(self, owner: Renderer | None) -> None:
        if owner is self._owner and self._mjr is not None:
            self._mjr.free()
            self._mjr, self._owner = None, None

    def close(self) -> None:
        global _context
        self.release(self._owner)
        if self.gl is not None:
            self.gl.free()
            self.gl = None
        _context = None


_context: _Context | None = None


def _shared_context() -> _Context:
    global _context
    if _context is None:
        _context = _Context()
    return _context


class Renderer:
    """Renderer of one model, from any of its cameras, at any size up to 640x480."""

    def __init__(self, model: mujoco.MjModel, markers: bool = False, cull: bool = True) -> None:
        """`markers`: draw the model's sites (goals, finger tips), which no real camera would see.

        `cull`: leave out the geoms that the camera cannot see. The pictures are the same, and take less time.
        """
        self.model = model
        self._culling = FrustumCulling(model) if cull else None
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0  # else a shadow map of 64 MB is kept, though not drawn
        self._scene = mujoco.MjvScene(model, maxgeom=2000)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = 0
        self._option = mujoco.MjvOption()
        if not markers:
            self._option.sitegroup[:] = 0
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED

    def camera_names(self) -> list[str]:
        return [self.model.camera(i).name for i in range(self.model.ncam)]

    def focal_length_px(self, camera: str, height_px: int) -> float:
        """Focal length of both axes: MuJoCo draws an ideal pinhole with square pixels."""
        fovy_rad = np.deg2rad(self.model.camera(camera).fovy[0])
        return float(0.5 * height_px / np.tan(0.5 * fovy_rad))

    def render(self, data: mujoco.MjData, camera: str, width_px: int, height_px: int) -> NDArray[np.uint8]:
        """One picture, uint8 (height_px, width_px, 3), RGB, first row on top. KeyError names unknown cameras."""
        if not (0 < width_px <= MAX_WIDTH_PX and 0 < height_px <= MAX_HEIGHT_PX):
            raise RenderingError(
                f"{width_px}x{height_px} px is outside 1x1 to {MAX_WIDTH_PX}x{MAX_HEIGHT_PX}"
            )
        self._camera.fixedcamid = self.model.camera(camera).id
        resources = _shared_context().resources(self, width_px, height_px)
        self._update_scene(data, width_px / height_px)
        viewport = mujoco.MjrRect(0, 0, width_px, height_px)
        mujoco.mjr_render(viewport, self._scene, resources)
        pixels = np.empty((height_px, width_px, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(pixels, None, viewport, resources)
        return np.ascontiguousarray(pixels[::-1])

    def _update_scene(self, data: mujoco.MjData, aspect: float) -> None:
        """The scene of what the camera sees, in the model's order."""
        model, scene, everything = self.model, self._scene, mujoco.mjtCatBit.mjCAT_ALL
        if self._culling is None:
            mujoco.mjv_updateScene(model, data, self._option, None, self._camera, everything, scene)
            return
        mujoco.mjv_updateCamera(model, data, self._camera, scene)
        eye = mujoco.mjv_averageCamera(*scene.camera)
        hidden = self._culling.hidden(data, eye, aspect)
        groups = model.geom_group.copy()
        model.geom_group[hidden] = _NOT_DRAWN
        try:
            mujoco.mjv_updateScene(model, data, self._option, None, self._camera, everything, scene)
        finally:
            model.geom_group[:] = groups

    def close(self) -> None:
        if _context is not None:
            _context.release(self)
