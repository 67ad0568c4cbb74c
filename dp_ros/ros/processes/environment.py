"""Environment of our nodes' processes, and the check that ROS is installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from dp_ros.errors import UserError
from dp_ros.resources import share_file
from dp_ros.schema import ConfigError

# Fast DDS 2 (Humble to Jazzy) reads only the first. Fast DDS 3 (Kilted and newer) reads the second, and warns of the
# first in the log of every node.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
# A user who has set one of these has chosen the transports.
TRANSPORT_CHOICES = (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")
# Process of the session that started a node. A node ends when its parent is another: the session was killed.
SESSION_VARIABLE = "DP_ROS_SESSION_PID"


class RosMissingError(UserError):
    """rclpy cannot be imported; one line that says how to install it."""


def require_ros() -> None:
    """Raise RosMissingError unless rclpy imports."""
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        reason = str(error).strip().split("\n")[0]  # rclpy appends advice on further lines
        raise RosMissingError(
            "ROS 2 was not found: source /opt/ros/<distro>/setup.bash "
            f"or pip install 'dp_ros[ros]' ({reason})"
        ) from error


def is_orphan() -> bool:
    """Whether the session that started this process is gone."""
    session = os.environ.get(SESSION_VARIABLE)
    return session is not None and os.getppid() != int(session)


def enclave_path(namespace: str, name: str) -> str:
    """Path in an SROS 2 keystore of the keys of a node in a ROS namespace."""
    return "/".join(part for part in ("/dp_ros", namespace.strip("/"), name) if part)


def take_standard_output() -> TextIO:
    """This process's standard output, for its answers alone: what libraries print goes to standard error from now on.

    The middleware prints its warnings, also in the middle of a line.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def use_our_transports() -> None:
    """Give this process the defaults of `node_environment`, before it joins the graph, where nobody chose others."""
    environment = node_environment()
    chosen = (*PROFILE_VARIABLES, "AMENT_PREFIX_PATH", "OMP_WAIT_POLICY")
    os.environ.update({name: environment[name] for name in chosen if name in environment})


def node_environment(domain_id: int | None = None, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a node that is started as a child process: `base` with defaults for what is not set.

    domain_id (0 to 232) replaces ROS_DOMAIN_ID. The defaults keep the graph on this machine and give Fast DDS the
    transports of config/fastdds.xml, which other middlewares ignore. ConfigError for a domain that does not exist.
    """
    environment = dict(base)
    environment["PYTHONUNBUFFERED"] = "1"
    # Idle inference threads must not spin: on a small machine they would slow the cameras and the robot.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if domain_id is not None:
        if not 0 <= domain_id <= 232:
            raise ConfigError(f"ROS_DOMAIN_ID {domain_id} does not exist: choose one from 0 to 232")
        environment["ROS_DOMAIN_ID"] = str(domain_id)
    prefixes = [prefix for prefix in environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    # ROS from wheels has its index in the venv and sets no variable. Last, so that a sourced workspace comes first.
    if sys.prefix not in prefixes and (Path(sys.prefix) / "share" / "ament_index").is_dir():
        prefixes.append(sys.prefix)
        environment["AMENT_PREFIX_PATH"] = os.pathsep.join(prefixes)
    if not any(environment.get(name) for name in TRANSPORT_CHOICES):
        names = PROFILE_VARIABLES[1:] if _has_fast_dds_3(prefixes) else PROFILE_VARIABLES
        environment.update(dict.fromkeys(names, str(share_file("config/fastdds.xml"))))
    return environment


def _has_fast_dds_3(prefixes: Sequence[str]) -> bool:
    """Whether the first prefix with Fast DDS has version 3, whose library has another name than that of version 2."""
    for prefix in prefixes:
        names = [path.name for path in Path(prefix).glob("lib/libfast*.so*")]
        if any(name.startswith(("libfastdds.", "libfastrtps.")) for name in names):
            return any(name.startswith("libfastdds.") for name in names)
    return False
