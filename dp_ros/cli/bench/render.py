"""Comparison of the renderer of dp_ros with Metaworld's, on the same states of the same task.

Each renders in a process of its own, because two GL contexts in one process disturb each other. Their blocks of frames
are interleaved, so that other load on the machine affects both.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.cli.bench.sides import Work, sides

BLOCK = 5  # frames between two turns
SIDES = ("metaworld", "dp_ros")


def compare_renderers(task: str, camera: str, size_px: int, seconds: float) -> dict[str, Any]:
    """Medians and samples of milliseconds per frame, and their ratio; the first blocks do not count.

    Also those of the processor's time, in all threads of a side: other load on the machine affects them less.
    """
    from dp_ros.sim.rendering import choose_backend

    backend = choose_backend()
    works: dict[str, Work] = {
        side: partial(_draw_blocks, side, task, camera, size_px, backend) for side in SIDES
    }
    with sides("the renderer", works) as running:
        pictures = {name: side.turn()[1] for name, side in running.items()}
        samples: dict[str, list[float]] = {name: [] for name in running}
        processor: dict[str, list[float]] = {name: [] for name in running}
        deadline = time.monotonic() + seconds
        order = list(running)
        while time.monotonic() < deadline or not samples[SIDES[0]]:
            for name in order:
                took_ms, _, processor_ms = running[name].turn()
                samples[name] += took_ms
                processor[name].append(processor_ms)
            order.reverse()  # neither is always the first
    medians = {side: median(samples[side]) for side in SIDES}
    processor_ms = {side: median(processor[side]) for side in SIDES}
    difference = np.abs(pictures["metaworld"].astype(float) - pictures["dp_ros"].astype(float)).mean()
    return {
        "task": task,
        "camera": camera,
        "width_px": size_px,
        "height_px": size_px,
        "backend": backend,
        "frames_per_block": BLOCK,
        **{
            side: {
                "median_ms": medians[side],
                "processor_ms": processor_ms[side],
                "samples_ms": samples[side],
            }
            for side in SIDES
        },
        "mean_pixel_difference": float(difference),  # shadows; of 255
        "ratio": medians["metaworld"] / medians["dp_ros"],
        "processor_ratio": processor_ms["metaworld"] / processor_ms["dp_ros"],
    }


def _draw_blocks(side: str, task: str, camera: str, size_px: int, backend: str, pipe: Connection) -> None:
    """Render a block of frames for each message; send (milliseconds of each, last picture, mean processor time)."""
    os.environ["MUJOCO_GL"] = backend  # before mujoco is imported
    env, draw = _set_up(side, task, camera, size_px)
    rng = np.random.default_rng(0)
    while True:
        pipe.recv()
        took_ms, processor_s = [], 0.0
        for _ in range(BLOCK):
            env.step(rng.uniform(-1.0, 1.0, 4))  # the same states on both sides
            env.curr_path_length = 0  # no time limit
            began, processor = time.perf_counter(), time.process_time()
            picture = draw()
            processor_s += time.process_time() - processor
            took_ms.append((time.perf_counter() - began) * 1e3)
        pipe.send((took_ms, np.ascontiguousarray(picture), processor_s / BLOCK * 1e3))


def _set_up(side: str, task: str, camera: str, size_px: int) -> tuple[Any, Callable[[], NDArray[np.uint8]]]:
    """(simulator, render function): Gymnasium's `env.render()` as Metaworld's users call it, or that of dp_ros."""
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

    renderer = Renderer(env.model, markers=True)  # as in Metaworld's pictures
    return env, lambda: renderer.render(env.data, camera, size_px, size_px)
