"""`dp_ros view`: one self-contained page that shows what a bag holds."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dp_ros.cli import main

TICKS, PERIOD_NS = 40, 12_500_000
BEGIN_NS = 1_700_000_000_000_000_000


def grey(camera: str, index: int, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture that tells its number."""
    return np.full_like(rgb, 6 * index)


@pytest.fixture
def bag(tmp_path: Path, bag_maker) -> Path:
    """Two cameras; the policy was held from tick 10 to 19."""
    verdicts = ["hold_stale" if 10 <= i < 20 else "pass" for i in range(TICKS)]
    said = [
        ("/policy/verdict", BEGIN_NS + i * PERIOD_NS + 1_000_000, bag_maker.text(verdict))
        for i, verdict in enumerate(verdicts)
    ]
    return bag_maker.episode(
        tmp_path / "bags" / "episode_3",
        ticks=TICKS,
        cameras=("left", "wrist"),
        size=(60, 320),
        edited=grey,
        extra=said,
        custom={"outcome": "success", "task": "<b>pour</b>"},
    )


def pictures(page: str, camera: str) -> list[NDArray[np.uint8]]:
    section = page.partition(f"<h3>{camera}</h3>")[2].partition("</div>")[0]
    return [
        cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        for data in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', section)
    ]


def test_the_page_has_each_cameras_pictures_in_order_the_motion_and_the_verdicts(
    bag: Path, tmp_path: Path
) -> None:
    assert main(["view", str(bag), "--out", str(tmp_path / "page.html"), "--pictures", "5"]) == 0
    page = (tmp_path / "page.html").read_text()
    for camera in ("left", "wrist"):
        shown = pictures(page, camera)
        assert [picture.shape for picture in shown] == [(45, 240, 3)] * 5
        assert [picture.mean() for picture in shown] == pytest.approx([0, 60, 117, 174, 234], abs=7)
    assert page.count("<svg") == 3
    assert re.search(r"<td>hold_stale</td><td class=\"n\">10</td><td class=\"n\">25.0 %</td>", page)
    changes = re.findall(r'<td class="n">([\d.]+)</td><td>(\w+)</td>', page)
    assert changes == [("0.00", "pass"), ("0.12", "hold_stale"), ("0.25", "pass")]
    assert "/camera/wrist/image_raw" in page
    assert "80.0 Hz" in page


def test_the_page_needs_nothing_else_and_runs_nothing(bag: Path, tmp_path: Path) -> None:
    assert main(["view", str(bag), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "<script" not in page
    assert "<b>pour</b>" not in page
    assert "&lt;b&gt;pour&lt;/b&gt;" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_a_bag_without_a_policy_or_gripper_commands_that_fails_its_audit_is_shown(
    tmp_path: Path, bag_maker, capsys
) -> None:
    stopped = lambda stream, i: stream == "camera left" and 10 <= i < 30  # noqa: E731
    bag = bag_maker.episode(tmp_path / "a", dropped=stopped, uncommanded=lambda stream, i: True, custom={})
    assert main(["view", str(bag), "--out", str(tmp_path / "page.html"), "--pictures", "60"]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "a gap of 262 ms" in page
    assert "<h2>Verdicts</h2>" not in page
    assert len(pictures(page, "left")) == 20  # of a short bag, each picture once
    assert "unknown: label it" in page


def test_the_page_is_named_after_the_bag_and_one_bag_is_asked_for(
    bag: Path, tmp_path: Path, bag_maker, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["view", str(bag)]) == 0
    assert (tmp_path / "episode_3.html").is_file()
    bag_maker.episode(bag.parent / "episode_4", ticks=5)
    assert main(["view", str(bag.parent)]) == 2
    assert "holds 2 bags: give one of them" in capsys.readouterr().err
    assert main(["view", str(tmp_path / "none"), "--out", "other.html"]) != 0
    assert not (tmp_path / "other.html").exists()
