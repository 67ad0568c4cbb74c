"""Simulated robot arms: contract, registry, Metaworld, a tiny arm, scripted experts, rendering. No ROS, no torch."""

import os

# MuJoCo loads what MUJOCO_GL names as soon as it is imported, and GLFW where it names nothing; it fails obscurely where
# that is missing. Our renderer loads what it needs when it first draws, and says what to install.
_wanted = os.environ.get("MUJOCO_GL")
os.environ["MUJOCO_GL"] = "disable"
import mujoco  # noqa: E402, F401

del os.environ["MUJOCO_GL"]
if _wanted is not None:
    os.environ["MUJOCO_GL"] = _wanted
