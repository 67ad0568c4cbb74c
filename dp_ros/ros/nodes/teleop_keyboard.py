"""Keyboard node: keys of this terminal as a gamepad's Joy messages. Wiring only."""

from __future__ import annotations

import shutil
import time

from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import Joy
from std_msgs.msg import String

from dp_ros.control.teleop.keyboard import KEY_MAP, Keyboard
from dp_ros.ros.node import qos
from dp_ros.ros.node.node_main import run_process
from dp_ros.ros.node.parameters import read_config
from dp_ros.ros.nodes.terminal import Terminal, TerminalError
from dp_ros.schema import KeyboardConfig

_RELEASE_ARRIVES_S = 0.25
_VERDICT_AGE_S = 1.0
_CLEAR_LINE = "\r\x1b[K"


class TeleopKeyboard(Node):
    """Terminal in, `joy` out. Shows the pressed keys and the newest `teleop/verdict`."""

    def __init__(self) -> None:
        super().__init__("teleop_keyboard")
        self.fatal: str | None = None
        self._keyboard = Keyboard(config := read_config(self, KeyboardConfig))
        self._publisher = self.create_publisher(Joy, "joy", qos.RELIABLE)
        self.create_subscription(String, "teleop/verdict", self._on_verdict, qos.RELIABLE)
        self._verdict, self._verdict_s = "", 0.0
        self._line = ""
        self._terminal: Terminal | None = None
        # Steady, because a person presses keys in real time also where stamps are of simulated time.
        self.create_timer(1.0 / config.rate_hz, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._terminal = Terminal()  # last, because `close` must be called after it
        print(f"{KEY_MAP}\n", flush=True)

    def close(self) -> None:
        """Restore the terminal and publish the release of all keys."""
        if self._terminal is None:
            return
        self._terminal.restore()
        self._terminal = None
        print(flush=True)
        self._keyboard.read(" ", time.monotonic())
        self._publish(time.monotonic())
        self._publisher.wait_for_all_acked(Duration(seconds=_RELEASE_ARRIVES_S))

    def _tick(self) -> None:
        if self._terminal is None or self.fatal:
            return
        now_s = time.monotonic()
        try:
            self._keyboard.read(self._terminal.read(), now_s)
        except TerminalError as error:
            self.fatal = str(error)
            return
        self._publish(now_s)
        self._show(now_s)

    def _publish(self, now_s: float) -> None:
        axes, buttons = self._keyboard.joy(now_s)
        msg = Joy(axes=axes, buttons=buttons)
        msg.header.stamp = self.get_clock().now().to_msg()
        self._publisher.publish(msg)

    def _on_verdict(self, msg: String) -> None:
        self._verdict, self._verdict_s = msg.data, time.monotonic()

    def _show(self, now_s: float) -> None:
        """Rewrite the status line when it changes."""
        arm = self._verdict if now_s - self._verdict_s < _VERDICT_AGE_S else "no teleop_node"
        line = f"  {self._keyboard.describe(now_s)} {arm}"[: shutil.get_terminal_size().columns - 1]
        if line != self._line:
            print(f"{_CLEAR_LINE}{line}", end="", flush=True)
            self._line = line


def main() -> None:
    run_process(TeleopKeyboard)


if __name__ == "__main__":
    main()
