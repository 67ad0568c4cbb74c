"""Parts of the installation: those that every command needs, the simulator, engines, GPU and options. Without ROS."""

from __future__ import annotations

import sys
from importlib import metadata
from importlib.util import find_spec

from dp_ros.doctor.drawing import rendering
from dp_ros.doctor.findings import Finding, error, note, ok, warning
from dp_ros.errors import UserError
from dp_ros.inference.hardware import has_bf16, has_gpu, has_gpu_driver
from dp_ros.resources import share_dir

_PYTHONS = ((3, 11), (3, 13))
# Module -> distribution, of what convert, train, inspect, limits and view need.
_BASIC = {
    "torch": "torch", "numpy": "numpy", "cv2": "opencv-python-headless",
    "pydantic": "pydantic", "safetensors": "safetensors", "zarr": "zarr", "rosbags": "rosbags", "mcap": "mcap",
    "accelerate": "accelerate", "joblib": "joblib", "av": "av", "matplotlib": "matplotlib", "jinja2": "jinja2",
    "scipy": "scipy",
}  # fmt: skip
# Module -> (name, what needs it, how to install it), of what some commands need.
_OPTIONS = {
    "pyarrow": ("LeRobot datasets", "export and import need pyarrow", "pip install 'dp_ros[lerobot]'"),
    "onnx": ("ONNX", "export-model --format onnx needs it", "pip install 'dp_ros[onnx]'"),
    "distributed": ("Dask", "--cluster dask:... needs it", "pip install 'dp_ros[dask]'"),
    "ray": ("Ray", "--cluster ray:... needs it", "pip install 'dp_ros[ray]'"),
    "foxglove": (
        "foxglove-sdk",
        "foxglove:=true and demo --watch for Foxglove need it",
        "pip install 'dp_ros[watch]'",
    ),
}


def installed() -> list[Finding]:
    """An error for what the basic commands lack, a warning for what groups of commands lack."""
    return [*_basics(), _gpu(), _openvino(), *_simulation(), *_options()]


def _basics() -> list[Finding]:
    found = []
    python = ".".join(map(str, sys.version_info[:3]))
    if _PYTHONS[0] <= sys.version_info[:2] <= _PYTHONS[1]:
        found.append(ok("Python", python))
    else:
        found.append(
            error("Python", f"{python} is not supported", "make the environment with Python 3.11 to 3.13")
        )
    if missing := [distribution for module, distribution in _BASIC.items() if not _is_there(module)]:
        found.append(
            error("packages", f"{', '.join(missing)} not installed", f"pip install {' '.join(missing)}")
        )
    else:
        found.append(ok("packages", f"torch {_version('torch')}, zarr {_version('zarr')} and the others"))
    try:
        found.append(ok("share folder", str(share_dir())))
    except UserError as missing_share:
        what, _, remedy = str(missing_share).rpartition(": ")
        found.append(error("share folder", what, remedy))
    return found


def _gpu() -> Finding:
    if not has_gpu_driver():
        return note("GPU", "none: training and plans run on the CPU")
    if not _is_there("torch") or not has_gpu():
        return warning(
            "GPU",
            f"there is one, and torch {_version('torch')} cannot use it",
            "install torch for its CUDA or ROCm (pytorch.org), and check `nvidia-smi`",
        )
    import torch

    return ok("GPU", torch.cuda.get_device_name())


def _openvino() -> Finding:
    if not _is_there("openvino"):
        return note("engine OpenVINO", "not installed: plans on the CPU take longer", "pip install openvino")
    precision = "bf16" if has_bf16() else "f32; this processor multiplies no bf16"
    return ok("engine OpenVINO", f"{_version('openvino')}, {precision}")


def _simulation() -> list[Finding]:
    missing = [name for name in ("mujoco", "metaworld") if not _is_there(name)]
    if missing:
        return [
            warning(
                "simulator",
                f"{' and '.join(missing)} not installed; collect, eval and demo need it",
                "pip install 'dp_ros[sim]'",
            )
        ]
    return [ok("simulator", f"mujoco {_version('mujoco')}, metaworld {_version('metaworld')}"), rendering()]


def _options() -> list[Finding]:
    return [
        ok(name, _version(module)) if _is_there(module) else note(name, f"not installed; {needed}", remedy)
        for module, (name, needed, remedy) in _OPTIONS.items()
    ]


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # blocked, or half removed
        return False


def _version(module: str) -> str:
    name = {"foxglove": "foxglove-sdk"}.get(module, module)
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "of unknown version"
