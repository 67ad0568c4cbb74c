"""Offscreen pictures from MuJoCo, without shadows, reflections and multisampling, which cost much of the time.

One GL context serves all models, cameras and sizes of the process; it is closed once, at exit. EGL is used where it
works, else OSMesa; MUJOCO_GL overrides the choice.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from dp_ros.errors import UserError

MAX_WIDTH_PX, MAX_HEIGHT_PX = 640, 480
_INSTALL = (
    "install libegl1 and libgl1-mesa-dri (or libosmesa6), e.g. `apt-get install libegl1 libgl1-mesa-dri`"
)


class RenderingError(UserError):
    """No picture can be drawn; the message is one line that says what to install or change."""


def choose_backend() -> str:
    """ "egl" or "osmesa": MUJOCO_GL where it is set, else the first one that works on this machine."""
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    if wanted in ("egl", "osmesa"):
        return wanted
    if wanted:
        raise RenderingError(
            f"MUJOCO_GL={wanted} cannot draw without a screen: unset it, or set egl or osmesa"
        )
    if _egl_has_a_device():
        return "egl"
    if _loads("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"):
        print("dp_ros: no working EGL device; drawing with OSMesa, which is slower", file=sys.stderr)
        return "osmesa"
    raise RenderingError(f"neither EGL nor OSMesa works here: {_INSTALL}")


def _loads(*names: str) -> ctypes.CDLL | None:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _egl_has_a_device() -> bool:
    """Ask EGL through ctypes: once PyOpenGL has tried one platform in a process, it cannot try the other."""
    egl = _loads("libEGL.so.1", "libEGL.so")
    if egl is None:
        return False
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    query = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    if not query:
        return False
    count = ctypes.c_int(0)
    query_devices = ctypes.CFUNCTYPE(
        ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)
    )(query)
    return bool(query_devices(0, None, ctypes.byref(count))) and count.value > 0


class _Context:
    """The GL context of the process; a model's textures and meshes are uploaded when it is first drawn."""

    def __init__(self) -> None:
        backend = choose_backend()
        try:
            if backend == "egl":
                from mujoco.egl import GLContext
            else:
                from mujoco.osmesa import GLContext
            self.gl: Any = GLContext(MAX_WIDTH_PX, MAX_HEIGHT_PX)
        except Exception as error:  # PyOpenGL and the drivers raise many kinds
            raise RenderingError(
                f"{backend} cannot start ({str(error).splitlines()[0]}): {_INSTALL}"
            ) from error
        self.gl.make_current()
        self._owner: Renderer | None = None
        self._mjr: mujoco.MjrContext | None = None
        atexit.register(self.close)

    def resources(self, owner: Renderer) -> mujoco.MjrContext:
        """GPU resources of the owner's model, uploaded when another model was drawn last."""
        if self._owner is not owner or self._mjr is None:
            self.release(self._owner)
            self._mjr = mujoco.MjrContext(owner.model, mujoco.mjtFontScale.mjFONTSCALE_50)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._mjr)
            self._owner = owner
        return self._mjr

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

    def __init__(self, model: mujoco.MjModel, markers: bool = False) -> None:
        """`markers`: draw the model's sites (goals, finger tips), which no real camera would see."""
        self.model = model
        model.vis.quality.offsamples = 0
        model.vis.global_.offwidth = MAX_WIDTH_PX
        model.vis.global_.offheight = MAX_HEIGHT_PX
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
        resources = _shared_context().resources(self)
        mujoco.mjv_updateScene(
            self.model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        viewport = mujoco.MjrRect(0, 0, width_px, height_px)
        mujoco.mjr_render(viewport, self._scene, resources)
        pixels = np.empty((height_px, width_px, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(pixels, None, viewport, resources)
        return np.ascontiguousarray(pixels[::-1])

    def close(self) -> None:
        if _context is not None:
            _context.release(self)
