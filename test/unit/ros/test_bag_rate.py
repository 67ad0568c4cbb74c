"""Control rate of conversions: that of the recordings unless it is given; repeated samples are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dp_ros.data import episodes
from dp_ros.ros.bags.convert import Converted, convert
from dp_ros.schema import ConvertConfig

HZ_30 = 33_333_333  # [ns]


def run(bags: Path, out: Path, **changes: Any) -> Converted:
    return convert([bags], out, ConvertConfig(**changes), jobs=1)


@pytest.mark.parametrize(
    ("period_ns", "rate_hz"), [(HZ_30, 30.0), (33_366_700, 30.0), (12_500_000, 80.0), (80_000_000, 12.5)]
)
def test_the_rate_is_that_of_the_recordings(
    tmp_path: Path, bag_maker, period_ns: int, rate_hz: float
) -> None:
    bag_maker.episode(tmp_path / "bags/a", ticks=60, period_ns=period_ns)
    result = run(tmp_path / "bags", tmp_path / "data")
    assert result.rate.hz == rate_hz
    assert result.repeats == {}
    attributes = episodes.load(tmp_path / "data").attributes
    assert attributes["rate_hz"] == rate_hz
    (bag,) = attributes["bags"]
    assert bag["repeats"] == pytest.approx({"camera left": 0.0, "action": 0.0}, abs=0.02)


@pytest.mark.parametrize(
    ("slow", "source"),
    [("camera left", "camera left"), ("command", "/command/ee_pose"), ("expert", "/expert/ee_pose")],
)
def test_the_slowest_camera_or_label_decides(tmp_path: Path, bag_maker, slow: str, source: str) -> None:
    path = bag_maker.episode(
        tmp_path / "bag",
        ticks=80,
        expert=slow == "expert",
        dropped=lambda stream, i: stream.startswith(slow) and i % 2 == 1,
    )
    result = run(path, tmp_path / "data")
    assert (result.rate.hz, result.rate.source) == (40.0, source)
    assert result.repeats == {}


def test_commands_that_are_sent_on_change_do_not_decide(tmp_path: Path, bag_maker) -> None:
    path = bag_maker.episode(
        tmp_path / "bag", ticks=80, dropped=lambda stream, i: stream.startswith("command") and i % 10 != 0
    )
    assert run(path, tmp_path / "held", hold_commands=True).rate.hz == 80.0
    assert run(path, tmp_path / "sampled").rate.hz == 8.0


def test_many_repeats_are_told(tmp_path: Path, bag_maker) -> None:
    path = bag_maker.episode(tmp_path / "bag", ticks=60, period_ns=HZ_30)
    result = run(path, tmp_path / "data", rate_hz=80.0)
    assert result.rate.hz == 80.0
    assert result.repeats == pytest.approx({"camera left": 0.62, "action": 0.62}, abs=0.02)
    stored = episodes.load(tmp_path / "data").attributes["bags"][0]["repeats"]
    assert stored == pytest.approx(result.repeats, abs=1e-4)


def test_bags_of_several_rates_become_one_dataset_at_the_usual_rate(tmp_path: Path, bag_maker) -> None:
    for i, period_ns in enumerate((50_000_000, HZ_30, HZ_30)):
        bag_maker.episode(tmp_path / f"bags/{i}", seed=i, ticks=30, period_ns=period_ns)
    result = run(tmp_path / "bags", tmp_path / "data")
    assert (result.episodes, result.rate.hz) == (3, 30.0)
    assert result.ticks == 30 + 30 + 44  # 29 periods of 50 ms


def test_a_dataset_that_grows_keeps_its_rate(tmp_path: Path, bag_maker) -> None:
    bag_maker.episode(tmp_path / "bags/a", ticks=60, period_ns=HZ_30)
    run(tmp_path / "bags", tmp_path / "data", rate_hz=15.0)
    for name in ("b", "c"):
        bag_maker.episode(tmp_path / "bags" / name, ticks=60)
    result = run(tmp_path / "bags", tmp_path / "data")
    assert (result.rate.hz, result.episodes, result.new_bags) == (15.0, 3, 2)
