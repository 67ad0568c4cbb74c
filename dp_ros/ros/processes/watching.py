"""The live view beside a session: a process of its own, and the addresses that it serves."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dp_ros.ros.nodes.watch_node import FOXGLOVE, PAGE
from dp_ros.ros.processes.environment import node_environment
from dp_ros.ros.processes.node_process import START_TIMEOUT_S, NodeProcess, SessionError, parameters_yaml
from dp_ros.ros.watch.foxglove_server import MISSING, has_foxglove
from dp_ros.schema.watch import WatchConfig


@contextmanager
def watching(domain_id: int | None = None) -> Iterator[list[str]]:
    """Serve the page, and the topics to Foxglove where foxglove-sdk is installed; yields one line for each.

    SessionError where the process does not start. Its end does not disturb a session.
    """
    config = WatchConfig(foxglove=has_foxglove())
    with tempfile.TemporaryDirectory(prefix="dp_ros-watch-") as folder:
        process = NodeProcess(
            "dp_ros.ros.nodes.watch_node",
            "watch_node",
            parameters_yaml("/**/watch_node", config),
            Path(folder),
            node_environment(domain_id),
        )
        try:
            lines = _addresses(process, config)
            yield lines if config.foxglove else [*lines, f"{FOXGLOVE}not served: {MISSING}"]
        finally:
            process.stop()


def _addresses(process: NodeProcess, config: WatchConfig) -> list[str]:
    wanted = [PAGE, FOXGLOVE] if config.foxglove else [PAGE]
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        lines = process.log.splitlines()
        found = [line for start in wanted for line in lines if line.startswith(start)]
        if len(found) == len(wanted):
            return found
        process.check()
        if time.monotonic() > deadline_s:
            raise SessionError(
                f"the live view did not start within {START_TIMEOUT_S:g} s: {process.last_line}"
            )
        time.sleep(0.05)
