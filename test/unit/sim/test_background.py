"""Pictures drawn by another process: the caller never waits for it, and sees when it has died."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

pytest.importorskip("mujoco")

import mujoco

from dp_ros.sim.background import CPU_SHARE, BackgroundRenderer
from dp_ros.sim.rendering import Renderer

pytestmark = pytest.mark.sim

DEADLINE_S = 300.0
SCENE = """
<mujoco>
  <worldbody>
    <camera name="eye" pos="0 0 1"/>
    <body name="ball"><joint type="slide" axis="1 0 0"/><geom size="0.2" rgba="1 0 0 1"/></body>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def scene(make_scene: Callable[[str], Any]) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model, data = make_scene(SCENE)
    return model, data


@pytest.fixture
def background(scene: tuple[mujoco.MjModel, mujoco.MjData]) -> Iterator[BackgroundRenderer]:
    made = BackgroundRenderer(*scene, "eye", 24, 16, rate_hz=10.0)
    yield made
    made.close()


def take(background: BackgroundRenderer, now_s: float) -> tuple[int, np.ndarray]:
    deadline = time.monotonic() + DEADLINE_S
    while (done := background.take(now_s)) is None:
        assert not background.problem
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return done


def test_states_that_come_too_soon_are_skipped(
    scene: tuple[mujoco.MjModel, mujoco.MjData], background: BackgroundRenderer
) -> None:
    """While a picture is being drawn, and until a period has passed since the last one was asked for."""
    model, data = scene
    pictures = []
    for x in (0.0, 0.1):
        data.qpos[0] = x
        mujoco.mj_forward(model, data)
        pictures.append(Renderer(model).render(data, "eye", 24, 16))
    assert not np.array_equal(*pictures)
    background.offer(2, now_s=0.0)  # x = 0.1
    data.qpos[0] = 0.0
    mujoco.mj_forward(model, data)
    background.offer(1, now_s=100.0)  # the first is not taken yet
    stamp, picture = take(background, now_s=0.05)
    assert stamp == 2
    np.testing.assert_array_equal(picture, pictures[1])
    background.offer(1, now_s=0.09)  # 10 Hz
    assert background.take(now_s=0.09) is None
    background.offer(1, now_s=50.0)
    stamp, picture = take(background, now_s=50.0)
    assert stamp == 1
    np.testing.assert_array_equal(picture, pictures[0])


def test_process_takes_a_bounded_share_of_the_processor_at_the_lowest_priority(
    scene: tuple[mujoco.MjModel, mujoco.MjData],
) -> None:
    """Offered thousands of states a second."""
    background = BackgroundRenderer(*scene, "eye", 480, 480, rate_hz=1e6)
    try:
        background.offer(0, 0.0)
        take(background, 0.0)
        process = psutil.Process(background.process_id)
        assert process.nice() == 19
        sessions = Path(f"/proc/{process.pid}/autogroup")  # where Linux divides the processor among sessions
        assert not sessions.exists() or sessions.read_text().endswith("nice 19\n")
        began_s, cpu_s, count = time.monotonic(), sum(process.cpu_times()[:2]), 0
        while (now_s := time.monotonic()) < began_s + 2.0 or count < 3:
            assert not background.problem
            assert now_s < began_s + DEADLINE_S
            background.offer(1, now_s)
            count += background.take(now_s) is not None
            time.sleep(0.001)
        took_s = sum(process.cpu_times()[:2]) - cpu_s
        # The clock is read last: a pause of this process in between makes the share smaller.
        share = min(1.0, CPU_SHARE * len(os.sched_getaffinity(0)))
        assert took_s / (time.monotonic() - began_s) < 1.25 * share  # the clock of the kernel ticks in 10 ms
    finally:
        background.close()


def test_process_that_dies_is_a_problem_and_no_error(background: BackgroundRenderer) -> None:
    background.offer(0, 0.0)
    take(background, 0.0)
    psutil.Process(background.process_id).kill()
    deadline = time.monotonic() + DEADLINE_S
    now_s = 100.0
    while not background.problem:
        background.offer(1, now_s)
        assert background.take(now_s) is None
        assert time.monotonic() < deadline
        now_s += 100.0
    assert (
        background.problem == f"the process that draws the pictures (pid {background.process_id}) has ended"
    )
    background.offer(2, now_s)
    assert background.take(now_s) is None


def test_process_ends_with_its_renderer(scene: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    background = BackgroundRenderer(*scene, "eye", 24, 16)
    process = psutil.Process(background.process_id)
    background.close()
    assert not process.is_running()
    background.close()
