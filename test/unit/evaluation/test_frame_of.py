"""Frames of a rollout: the simulator's pictures fit the policy as a camera's do in the node."""

from __future__ import annotations

import numpy as np

from dp_ros.evaluation.episode import frame_of
from dp_ros.pictures import fit_image
from dp_ros.poses import make_pose
from dp_ros.schema import EncoderConfig, Target
from dp_ros.sim.arm import Observation


def test_each_camera_of_a_rollout_has_the_size_and_fit_of_the_policy() -> None:
    rng = np.random.default_rng(0)
    pictures = {
        name: rng.integers(0, 256, (96, 128, 3), dtype=np.uint8) for name in ("wrist", "front", "unused")
    }
    encoder = EncoderConfig.model_validate(
        {
            "cameras": ["front", "wrist"],
            "height_px": 96,
            "width_px": 96,
            "crop_height_px": 84,
            "crop_width_px": 84,
            "fit": "crop",
            "pictures": {"wrist": {"height_px": 40, "width_px": 80, "fit": "pad"}},
        }
    )
    frame = frame_of(Observation(pictures, make_pose([0, 0, 0], [0, 1, 0, 0]), 1.0), 0, encoder)
    front, wrist = frame.images
    np.testing.assert_array_equal(front, pictures["front"][:, 16:112])
    np.testing.assert_array_equal(wrist, fit_image(pictures["wrist"], Target(40, 80, "pad")))
