"""Python processes that begin with torch and ROS imported, which takes seconds otherwise.

They are forked from a server that has imported both, `python forked.py`. In all else they are as if started with
`python -m`: their own session, environment, arguments and output, and an interpreter that ends as any other.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# None of them reads the environment when it is imported, as MuJoCo does.
PRELOADED = (
    "torch", "rclpy", "cv2", "safetensors.torch", "dp_ros.cli", "dp_ros.inference.engine", "dp_ros.policy.checkpoint",
    "dp_ros.ros.node.managed_node", "dp_ros.ros.node.node_main",
)  # fmt: skip


class Forked:
    """One of them, with the methods of subprocess.Popen that tests need."""

    def __init__(self, server: Server, pid: int, args: Sequence[str]) -> None:
        self._server, self.pid, self.args = server, pid, args

    @property
    def returncode(self) -> int | None:
        return self._server.codes.get(self.pid)

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._server.changed:
            while self.returncode is None:
                left_s = None if deadline is None else deadline - time.monotonic()
                if left_s is not None and left_s <= 0.0:
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
                self._server.changed.wait(left_s)
            return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Server:
    """The server of this process, started when it is first needed and ended with this process."""

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}  # of ended processes, by pid
        self.changed = threading.Condition()
        self._pids: dict[int, int] = {}  # by request
        self._numbers = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, module: str, *arguments: str, environment: Mapping[str, str], log: Path) -> Forked:
        """`python -m module arguments`, without input; what it says goes to `log`."""
        process = self._process or self._begin()
        number, args = next(self._numbers), ("-m", module, *arguments)
        log.write_text("")  # there at once, for a test that reads it
        request = {
            "number": number,
            "module": module,
            "arguments": arguments,
            "environment": dict(environment),
            "log": str(log),
            "folder": os.getcwd(),
        }
        assert process.stdin is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        with self.changed:
            is_there = self.changed.wait_for(lambda: number in self._pids, 120.0)
            assert is_there, f"{__file__} did not start {module}: run it by itself to see why"
            return Forked(self, self._pids.pop(number), args)

    def _begin(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "ROS_PYTHON_CHECK_FIELDS": "1"}
        self._process = process = subprocess.Popen(
            [sys.executable, __file__],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return process

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self.changed:
                said: dict[str, int] = json.loads(line)
                if "number" in said:
                    self._pids[said["number"]] = said["pid"]
                    self.codes.pop(said["pid"], None)  # of an older process of this number
                else:
                    self.codes[said["pid"]] = said["code"]
                self.changed.notify_all()


SERVER = Server()


# ---- the server ------------------------------------------------------------------------------------------


def _serve() -> dict[str, Any]:
    """Fork a child for each request. Returns in the child, with its request; the server ends with its input."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    waiting = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _report_ended()
        if 0 in ready:
            read = os.read(0, 1 << 16)
            if not read:
                os._exit(0)
            *lines, waiting = (waiting + read).split(b"\n")
            for line in lines:
                request: dict[str, Any] = json.loads(line)
                if not (pid := os.fork()):
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.close(woken)
                    os.close(wake)
                    return request
                _answer({"number": request["number"], "pid": pid})


def _report_ended() -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            _answer({"pid": ended[0], "code": os.waitstatus_to_exitcode(ended[1])})


def _answer(said: dict[str, int]) -> None:
    os.write(1, json.dumps(said).encode() + b"\n")


def _become(request: dict[str, Any]) -> None:
    os.setsid()
    with open(os.devnull) as nothing, open(request["log"], "w") as log:
        for fd, file in ((0, nothing), (1, log), (2, log)):
            os.dup2(file.fileno(), fd)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv[1:] = request["arguments"]
    sys.path[0] = request["folder"]


if __name__ == "__main__":
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # children share these pages
    asked = _serve()
    _become(asked)
    runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
