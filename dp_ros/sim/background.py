"""Pictures for people, drawn by a process of its own, so that they never slow the simulated clock.

The process gets the model once, and for each picture a copy of the poses that MuJoCo draws from; it needs no physics.
It runs at the lowest priority, starts no threads, and takes at most `CPU_SHARE` of the machine's processor time.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from dp_ros.sim.rendering import Renderer

Image = NDArray[np.uint8]

CPU_SHARE = 0.1
_LOWEST_PRIORITY = 19
_END_S = 2.0  # grace time, then it is killed
_ASK, _ANSWER = struct.Struct("q"), struct.Struct("qd")  # stamp; stamp and CPU seconds
# Attributes of MjData that a picture depends on.
_DRAWN = (
    *("xpos", "xquat", "geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "cam_xpos", "cam_xmat"),
    *("light_xpos", "light_xdir", "flexvert_xpos", "ten_wrapadr", "ten_wrapnum", "wrap_obj", "wrap_xpos"),
)


class BackgroundRenderer:
    """Pictures of one camera, drawn by another process. No call waits for it; a state that comes too soon is skipped.

    Only one state is in flight, so state and picture have one place each in shared memory.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        camera: str,
        width_px: int,
        height_px: int,
        *,
        markers: bool = False,
        rate_hz: float = 10.0,
    ) -> None:
        """`data` is drawn as it is when `offer` is called; `rate_hz`: most pictures in a second."""
        self._data, self._period_s = data, 1.0 / rate_hz
        self._share = min(1.0, CPU_SHARE * len(os.sched_getaffinity(0)))  # of the one core that it can use
        self._size = height_px, width_px, 3
        self._memory = _SharedMemory(data, self._size)
        self._is_busy, self._next_s = False, -float("inf")
        self.problem = ""  # why there are no more pictures
        self._pipe, theirs = socket.socketpair()
        self._pipe.setblocking(False)
        task = os.memfd_create("model")
        with theirs, os.fdopen(task, "w+b") as file:
            pickle.dump((model, camera, markers, self._size), file)
            file.flush()
            descriptors = (theirs.fileno(), task, self._memory.fileno)
            # A session of its own: Ctrl-C is for the parent, whose end closes the pipe.
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, *map(str, descriptors)],
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                start_new_session=True,
                env=os.environ | {"LP_NUM_THREADS": "0"},
            )
        self._memory.close_file()

    def offer(self, stamp_ns: int, now_s: float) -> None:
        """Have the present state drawn, if it is time for a picture and the last one is done. `now_s`: steady clock."""
        if self._is_busy or now_s < self._next_s or self.problem:
            return
        self._memory.write(self._data)
        try:
            self._pipe.send(_ASK.pack(stamp_ns))
        except OSError:
            self._fail()
            return
        self._is_busy, self._next_s = True, now_s + self._period_s

    def take(self, now_s: float) -> tuple[int, Image] | None:
        """Stamp and picture (height, width, 3) that are done since the last call. Read them before the next `offer`."""
        if not self._is_busy or self.problem:
            return None
        try:
            answer = self._pipe.recv(_ANSWER.size)
        except BlockingIOError:
            return None
        except OSError:
            answer = b""
        if not answer:
            self._fail()
            return None
        self._is_busy = False
        stamp_ns, took_s = _ANSWER.unpack(answer)
        self._next_s = max(self._next_s, now_s + took_s * (1.0 / self._share - 1.0))
        return stamp_ns, self._memory.pixels

    @property
    def process_id(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """End the process; may be called twice."""
        self._pipe.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _fail(self) -> None:
        self.problem = f"the process that draws the pictures (pid {self.process_id}) has ended"


class _SharedMemory:
    """Place of one state and one picture, in memory that two processes map."""

    def __init__(self, data: mujoco.MjData, size: tuple[int, ...], fileno: int | None = None) -> None:
        self._sizes = [np.size(getattr(data, name)) for name in _DRAWN]
        n_state, n_pixels = sum(self._sizes), int(np.prod(size))
        length = 8 * n_state + n_pixels
        if fileno is None:
            fileno = os.memfd_create("picture")
            os.truncate(fileno, length)
        self.fileno = fileno
        shared = mmap.mmap(fileno, length)  # keeps the file after `close_file`
        self._state = np.frombuffer(shared, np.float64, n_state)
        self.pixels: Image = np.frombuffer(shared, np.uint8, n_pixels, 8 * n_state).reshape(size)

    def close_file(self) -> None:
        os.close(self.fileno)

    def write(self, data: mujoco.MjData) -> None:
        np.concatenate([getattr(data, name).ravel() for name in _DRAWN], out=self._state)

    def read(self, data: mujoco.MjData) -> None:
        at = 0
        for name, size in zip(_DRAWN, self._sizes, strict=True):
            place: NDArray[Any] = getattr(data, name)
            place[...] = self._state[at : at + size].reshape(place.shape)
            at += size


def _draw(pipe: socket.socket, task: int, picture: int) -> None:
    """Draw each state that is asked for, until the parent's end of the pipe closes."""
    with os.fdopen(task, "rb") as file:
        file.seek(0)
        model, camera, markers, size = pickle.load(file)
    data = mujoco.MjData(model)
    memory = _SharedMemory(data, size, picture)
    memory.close_file()
    renderer = Renderer(model, markers)
    _lower_priority()  # not before: the first picture should not take minutes on a busy machine
    while asked := pipe.recv(_ASK.size):
        began_s = time.process_time()
        memory.read(data)
        memory.pixels[:] = renderer.render(data, camera, size[1], size[0])
        pipe.send(_ANSWER.pack(*_ASK.unpack(asked), time.process_time() - began_s))


def _lower_priority() -> None:
    """To the lowest: within the session, and where Linux divides the processor among sessions, among them."""
    os.nice(_LOWEST_PRIORITY)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_LOWEST_PRIORITY))


if __name__ == "__main__":
    _pipe, _task, _picture = map(int, sys.argv[1:])
    _draw(socket.socket(fileno=_pipe), _task, _picture)
