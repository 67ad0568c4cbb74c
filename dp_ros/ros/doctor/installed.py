"""Parts of the ROS installation."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

from dp_ros.doctor.findings import Finding, note, ok, warning
from dp_ros.errors import UserError
from dp_ros.ros.processes.environment import PROFILE_VARIABLES, TRANSPORT_CHOICES, require_ros

_MESSAGES = (
    "sensor_msgs", "geometry_msgs", "std_msgs", "std_srvs", "nav_msgs", "visualization_msgs", "diagnostic_msgs",
    "lifecycle_msgs", "rosgraph_msgs",
)  # fmt: skip
_NEEDED_BY = "demo, collect --via ros and every node need it"
# Package -> (name, purpose, remedy), of what only some commands or people need.
_OPTIONAL = {
    "ros2bag": ("rosbag2", "record.launch.py backend:=rosbag2 needs it", "ros2bag rosbag2-storage-mcap"),
    "cv_bridge": ("cv_bridge", "not needed: OpenCV converts Bayer, YUV and 16-bit pictures", "cv-bridge"),
    "rviz2": ("RViz", "rviz:=true needs it", "rviz2"),
    "tf2_msgs": ("tf2_msgs", "frames and the robot's model in RViz need it", "tf2-msgs"),
    "foxglove_bridge": ("foxglove_bridge", "Foxglove over ROS needs it", "foxglove-bridge"),
}  # fmt: skip


def installed() -> list[Finding]:
    """A warning for what groups of commands lack, notes on the rest."""
    try:
        require_ros()
    except UserError:
        return [_no_ros()]
    import rclpy

    where = Path(rclpy.__file__).parents[4 if "lib" in Path(rclpy.__file__).parts else 1]
    domain = os.environ.get("ROS_DOMAIN_ID") or "0"
    middleware = rclpy.get_rmw_implementation_identifier()
    found = [
        ok("ROS", " ".join(filter(None, (_distro(), f"in {where}, {middleware}, ROS_DOMAIN_ID {domain}"))))
    ]
    if missing := [
        name
        for name in _MESSAGES
        if find_spec(f"{name}.msg" if name != "std_srvs" else "std_srvs.srv") is None
    ]:
        found.append(_lacking("ROS messages", ", ".join(missing), _NEEDED_BY, " ".join(missing)))
    found.append(_launch())
    found += [
        ok(name, "installed") if has_package(package) else _missing(name, purpose, packages)
        for package, (name, purpose, packages) in _OPTIONAL.items()
    ]
    if "fastrtps" in middleware and not any(os.environ.get(name) for name in TRANSPORT_CHOICES):
        found.append(
            note(
                "Fast DDS",
                "drivers started by hand lose large pictures (640x480 and more) with its default transports",
                f"start them with {' and '.join(PROFILE_VARIABLES)} set to config/fastdds.xml",
            )
        )
    return found


def _distro() -> str:
    """Name of the distribution, sourced or of the wheels; empty where neither tells."""
    if sourced := os.environ.get("ROS_DISTRO"):
        return sourced
    found = (each.name.split("-") for each in distributions() if each.name and each.name.endswith("-rclpy"))
    return next((parts[1] for parts in found if parts[0] == "ros" and len(parts) == 3), "")


def has_package(name: str) -> bool:
    """Whether a ROS package is installed in a prefix of AMENT_PREFIX_PATH or in this environment, or is a program."""
    return any((prefix / "share" / name / "package.xml").is_file() for prefix in _prefixes()) or bool(
        shutil.which(name)
    )


def _prefixes() -> Iterator[Path]:
    yield from (Path(each) for each in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if each)
    yield Path(sys.prefix)


def _no_ros() -> Finding:
    distro = os.environ.get("ROS_DISTRO", "")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if distro and Path(f"/opt/ros/{distro}").is_dir():
        return warning(
            "ROS",
            f"{distro} is sourced, and its rclpy does not load in this Python {python}; {_NEEDED_BY}",
            "make the environment with the system's Python: python3 -m venv --system-site-packages",
        )
    return warning(
        "ROS", f"not found; {_NEEDED_BY}",
        "source /opt/ros/<distro>/setup.bash, or pip install 'dp_ros[ros]'",
    )  # fmt: skip


def _launch() -> Finding:
    # A folder called launch in the working directory would be found as an empty package.
    missing = [name for name in ("launch.actions", "launch_ros.actions") if not _importable(name)]
    if missing:
        names = " and ".join(name.partition(".")[0] for name in missing)
        return _lacking(
            "ros2 launch", names, "the launch files need it; `dp_ros demo` does not", "ros2launch"
        )
    if not has_package("dp_ros"):
        return warning("ros2 launch", "does not find dp_ros", "colcon build, and source install/setup.bash")
    return ok("ros2 launch", "finds dp_ros")


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _lacking(name: str, missing: str, needed: str, packages: str) -> Finding:
    return warning(name, f"{missing} not installed; {needed}", _apt(packages))


def _missing(name: str, purpose: str, packages: str) -> Finding:
    return note(name, f"not installed; {purpose}", _apt(packages))


def _apt(packages: str) -> str:
    names = " ".join(f"ros-$ROS_DISTRO-{name.replace('_', '-')}" for name in packages.split())
    return f"apt install {names}"
