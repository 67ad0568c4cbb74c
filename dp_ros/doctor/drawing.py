"""Trial of the renderer in a process of its own, because a broken driver may end the process."""

from __future__ import annotations

import subprocess
import sys

from dp_ros.doctor.findings import Finding, ok, warning
from dp_ros.errors import message_of

_PX = 16
_LONGEST_S = 60.0
_TITLES = {"egl": "EGL", "osmesa": "OSMesa (slower than EGL)"}
NEEDED_BY = "collect, eval, demo and sim.launch.py need it"


def rendering() -> Finding:
    """Whether pictures can be drawn here, with the reason and the remedy where not."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__], capture_output=True, text=True, timeout=_LONGEST_S
        )
    except subprocess.TimeoutExpired:
        return warning("drawing", f"the GL driver did not answer in {_LONGEST_S:g} s", "set MUJOCO_GL=osmesa")
    said = done.stdout.strip()
    if done.returncode < 0:
        return warning(
            "drawing",
            f"the GL driver crashed (signal {-done.returncode})",
            "reinstall it, or set MUJOCO_GL=osmesa",
        )
    if said in _TITLES:
        return ok("drawing", _TITLES[said])
    what, _, remedy = (said or " ".join(done.stderr.split())[-200:]).partition(": ")
    return warning("drawing", f"{what}; {NEEDED_BY}", remedy)


def _try() -> None:
    """Print the backend that drew, or why none can."""
    from dp_ros.sim.gl_backend import choose_backend, start_context

    try:
        backend = choose_backend()
        start_context(backend, _PX, _PX).free()
    except Exception as error:
        line = message_of(error)
        if line is None:
            raise
        print(line)
        return
    print(backend)


if __name__ == "__main__":
    _try()
