"""Parameters of a node from a ROS parameter file, read as ROS reads them, without ROS."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dp_ros.documents import parse_yaml, read_text
from dp_ros.schema.base import ConfigError, leaves

PARAMETERS = "ros__parameters"


def read_params_file(path: str | Path) -> Any:
    """Content of the YAML file. ConfigError where it cannot be read."""
    try:
        return parse_yaml(read_text(path))
    except OSError as error:
        raise ConfigError(f"params_file {path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(f"params_file {path}: is not YAML ({error})") from None


def node_parameters(path: str | Path, node: str) -> dict[str, Any]:
    """Dotted name -> value, of the node ("/arm/policy_node"). Later entries of the file replace earlier ones.

    ConfigError where the file has no parameters for it: ROS would ignore that.
    """
    content = read_params_file(path)
    names = list(node_names(content))
    if not any(matches(name, node) for name in names):
        others = f", only for {', '.join(names)}" if names else ""
        raise ConfigError(
            f"params_file {path}: has no parameters for {node}{others}: "
            f"begin it with '/**/{node.rpartition('/')[2]}:' and '{PARAMETERS}:'"
        )
    found: dict[str, Any] = {}
    for name, parameters in _entries(content, ""):
        if matches(name, node) and isinstance(parameters, Mapping):
            found |= dict(leaves(parameters))
    return found


def limits_of(path: str | Path) -> dict[str, Any]:
    """ "gate.max_speed_m_s" -> value, of all limits of the policy node. ConfigError as `node_parameters`."""
    given = node_parameters(path, "/policy_node")
    return {name: value for name, value in given.items() if name.startswith("gate.")}


def node_names(content: Any) -> Iterable[str]:
    """The node names of a file's content; they may be nested by namespace."""
    return (name for name, _ in _entries(content, ""))


def matches(pattern: str, node: str) -> bool:
    """Whether `pattern` of a parameter file means `node`; ** is any number of tokens and * is one token."""
    tokens = {"**": "(/[^/]+)*", "*": "/[^/]+"}
    parts = pattern.removeprefix("/").split("/")
    return re.fullmatch("".join(tokens.get(part, "/" + re.escape(part)) for part in parts), node) is not None


def _entries(content: Any, prefix: str) -> Iterable[tuple[str, Any]]:
    if isinstance(content, Mapping):
        for key, child in content.items():
            if key == PARAMETERS:
                yield prefix, child
            else:
                yield from _entries(child, f"{prefix}/{str(key).strip('/')}")
