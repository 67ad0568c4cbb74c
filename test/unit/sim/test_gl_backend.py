"""The choice of the GL backend, and one line for each wrong variable of the environment and each missing library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mujoco")

from dp_ros.sim.gl_backend import RenderingError, choose_backend

pytestmark = pytest.mark.sim

ROOT = Path(__file__).parents[3]
STEERING = ("MUJOCO_", "PYOPENGL_", "PYGLFW_", "EGL_", "__EGL_", "LIBGL_", "GALLIUM_", "MESA_")
# In a process of its own: which libraries there are is decided once per process.
DRAW = """
import ctypes, json, os, sys
missing, load = json.loads(sys.argv[1]), ctypes.CDLL

def loader(name, *args, **options):
    if name and any(part in str(name) for part in missing):
        raise OSError(name)
    return load(name, *args, **options)

ctypes.CDLL = loader
from dp_ros.errors import message_of
before = dict(os.environ)
try:
    from dp_ros.sim.arm import ArmSpec, make_arm
    picture = make_arm(ArmSpec("tiny-push", ("gripperPOV",))).reset(0).images["gripperPOV"]
    assert picture.std() > 10
    assert os.environ == before
    print("drawn")
except Exception as error:
    if message_of(error) is None:
        raise
    print(message_of(error))
"""


@pytest.fixture(scope="module")
def has_egl() -> None:
    """EGL with one device, as on a machine without a GPU."""
    try:
        if choose_backend() != "egl":
            pytest.skip("EGL is not installed")
    except RenderingError as error:
        pytest.skip(str(error))


def draw(*missing: str, **settings: str) -> str:
    """What a process says that draws one picture with these variables, without libraries of these names."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(STEERING)}
    done = subprocess.run(
        [sys.executable, "-c", DRAW, json.dumps(missing)],
        cwd=ROOT,
        env=clean | settings,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr  # of an object that was half made
    (line,) = done.stdout.splitlines()
    return line


WITHOUT_SCREEN = "draws only on a screen, and dp_ros draws without one: unset it, or set egl or osmesa"
INSTALL_EGL = "install EGL and OpenGL, e.g. `apt-get install libegl1 libgl1-mesa-dri libopengl0`"


@pytest.mark.usefixtures("has_egl")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"MUJOCO_GL": "egl"},
        {"MUJOCO_GL": " EGL ", "PYOPENGL_PLATFORM": "EGL"},
        {"MUJOCO_GL": "1", "MUJOCO_EGL_DEVICE_ID": " 0"},
        {"MUJOCO_GL": "", "PYOPENGL_PLATFORM": "", "MUJOCO_EGL_DEVICE_ID": ""},
        {"PYGLFW_LIBRARY": "/nowhere"},  # MuJoCo loads it, where it is not told otherwise
    ],
    ids=str,
)
def test_right_settings_draw_and_stay_as_they_are(settings: dict[str, str]) -> None:
    assert draw(**settings) == "drawn"


@pytest.mark.usefixtures("has_egl")
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"MUJOCO_GL": "glfw"}, f"MUJOCO_GL=glfw {WITHOUT_SCREEN}"),
        ({"MUJOCO_GL": "glx", "DISPLAY": ":99"}, f"MUJOCO_GL=glx {WITHOUT_SCREEN}"),
        (
            {"MUJOCO_GL": "cgl"},
            "MUJOCO_GL=cgl is a backend of macOS, not of dp_ros: unset it, or set egl or osmesa",
        ),
        ({"MUJOCO_GL": "wgl"}, "MUJOCO_GL=wgl is a backend of Windows, not of dp_ros: unset it, or set"),
        ({"MUJOCO_GL": "off"}, "MUJOCO_GL=off switches rendering off: unset it, or set egl or osmesa"),
        ({"MUJOCO_GL": "elg"}, "MUJOCO_GL=elg is not a backend: unset it, or set egl or osmesa"),
        ({"PYOPENGL_PLATFORM": "glx"}, f"PYOPENGL_PLATFORM=glx {WITHOUT_SCREEN}"),
        ({"PYOPENGL_PLATFORM": "mesa"}, "PYOPENGL_PLATFORM=mesa is not a backend: unset it, or set"),
        (
            {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "osmesa"},
            "MUJOCO_GL=egl and PYOPENGL_PLATFORM=osmesa disagree: unset PYOPENGL_PLATFORM",
        ),
        ({"MUJOCO_EGL_DEVICE_ID": "99"}, "MUJOCO_EGL_DEVICE_ID=99: EGL has "),
        ({"MUJOCO_EGL_DEVICE_ID": "-1"}, "MUJOCO_EGL_DEVICE_ID=-1: EGL has "),
        ({"MUJOCO_EGL_DEVICE_ID": "cuda:0"}, "MUJOCO_EGL_DEVICE_ID=cuda:0 is not a whole number: give "),
        ({"MUJOCO_EGL_DEVICE_ID": "0.5", "MUJOCO_GL": "egl"}, "MUJOCO_EGL_DEVICE_ID=0.5 is not a whole"),
        (
            {"MUJOCO_GL": "egl", "__EGL_VENDOR_LIBRARY_FILENAMES": "/no"},
            "MUJOCO_GL=egl: EGL finds no device: unset __EGL_VENDOR_LIBRARY_FILENAMES=/no, or install EGL",
        ),
        ({"PYOPENGL_ERROR_CHECKING": "0"}, "unset PYOPENGL_ERROR_CHECKING=0, or install EGL"),
        ({"PYOPENGL_ERROR_ON_COPY": "1"}, "unset PYOPENGL_ERROR_ON_COPY=1, or install EGL"),
        ({"PYOPENGL_CONTEXT_CHECKING": "1"}, "unset PYOPENGL_CONTEXT_CHECKING=1, or install EGL"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_wrong_setting_is_named_with_its_value_and_what_to_do(settings: dict[str, str], says: str) -> None:
    assert says in draw("OSMesa", **settings)


@pytest.mark.usefixtures("has_egl")
def test_setting_that_only_the_driver_refuses_is_named() -> None:
    """Mesa's software renderer reads it; the driver of a GPU does not."""
    said = draw("OSMesa", MESA_GL_VERSION_OVERRIDE="1.0")
    assert said == "drawn" or "unset MESA_GL_VERSION_OVERRIDE=1.0, or install" in said


@pytest.mark.parametrize(
    ("missing", "settings", "says"),
    [
        (
            ("EGL", "OSMesa"),
            {},
            "neither EGL nor OSMesa works here: install EGL and OpenGL (or ",
        ),
        (
            ("EGL", "OSMesa"),
            {"MUJOCO_GL": "egl"},
            f"MUJOCO_GL=egl: libEGL is not installed: {INSTALL_EGL}",
        ),
        (
            ("libOpenGL", "libGL.", "OSMesa"),
            {"MUJOCO_GL": "egl"},
            f"MUJOCO_GL=egl: libOpenGL is not installed: {INSTALL_EGL}",
        ),
        (
            ("EGL", "OSMesa"),
            {"MUJOCO_GL": "osmesa"},
            "MUJOCO_GL=osmesa: libOSMesa is not installed: install libosmesa6, e.g. `apt-get install libosmesa6`",
        ),
    ],
    ids=["neither", "egl", "opengl", "osmesa"],
)
def test_missing_library_is_named_with_its_package(
    missing: tuple[str, ...], settings: dict[str, str], says: str
) -> None:
    assert draw(*missing, **settings).startswith(says)


@pytest.mark.usefixtures("has_egl")
@pytest.mark.parametrize("variable", ["MUJOCO_GL", "PYOPENGL_PLATFORM"])
def test_variable_that_names_what_is_not_installed_is_to_be_unset(variable: str) -> None:
    assert draw("OSMesa", **{variable: "osmesa"}).startswith(
        f"{variable}=osmesa: libOSMesa is not installed: unset {variable} to draw with EGL, or install libosmesa6"
    )


# Whether OSMesa is installed here or not.
CHOOSE = """
import ctypes, os, sys
from dp_ros.sim import gl_backend

class Library:
    def __init__(self, name):
        if "EGL" in name:
            raise OSError(name)

ctypes.CDLL = Library
print(gl_backend.choose_backend())
os.environ["MUJOCO_EGL_DEVICE_ID"] = "99"  # only EGL reads it
for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
    os.environ[name] = "OSMesa"
    print(gl_backend.choose_backend())
del os.environ["PYOPENGL_PLATFORM"]
os.environ["MUJOCO_GL"] = "egl"
try:
    gl_backend.choose_backend()
except gl_backend.RenderingError as error:
    print(error)
"""


def test_osmesa_draws_where_there_is_no_egl() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(STEERING)}
    done = subprocess.run(
        [sys.executable, "-c", CHOOSE], cwd=ROOT, env=clean, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    *chosen, refused = done.stdout.splitlines()
    assert chosen == ["osmesa"] * 3
    assert refused.startswith(
        "MUJOCO_GL=egl: libEGL is not installed: unset MUJOCO_GL to draw with OSMesa, or install"
    )
    assert done.stderr == "dp_ros: libEGL is not installed; drawing with OSMesa, which is slower\n"
