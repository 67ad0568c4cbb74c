"""Faults of a robot's sensors and of the transport, on the messages that it publishes."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dp_ros.ros.messages import conversions, images

LATE_S = 0.4  # of a lagging camera, and of late messages
AHEAD_S = 10.0  # distance of stamps in the future
_JUMP_M = 1.0
CAMERA, POSE, GRIPPER = "camera", "pose", "gripper"


class Out(NamedTuple):
    """A message to be published at a time, in nanoseconds."""

    due_ns: int
    message: Any


class Injector:
    """Replacement of each message of one stream while a fault is active."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._fault = ""
        self.frozen: Any = None  # the message that is repeated
        self.is_done = False  # a fault of one message has happened
        self.held: Any = None  # message to be published after the next one
        self._waiting: deque[Out] = deque()

    def begin(self, fault: str) -> None:
        """Begin a fault of `FAULTS`; the empty name ends it."""
        self._fault, self.frozen, self.is_done, self.held = fault, None, False, None
        self._waiting.clear()

    def send(self, message: Any, now_ns: int) -> list[Any]:
        """The messages to publish now, where `message` was measured."""
        sources, change = FAULTS.get(self._fault, ((), _unchanged))
        outs = change(self, message, now_ns) if self._source in sources else [Out(now_ns, message)]
        self._waiting.extend(outs)
        due = []
        while self._waiting and self._waiting[0].due_ns <= now_ns:
            due.append(self._waiting.popleft().message)
        return due


def _unchanged(injector: Injector, message: Any, now_ns: int) -> list[Out]:
    return [Out(now_ns, message)]


def _lost(injector: Injector, message: Any, now_ns: int) -> list[Out]:
    return []


def _frozen(injector: Injector, message: Any, now_ns: int) -> list[Out]:
    """The same content with new stamps."""
    injector.frozen = injector.frozen or message
    repeated = copy.deepcopy(injector.frozen)
    repeated.header.stamp = message.header.stamp
    return [Out(now_ns, repeated)]


def _late(injector: Injector, message: Any, now_ns: int) -> list[Out]:
    return [Out(now_ns + round(LATE_S * 1e9), message)]


def _black(injector: Injector, message: Any, now_ns: int) -> list[Out]:
    return _picture(message, now_ns, np.zeros((message.height, message.width, 3), np.uint8))


def _other_size(injector: Injector, message: Any, now_ns: int) -> list[Out]:
    return _picture(message, now_ns, np.repeat(images.image_to_rgb(message), 2, axis=1))


def _picture(message: Any, now_ns: int, pixels: Any) -> list[Out]:
    stamp_ns = conversions.stamp_to_ns(message.header.stamp)
    return [Out(now_ns, images.rgb_to_image(pixels, stamp_ns, message.header.frame_id))]


def _cut_once(injector: Injector, message: Any, now_ns: int) -> list[Out]:
    if not injector.is_done:
        message.data = message.data[: len(message.data) // 2]
        injector.is_done = True
    return [Out(now_ns, message)]


def _jump(injector: Injector, message: Any, now_ns: int) -> list[Out]:
    message.pose.position.x += _JUMP_M
    return [Out(now_ns, message)]


def _turn(injector: Injector, message: Any, now_ns: int) -> list[Out]:
    """Half a turn about the tool's own x axis."""
    q = message.pose.orientation
    q.x, q.y, q.z, q.w = q.w, q.z, -q.y, -q.x
    return [Out(now_ns, message)]


def _other_frame(injector: Injector, message: Any, now_ns: int) -> list[Out]:
    message.header.frame_id = "another_base"
    return [Out(now_ns, message)]


def _swapped(injector: Injector, message: Any, now_ns: int) -> list[Out]:
    """Each second message after the one that follows it."""
    before, injector.held = injector.held, None
    if before is None:
        injector.held = message
        return []
    return [Out(now_ns, message), Out(now_ns, before)]


def _thrice(injector: Injector, message: Any, now_ns: int) -> list[Out]:
    return [Out(now_ns, message)] * 3


def _future(injector: Injector, message: Any, now_ns: int) -> list[Out]:
    stamp_ns = conversions.stamp_to_ns(message.header.stamp) + round(AHEAD_S * 1e9)
    message.header.stamp = conversions.ns_to_stamp(stamp_ns)
    return [Out(now_ns, message)]


_ALL = (CAMERA, POSE, GRIPPER)
FAULTS: dict[str, tuple[tuple[str, ...], Callable[[Injector, Any, int], list[Out]]]] = {
    "camera-stops": ((CAMERA,), _lost),
    "camera-freezes": ((CAMERA,), _frozen),
    "camera-lags": ((CAMERA,), _late),
    "camera-black": ((CAMERA,), _black),
    "camera-changes-size": ((CAMERA,), _other_size),
    "camera-cut-frame": ((CAMERA,), _cut_once),
    "pose-stops": ((POSE,), _lost),
    "pose-freezes": ((POSE,), _frozen),
    "pose-jumps": ((POSE,), _jump),
    "pose-turns": ((POSE,), _turn),
    "pose-changes-frame": ((POSE,), _other_frame),
    "messages-late": (_ALL, _late),
    "messages-out-of-order": (_ALL, _swapped),
    "messages-duplicated": (_ALL, _thrice),
    "messages-from-the-future": (_ALL, _future),
}
