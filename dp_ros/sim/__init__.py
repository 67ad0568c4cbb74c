"""Simulated robot arms: contract, registry, Metaworld, a tiny arm, scripted experts, rendering. No ROS, no torch."""

import os

# MuJoCo loads what MUJOCO_GL names as soon as it is imported, and fails obscurely where that is missing. Our
# renderer loads it when it first draws, and says what to install.
_wanted = os.environ.pop("MUJOCO_GL", None)
import mujoco  # noqa: E402, F401

if _wanted is not None:
    os.environ["MUJOCO_GL"] = _wanted
