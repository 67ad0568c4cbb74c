"""Plans that take no time, however busy the machine is: when one is due depends on how long the last one took."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dp_ros.control import planner


@pytest.fixture(autouse=True)
def plans_take_no_time(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Those of `InlinePlanner`; the tests of the planners themselves measure them."""
    if request.module.__name__.endswith("test_planner"):
        return
    run_plan = planner.run_plan

    def instant(*args: Any, **kwargs: Any) -> planner.PlanResult:
        return replace(run_plan(*args, **kwargs), duration_s=0.0)

    monkeypatch.setattr(planner, "run_plan", instant)
