"""Watch node: the live page and the server for Foxglove. Wiring only."""

from __future__ import annotations

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from dp_ros.ros.node.node_main import run_process
from dp_ros.ros.node.parameters import read_config
from dp_ros.ros.node.scheduling import lower_priority
from dp_ros.ros.watch.foxglove_server import FoxgloveServer
from dp_ros.ros.watch.page import PageServer
from dp_ros.ros.watch.state import WatchState
from dp_ros.ros.watch.topics import WatchedTopics
from dp_ros.schema.base import ConfigError
from dp_ros.schema.watch import WatchConfig

PAGE, FOXGLOVE = "page: ", "foxglove: "  # lines that give an address
_LOOK_S = 1.0


class WatchNode(Node):
    """Viewer that subscribes to the topics that are shown, and publishes nothing."""

    def __init__(self) -> None:
        super().__init__("watch_node")
        self.fatal: str | None = None
        config = read_config(self, WatchConfig)
        if not (config.page or config.foxglove):
            raise ConfigError("page and foxglove are both false: there is nothing to serve")
        self._page: PageServer | None = None
        self._foxglove: FoxgloveServer | None = None
        state = WatchState()
        self._topics = WatchedTopics(self, state, config.cameras)
        if config.foxglove:
            self._foxglove = FoxgloveServer(self, config.foxglove_host, config.foxglove_port)
            print(f"{FOXGLOVE}{self._foxglove.address}", flush=True)
        if config.page:
            self._page = PageServer(state, config.page_port)
            print(f"{PAGE}{self._page.address}", flush=True)
        # Steady, because people look in real time also where stamps are of simulated time.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / config.rate_hz, self._take, clock=steady)
        self.create_timer(_LOOK_S, self._look, clock=steady)

    def _look(self) -> None:
        """Follow the graph, the browsers and the Foxglove clients."""
        if self._foxglove is not None:
            self._foxglove.refresh()
        if self._topics.listens:
            if self._page is None or not self._page.is_watched():
                self._topics.close()
            else:
                self._topics.refresh()

    def _take(self) -> None:
        if self._foxglove is not None:
            self._foxglove.take()
        if self._topics.listens:
            self._topics.take()
        elif self._page is not None and self._page.is_watched():
            self._topics.refresh()

    def close(self) -> None:
        self._topics.close()
        if self._page is not None:
            self._page.close()
        if self._foxglove is not None:
            self._foxglove.close()


def main() -> None:
    lower_priority()
    run_process(WatchNode)


if __name__ == "__main__":
    main()
