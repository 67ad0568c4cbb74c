"""The policy node with an engine that moves the arm on a circle, and with faults of its engine and of its clock.

Everything but the numbers of the plans is the node's own: it loads the checkpoint, and computes each plan before it is
replaced.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from std_msgs.msg import String

from dp_ros.control.planner import Pictures, PlanRequest
from dp_ros.inference.engine import Engine
from dp_ros.ros.node import qos
from dp_ros.ros.node.node_main import run_process
from dp_ros.ros.nodes.policy_node import PolicyNode
from dp_ros.schema import PolicyConfig, RuntimeConfig

CENTRE_M, RADIUS_M, SPEED_M_S = np.array([0.0, 0.6, 0.2]), 0.08, 0.12
ENGINE_FAULTS = ("slow-inference", "nan-output", "engine-crash", "out-of-memory")
ORDERS, DONE = "faults/policy", "faults/policy_done"


@dataclass
class State:
    """Faults that are active now."""

    engine: str = ""  # one of ENGINE_FAULTS; empty: none
    clock_s: float = 0.0  # by which the node's clock is ahead


class CircleEngine:
    """Plans along a circle from the last command, whatever the weights say."""

    def __init__(self, engine: Engine, state: State) -> None:
        self._engine, self._state = engine, state

    @property
    def config(self) -> PolicyConfig:
        return self._engine.config

    def prefetch(self, pictures: Pictures, /) -> None:
        self._engine.prefetch(pictures)

    def __call__(self, request: PlanRequest, /) -> NDArray[np.float64]:
        chunk = np.array(self._engine(request))
        fault = self._state.engine
        while self._state.engine == "slow-inference":
            time.sleep(0.01)
        if fault == "engine-crash":
            raise RuntimeError("the engine crashed")
        if fault == "out-of-memory":
            raise MemoryError("no memory for the plan")
        newest = self.config.horizons.T_o - 1
        ahead_s = (np.arange(len(chunk)) - newest) / self.config.rate_hz
        chunk[:, :3] = [circle(request.reference_m, seconds) for seconds in ahead_s]
        chunk[:, 3] = 0.0
        return np.full_like(chunk, np.nan) if fault == "nan-output" else chunk


def circle(position_m: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """Position at a later time: on the circle, or on the way to it, with the same speed."""
    away_m = position_m - CENTRE_M
    angle = math.atan2(away_m[1], away_m[0])
    on_m = CENTRE_M + RADIUS_M * np.array([math.cos(angle), math.sin(angle), 0.0])
    way_m, left_m = SPEED_M_S * seconds, on_m - position_m
    if (distance_m := float(np.linalg.norm(left_m))) > 0.02:
        return np.asarray(position_m + left_m * min(1.0, way_m / distance_m))
    turned = angle + way_m / RADIUS_M
    return np.asarray(CENTRE_M + RADIUS_M * np.array([math.cos(turned), math.sin(turned), 0.0]) - left_m)


class _Clock:
    """The node's clock, set forward or back."""

    def __init__(self, clock: Any, state: State) -> None:
        self._clock, self._state = clock, state

    def now(self) -> Any:
        return self._clock.now() + Duration(seconds=self._state.clock_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)


class FaultyPolicy(PolicyNode):
    """The policy node; `faults/policy` changes the fields of `State`, as JSON."""

    def __init__(self) -> None:
        self._state = State()
        super().__init__()
        self._done = self.create_publisher(String, DONE, qos.RELIABLE)
        self.create_subscription(String, ORDERS, self._on_order, qos.RELIABLE)

    def get_clock(self) -> Any:
        return _Clock(super().get_clock(), self._state)

    def load(self, checkpoint: str, runtime: RuntimeConfig) -> Engine:
        return CircleEngine(super().load(checkpoint, runtime), self._state)

    def _on_order(self, msg: String) -> None:
        order = json.loads(msg.data)
        self._state.engine, self._state.clock_s = order["engine"], order["clock_s"]
        self._done.publish(String(data=msg.data))


def main() -> None:
    run_process(FaultyPolicy)


if __name__ == "__main__":
    main()
