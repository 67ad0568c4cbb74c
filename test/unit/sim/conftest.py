"""Scenes of MuJoCo that the tests write themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def make_scene() -> Callable[[str], Any]:
    """make_scene(xml) -> (MjModel, MjData) of a scene with a camera "eye"; the test is skipped where none is drawn."""

    def make(xml: str) -> Any:
        import mujoco

        from dp_ros.sim.rendering import Renderer, RenderingError

        model = mujoco.MjModel.from_xml_string(xml)
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        try:
            Renderer(model).render(data, "eye", 8, 8)
        except RenderingError as error:
            pytest.skip(str(error))
        return model, data

    return make
