"""A recorder beside the policy, whose disk can become full while it records."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from std_msgs.msg import String

from dp_ros.data.bags.reader import BagReader, storage_files
from dp_ros.data.bags.repair import repair
from dp_ros.errors import UserError
from dp_ros.ros.node import qos
from dp_ros.ros.processes.node_process import START_TIMEOUT_S, NodeProcess
from dp_ros.schema import RecorderConfig

MODULE, NAME = "dp_ros.ros.nodes.recorder_node", "recorder_node"
_PREFIX = "faults"


def config_of(folder: Path, cameras: tuple[str, ...]) -> RecorderConfig:
    """Settings under which only a failed write tells that the disk is full."""
    return RecorderConfig(folder=str(folder), prefix=_PREFIX, cameras=cameras, min_free_mb=0.0)


class Recorder:
    """The recorder's process, its commands and its status. For the process, the disk is full from `fill_disk` on."""

    def __init__(
        self,
        process: NodeProcess,
        folder: Path,
        node: Any,
        spin_until: Callable[[Callable[[], bool], float, str], None],
    ) -> None:
        """node: the client's. spin_until: see `NodeGroup`."""
        self.process, self._folder, self._spin_until = process, folder, spin_until
        self._status: dict[str, Any] = {}
        self._node = node
        self._subscription = node.create_subscription(String, "record/status", self._on_status, qos.LATCHED)
        self._command = node.create_publisher(String, "record/command", qos.RELIABLE)

    def _on_status(self, msg: String) -> None:
        self._status = json.loads(msg.data)

    def start(self) -> None:
        """Wait until an episode is recorded. SessionError where none begins."""
        while self._status.get("state") != "recording":
            self._command.publish(String(data="start"))
            self._spin_until(lambda: self._status.get("state") == "recording", 1.0, "")
            self._spin_until(lambda: bool(self._status), START_TIMEOUT_S, "the recorder did not start")
        self._spin_until(lambda: self._size > 0, START_TIMEOUT_S, "the recorder wrote nothing")

    @property
    def _bag(self) -> Path:
        return Path(self._status["bag"])

    @property
    def _size(self) -> int:
        files = storage_files(self._bag) if self._bag.is_dir() else []
        return sum(file.stat().st_size for file in files)

    def fill_disk(self) -> None:
        """No file of the process may grow beyond what the bag has now: its next write fails."""
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (self._size, hard))

    def free_disk(self) -> None:
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (hard, hard))

    @property
    def says(self) -> str:
        """Its report: "problem" where it noticed the full disk, else its state."""
        return "problem" if self._status.get("problem") else str(self._status.get("state"))

    def loss(self) -> str:
        """Why what was written before is lost; empty where the bag, repaired if it must be, can be read whole."""
        try:
            repair(self._bag)
            with BagReader(self._bag) as bag:
                if not sum(1 for _ in bag.messages(bag.info.topics)):
                    return f"{self._bag.name} holds no message"
        except (UserError, OSError) as error:
            return str(error)
        return ""

    def close(self) -> None:
        self._node.destroy_publisher(self._command)
        self._node.destroy_subscription(self._subscription)
