"""GL backend of the renderer: the choice of EGL or OSMesa, and its start.

MuJoCo and PyOpenGL read variables of the environment, and fail obscurely where one is wrong. They are checked here,
before either library reads them. A RenderingError is one line: the variable and its value, or the missing library, and
what to do.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dp_ros.errors import UserError

GL, PLATFORM, DEVICE = "MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID"
BACKENDS = ("egl", "osmesa")
_TITLE = {"egl": "EGL", "osmesa": "OSMesa"}
_LIBRARIES = {
    "egl": ("libEGL.so.1", "libEGL.so"),
    "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),
}
_OPENGL = (
    "libOpenGL.so.0",
    "libOpenGL.so",
    "libGL.so.1",
    "libGL.so",
)  # PyOpenGL draws with it where EGL starts
_INSTALL = {
    "egl": "install EGL and OpenGL, e.g. `apt-get install libegl1 libgl1-mesa-dri libopengl0`",
    "osmesa": "install libosmesa6, e.g. `apt-get install libosmesa6`",
}
_ON, _OFF = ("enable", "enabled", "on", "true", "1"), ("disable", "disabled", "off", "false", "0")
_NEEDS_SCREEN = ("glfw", "glx", "x11", "xwayland", "wayland", "linux", "linux2", "posix")
_OF_OTHER_SYSTEMS = {"cgl": "macOS", "darwin": "macOS", "wgl": "Windows", "nt": "Windows", "win32": "Windows"}
_MAX_DEVICES = 10  # MuJoCo asks EGL for no more
# Variables of PyOpenGL, of Mesa and of the dispatcher of EGL that can keep a backend from starting.
_STEERING = ("PYOPENGL_", "EGL_", "__EGL_", "LIBGL_", "GALLIUM_", "MESA_", "NVIDIA_DRIVER_")


class RenderingError(UserError):
    """No picture can be drawn; the message is one line that says what to install or change."""


def choose_backend() -> str:
    """ "egl" or "osmesa": the one that MUJOCO_GL or PYOPENGL_PLATFORM names, else the first that works here."""
    wanted, variable = _wanted()
    if wanted:
        _check_named(wanted, variable)
    elif not (why := _lacks("egl")):
        wanted = "egl"
    elif not _lacks("osmesa"):
        print(f"dp_ros: {why}; drawing with OSMesa, which is slower", file=sys.stderr)
        wanted = "osmesa"
    else:
        raise RenderingError(
            f"neither EGL nor OSMesa works here: {_unset('egl')}"
            "install EGL and OpenGL (or OSMesa), e.g. `apt-get install libegl1 libgl1-mesa-dri libopengl0`"
        )
    if wanted == "egl":
        _check_device()
    return wanted


def start_context(backend: str, width_px: int, height_px: int) -> Any:
    """MuJoCo's GLContext of the chosen backend, for pictures up to that size, made current. RenderingError."""
    settings = {PLATFORM: backend, DEVICE: os.environ.get(DEVICE, "").strip() or None}
    with started(backend), _environment(settings):
        if backend == "egl":
            from mujoco.egl import GLContext
        else:
            from mujoco.osmesa import GLContext
        GLContext._context = None  # its __del__ reads it also where __init__ failed
        context: Any = GLContext(width_px, height_px)
        context.make_current()
    return context


@contextmanager
def started(backend: str) -> Iterator[None]:
    """Turn what the libraries raise while `backend` starts into a RenderingError that names the variables set."""
    try:
        yield
    except RenderingError:
        raise
    except Exception as error:  # PyOpenGL, MuJoCo and the drivers raise many kinds
        more = (DEVICE,) if backend == "egl" else (GL, PLATFORM)
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise RenderingError(
            f"{_TITLE[backend]} cannot start ({why}): {_unset(backend, *more)}{_INSTALL[backend]}"
        ) from error


def _wanted() -> tuple[str, str]:
    """(backend, the variable that names it), both empty where none does. RenderingError for a wrong value."""
    named = {variable: os.environ.get(variable, "").strip().lower() for variable in (GL, PLATFORM)}
    if named[GL] in _ON:  # the choice is left to the program
        named[GL] = ""
    for variable, value in named.items():
        if value and value not in BACKENDS:
            raise RenderingError(
                f"{_shown(variable)} {_fault(variable, value)}: unset it, or set egl or osmesa"
            )
    if all(named.values()) and named[GL] != named[PLATFORM]:
        raise RenderingError(f"{_shown(GL)} and {_shown(PLATFORM)} disagree: unset {PLATFORM}")
    variable = next((variable for variable, value in named.items() if value), "")
    return named.get(variable, ""), variable


def _fault(variable: str, value: str) -> str:
    if variable == GL and value in _OFF:
        return "switches rendering off"
    if value in _NEEDS_SCREEN:
        return "draws only on a screen, and dp_ros draws without one"
    if value in _OF_OTHER_SYSTEMS:
        return f"is a backend of {_OF_OTHER_SYSTEMS[value]}, not of dp_ros"
    return "is not a backend"


def _check_named(backend: str, variable: str) -> None:
    why = _lacks(backend)
    if not why:
        return
    (other,) = set(BACKENDS) - {backend}
    instead = "" if _lacks(other) else f"unset {variable} to draw with {_TITLE[other]}, or "
    raise RenderingError(f"{_shown(variable)}: {why}: {instead}{_unset(backend)}{_INSTALL[backend]}")


def _check_device() -> None:
    """RenderingError where MUJOCO_EGL_DEVICE_ID is not the number of one of EGL's devices."""
    text = os.environ.get(DEVICE, "").strip()
    if not text:
        return
    count = _egl_devices()
    remedy = f"give {'0' if count == 1 else f'a number from 0 to {count - 1}'}, or unset it"
    try:
        number = int(text)
    except ValueError:
        raise RenderingError(f"{_shown(DEVICE)} is not a whole number: {remedy}") from None
    if not 0 <= number < count:
        raise RenderingError(
            f"{_shown(DEVICE)}: EGL has {count} device{'' if count == 1 else 's'} here: {remedy}"
        )


def _lacks(backend: str) -> str:
    """Message about what this machine lacks for `backend`; empty where nothing is known to be missing."""
    if _load(backend) is None:
        return f"lib{_TITLE[backend]} is not installed"
    if backend == "egl" and _loaded(_OPENGL) is None:
        return "libOpenGL is not installed"
    return "EGL finds no device" if backend == "egl" and not _egl_devices() else ""


def _load(backend: str) -> ctypes.CDLL | None:
    return _loaded(_LIBRARIES[backend])


def _loaded(names: Iterable[str]) -> ctypes.CDLL | None:
    """The first of these libraries that is here."""
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _egl_devices() -> int:
    """Number of EGL's devices, asked through ctypes: a process in which PyOpenGL tried one platform keeps it."""
    egl = _load("egl")
    if egl is None:
        return 0
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    query = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    if not query:
        return 0
    count = ctypes.c_int(0)
    query_devices = ctypes.CFUNCTYPE(
        ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)
    )(query)
    return min(count.value, _MAX_DEVICES) if query_devices(0, None, ctypes.byref(count)) else 0


def _shown(variable: str) -> str:
    return f"{variable}={os.environ.get(variable, '')}"


def _unset(backend: str, *more: str) -> str:
    """ "unset X=1, or " for the variables that are set and can keep `backend` from starting; else empty."""
    if _load(backend) is None:
        return ""
    named = [name for name in sorted(os.environ) if name.startswith(_STEERING) and name != PLATFORM]
    shown = [_shown(name) for name in (*more, *named) if os.environ.get(name)]
    return f"unset {', '.join(shown)}, or " if shown else ""


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """These variables in the environment, without those that are None. What was there before returns."""
    before = {name: os.environ.get(name) for name in values}
    try:
        _put(values)
        yield
    finally:
        _put(before)


def _put(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
