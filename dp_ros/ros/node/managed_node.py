"""What our lifecycle nodes share: how they stop, and that they give back all they made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from dp_ros.ros.node.diagnostics import Diagnostics

_ARRIVES_S = 0.25


class ManagedNode(LifecycleNode):
    """`on_configure` makes things with `add_...`, `on_activate` starts; `stop` and `release` undo the two.

    Deactivation stops, clean-up releases, shutdown and `close` do both; each may come twice.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.fatal: str | None = None  # why the process must end; see `run_node`
        self._made: list[tuple[Callable[[Any], object], Any]] = []

    def add_publisher(self, kind: type, topic: str, profile: Any) -> Any:
        return self._keep(self.destroy_publisher, self.create_publisher(kind, topic, profile))

    def add_subscription(self, kind: type, topic: str, callback: Callable[..., None], profile: Any) -> Any:
        return self._keep(self.destroy_subscription, self.create_subscription(kind, topic, callback, profile))

    def add_service(self, kind: type, name: str, callback: Callable[[Any, Any], Any]) -> Any:
        return self._keep(self.destroy_service, self.create_service(kind, name, callback))

    def add_guard_condition(self, callback: Callable[[], None]) -> Any:
        return self._keep(self.destroy_guard_condition, self.create_guard_condition(callback))

    def add_diagnostics(self, status: Callable[[], tuple[bytes, str, Mapping[str, str]]]) -> None:
        self._keep(lambda diagnostics: diagnostics.destroy(), Diagnostics(self, status))

    def _keep(self, destroy: Callable[[Any], object], made: Any) -> Any:
        self._made.append((destroy, made))
        return made

    def stop(self) -> None:
        """Undo what activation did."""

    def release(self) -> None:
        """Undo what configuration did."""
        while self._made:
            destroy, made = self._made.pop()
            destroy(made)

    def close(self) -> None:
        self.stop()
        self.release()

    def wait_until_acked(self, *publishers: Any) -> None:
        """What is still under way when its writer disappears may never arrive."""
        for publisher in publishers:
            publisher.wait_for_all_acked(Duration(seconds=_ARRIVES_S))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.close()
        return TransitionCallbackReturn.SUCCESS
