"""The plan for RViz and Foxglove: path, markers, and the pictures that the policy sees. Drawn for subscribers only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from nav_msgs.msg import Path
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

from dp_ros.actions import POSITION
from dp_ros.control.chunk import Chunk
from dp_ros.control.controller import PolicyDecision
from dp_ros.control.planner import PlanWorker
from dp_ros.control.spread import PlanSpread
from dp_ros.ros.messages import images
from dp_ros.ros.messages.markers import Scene, chunk_to_path, plan_markers
from dp_ros.ros.messages.plan_picture import (
    COMMAND,
    EXECUTED,
    HELD,
    MEASURED,
    REMAINING,
    SPREAD,
    View,
    draw_views,
)
from dp_ros.ros.messages.trace import Trace
from dp_ros.ros.node.managed_node import ManagedNode
from dp_ros.ros.nodes.camera_views import CameraViews
from dp_ros.schema import PolicyConfig, RuntimeConfig
from dp_ros.streams import FrameAssembler

Array = NDArray[np.float64]
_EVERY_NS = 200_000_000  # of the command's stamps, where no plan arrives and the verdict stays


class PlanDrawing:
    """Publisher of `policy/path`, `policy/markers` and `policy/image`."""

    def __init__(
        self,
        node: ManagedNode,
        streams: FrameAssembler,
        policy: PolicyConfig,
        runtime: RuntimeConfig,
        worker: PlanWorker,
        to_stamp: Callable[[int], int] = lambda time_ns: time_ns,
    ) -> None:
        """to_stamp: control time [ns], of decisions and streams -> stamp."""
        self._streams, self.gate, self._to_stamp = streams, runtime.gate, to_stamp
        self._spread = PlanSpread(policy, runtime.spread_samples, worker)
        self._encoder = policy.encoder
        self._cameras = CameraViews(policy.encoder.cameras, node.add_subscription)
        self._path = node.add_publisher(Path, "policy/path", 10)
        self._markers = node.add_publisher(MarkerArray, "policy/markers", 10)
        self._view = node.add_publisher(Image, "policy/image", 10)
        self._commanded, self._measured = Trace(), Trace()
        self.begin()

    def begin(self) -> None:
        """Before the first tick after an activation."""
        self._cameras.forget()
        self._drawn_ns, self._verdict, self._episode_ns = -(2**62), None, -(2**62)

    def add(self, decision: PolicyDecision, text: str, frame_id: str) -> None:
        """Draw a decision, if it has a new plan or verdict, or nothing was drawn for a while. `text`: the verdict."""
        command = decision.command
        self._follow(decision)
        due = not 0 <= command.stamp_ns - self._drawn_ns < _EVERY_NS
        if decision.plan_s is None and decision.verdict is self._verdict and not due:
            return
        self._drawn_ns, self._verdict = command.stamp_ns, decision.verdict
        chunk = decision.chunk
        if chunk is not None and not np.isfinite(chunk.actions).all():
            chunk = None
        if decision.plan is not None and self._is_looked_at():
            self._spread.begin(decision.plan)
        spread_m = self._spread.of(chunk)
        if chunk is not None and decision.plan_s is not None and self._path.get_subscription_count():
            stamped = replace(chunk, t0_ns=self._to_stamp(chunk.t0_ns))
            self._path.publish(chunk_to_path(stamped, command.orientation, frame_id))
        if self._markers.get_subscription_count() and np.isfinite(command.position_m).all():
            box = self.gate.workspace_low_m, self.gate.workspace_high_m
            traces = self._commanded.points_m, self._measured.points_m
            scene = Scene(text, decision.verdict.holds, box, *traces, spread_m)
            stamped_command = replace(command, stamp_ns=self._to_stamp(command.stamp_ns))
            self._markers.publish(plan_markers(chunk, stamped_command, scene, frame_id))
        if self._view.get_subscription_count():
            self._cameras.listen()
            self._draw_pictures(decision, chunk, spread_m, text, frame_id)

    def _follow(self, decision: PolicyDecision) -> None:
        """Keep the paths of the command and of the tool; a jump in time begins new ones."""
        now_ns = decision.command.stamp_ns
        if not 0 <= now_ns - self._episode_ns < 1_000_000_000:
            self._commanded.clear()
            self._measured.clear()
        self._episode_ns = now_ns
        if not decision.is_silent:
            self._commanded.add(decision.command.position_m)
        if (pose := self._streams.ee_pose.at(now_ns)) is not None:
            self._measured.add(POSITION.of(pose.value))

    def _is_looked_at(self) -> bool:
        return bool(self._markers.get_subscription_count() or self._view.get_subscription_count())

    def _draw_pictures(
        self, decision: PolicyDecision, chunk: Chunk | None, spread_m: Array | None, text: str, frame_id: str
    ) -> None:
        command = decision.command
        views = []
        for camera, stream in self._streams.images.items():
            sample = stream.at(command.stamp_ns)
            if sample is None:
                continue
            tool = self._streams.ee_pose.at(sample.stamp_ns)
            tool_m = POSITION.of(tool.value)[None] if tool else np.empty((0, 3))
            points_m = [tool_m, np.asarray(command.position_m)[None]]
            if chunk is not None:
                positions, executed = POSITION.of(chunk.actions), chunk.executed
                points_m += [positions[executed], positions[max(executed.stop - 1, 0) :]]
                if spread_m is not None:  # a point that is not seen parts two samples
                    points_m.append(
                        np.pad(spread_m, ((0, 0), (0, 1), (0, 0)), constant_values=np.nan).reshape(-1, 3)
                    )
            points, target = np.concatenate(points_m), self._encoder.target(camera)
            stamp_ns = self._to_stamp(sample.stamp_ns)
            pixels = self._cameras.project(camera, stamp_ns, frame_id, points, target)
            if pixels is None:
                views.append(View(camera, sample.value))
                continue
            at = np.cumsum([len(part) for part in points_m])[:-1]
            here, commanded, *lines = np.split(pixels, at)
            colours = dict(zip((EXECUTED, REMAINING, SPREAD), lines, strict=False))
            # The samples first, below the chunk.
            colours = {SPREAD: colours.pop(SPREAD), **colours} if SPREAD in colours else colours
            views.append(View(camera, sample.value, colours, {MEASURED: here, COMMAND: commanded}))
        if not views:
            return
        colour = HELD if decision.verdict.holds else EXECUTED
        age = "no plan"
        if chunk is not None and chunk.frame_ns is not None:
            age = f"plan {(command.stamp_ns - chunk.frame_ns) / 1e6:.0f} ms old"
        picture = draw_views(views, [(text, colour), (age, REMAINING)])
        self._view.publish(images.rgb_to_image(picture, self._to_stamp(command.stamp_ns), ""))
