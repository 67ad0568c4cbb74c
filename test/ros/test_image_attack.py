"""Random image messages through the subscriptions of a policy's node, without DDS."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("sensor_msgs")

from dp_ros.ros.bench.pictures import attack_pictures
from dp_ros.ros.messages.images import DamagedImageError, compressed_to_rgb, image_to_rgb

pytestmark = pytest.mark.ros


@pytest.mark.slow
def test_ten_thousand_random_messages_cost_frames_and_no_more() -> None:
    data = attack_pictures(10_000)
    outcomes = data["outcomes"]
    assert data["is_safe"], data
    assert sum(outcomes[name] for name in ("taken", "refused")) == 10_000
    assert outcomes["taken"] > 500, "the attack must reach the pixels"
    assert outcomes["refused"] > 5_000
    assert outcomes["good, taken"] == 1_000
    assert data["grown_mb"] < 100


def compressed(data: bytes) -> SimpleNamespace:
    return SimpleNamespace(format="png", data=data, header=SimpleNamespace(frame_id="wrist"))


PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.mark.parametrize("suffix", [".bmp", ".webp", ".tiff", ".ppm"])
def test_other_formats_that_opencv_reads_are_refused(suffix: str) -> None:
    data = cv2.imencode(suffix, PICTURE)[1].tobytes()
    with pytest.raises(DamagedImageError, match="not one whole JPEG or PNG"):
        compressed_to_rgb(compressed(data))


def test_any_flipped_bit_of_a_png_is_a_lost_frame() -> None:
    data = cv2.imencode(".png", PICTURE)[1].tobytes()
    for bit in range(0, 8 * len(data), 41):
        spoilt = bytearray(data)
        spoilt[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(DamagedImageError):
            compressed_to_rgb(compressed(bytes(spoilt)))


def test_names_in_messages_are_told_in_one_short_line() -> None:
    header = SimpleNamespace(frame_id="a\x1b[31m\nb" * 100)
    msg = SimpleNamespace(encoding="x\n" * 1000, header=header, height=1, width=1, step=3, data=b"abc")
    with pytest.raises(Exception, match=r"^image 'x\?x\?.*\.\.\.' of frame 'a\?\[31m\?b") as caught:
        image_to_rgb(msg)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
