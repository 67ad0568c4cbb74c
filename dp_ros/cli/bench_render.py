"""Our renderer against Metaworld's own, on the same states of the same task.

Each draws in a process of its own, because two GL contexts in one process disturb each other; the parent lets
them draw blocks of frames by turns, so that whatever else the machine does meets both alike.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.cli.errors import CliError

BLOCK = 5  # frames drawn before the other's turn
SIDES = ("metaworld", "dp_ros")


def compare_renderers(task: str, camera: str, size_px: int, seconds: float) -> dict[str, Any]:
    """Medians and samples of milliseconds per frame, and their ratio; first blocks do not count."""
    from dp_ros.sim.rendering import choose_backend

    backend = choose_backend()
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    try:
        for side in SIDES:
            pipes[side], theirs = spawn.Pipe()
            process = spawn.Process(target=_draw_blocks, args=(theirs, side, task, camera, size_px, backend))
            process.start()
            theirs.close()  # so that a process that dies ends our recv
            processes.append(process)
        pictures = {side: _turn(pipes[side], side)[1] for side in SIDES}
        samples: dict[str, list[float]] = {side: [] for side in SIDES}
        deadline = time.monotonic() + seconds
        order = SIDES
        while time.monotonic() < deadline or not samples[SIDES[0]]:
            for side in order:
                samples[side] += _turn(pipes[side], side)[0]
            order = order[::-1]  # neither always follows the other
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in processes:
            process.join(10)
            process.kill()
    medians = {side: median(samples[side]) for side in SIDES}
    difference = np.abs(pictures["metaworld"].astype(float) - pictures["dp_ros"].astype(float)).mean()
    return {
        "task": task,
        "camera": camera,
        "width_px": size_px,
        "height_px": size_px,
        "backend": backend,
        "frames_per_block": BLOCK,
        **{side: {"median_ms": medians[side], "samples_ms": samples[side]} for side in SIDES},
        "mean_pixel_difference": float(difference),  # shadows; of 255
        "ratio": medians["metaworld"] / medians["dp_ros"],
    }


def _turn(pipe: Connection, side: str) -> tuple[list[float], NDArray[np.uint8]]:
    try:
        pipe.send(None)
        answer = pipe.recv()
    except (EOFError, OSError):
        raise CliError(f"the renderer of {side} ended without an answer") from None
    if isinstance(answer, str):
        raise CliError(f"the renderer of {side} failed: {answer}")
    return answer  # type: ignore[no-any-return]


def _draw_blocks(pipe: Connection, side: str, task: str, camera: str, size_px: int, backend: str) -> None:
    """In the child: for each message a block of frames; answers (milliseconds, last picture) or an error."""
    os.environ["MUJOCO_GL"] = backend  # before mujoco is imported
    try:
        env, draw = _set_up(side, task, camera, size_px)
        rng = np.random.default_rng(0)
        while True:
            pipe.recv()
            took_ms = []
            for _ in range(BLOCK):
                env.step(rng.uniform(-1.0, 1.0, 4))  # the same states on both sides
                env.curr_path_length = 0  # no time limit
                began = time.perf_counter()
                picture = draw()
                took_ms.append((time.perf_counter() - began) * 1e3)
            pipe.send((took_ms, np.ascontiguousarray(picture)))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def _set_up(side: str, task: str, camera: str, size_px: int) -> tuple[Any, Callable[[], NDArray[np.uint8]]]:
    """The simulator and what draws it: Gymnasium's `env.render()` as Metaworld's users call it, or ours."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    env: Any = ALL_V3_ENVIRONMENTS[task](
        render_mode="rgb_array", camera_name=camera, width=size_px, height=size_px
    )
    env._freeze_rand_vec, env.seeded_rand_vec, env._set_task_called = False, True, True
    env.seed(0)
    env.reset()
    if side == "metaworld":
        return env, env.render
    from dp_ros.sim.rendering import Renderer

    renderer = Renderer(env.model, markers=True)  # as Metaworld draws them
    return env, lambda: renderer.render(env.data, camera, size_px, size_px)
